/// Memory regions: bounds, protection domains, access, and what cannot be registered.
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

class Memory : public OnNic {
 protected:
  /// The queue pair is in error, says so, and flushes what is posted now.
  void expect_dead(RawQueue& queue) {
    EXPECT_TRUE(event_comes(context.get(), IBV_EVENT_QP_FATAL));
    EXPECT_EQ(queue.state(), IBV_QPS_ERR);
    EXPECT_EQ(queue.send(plain(mac(9))), IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(queue.receive(kPatienceMs).value().status, IBV_WC_WR_FLUSH_ERR);
  }
  static std::uint64_t start(const RawQueue& queue) { return reinterpret_cast<std::uintptr_t>(queue.memory.data()); }
};

TEST_F(Memory, SendOutOfBounds) {
  const auto sender = idle();
  ASSERT_EQ(sender->post_segment(start(*sender) + sender->memory.size() - 60, 61, sender->mr->lkey), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_LOC_PROT_ERR);
  expect_dead(*sender);
}

TEST_F(Memory, SendUpToTheLastByte) {
  const auto sender = idle();
  ASSERT_EQ(sender->post_segment(start(*sender) + sender->memory.size() - 60, 60, sender->mr->lkey), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_SUCCESS);
}

TEST_F(Memory, SendBelowTheRegion) {
  const auto sender = idle();
  std::uint8_t* middle = &sender->memory[4096];
  const auto region = owned(ibv_reg_mr(sender->pd.get(), middle, 4096, 0), "ibv_reg_mr");
  ASSERT_EQ(sender->post_segment(reinterpret_cast<std::uintptr_t>(middle) - 30, 60, region->lkey), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_LOC_PROT_ERR);
  expect_dead(*sender);
}

TEST_F(Memory, SendWithTheKeyOfAnotherDomain) {
  const auto sender = idle();
  const auto other = idle();
  ASSERT_EQ(sender->post_segment(start(*other), 60, other->mr->lkey), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_LOC_PROT_ERR);
  expect_dead(*sender);
}

TEST_F(Memory, SendWithAKeyThatIsGone) {
  const auto sender = idle();
  std::vector<std::uint8_t> page(4096);
  auto region = owned(ibv_reg_mr(sender->pd.get(), page.data(), page.size(), 0), "ibv_reg_mr");
  const std::uint32_t key = region->lkey;
  region.reset();
  ASSERT_EQ(sender->post_segment(reinterpret_cast<std::uintptr_t>(page.data()), 60, key), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_LOC_PROT_ERR);
  expect_dead(*sender);
}

TEST_F(Memory, SendFromMemoryWithoutAccessFlags) {
  const auto sender = idle();
  std::vector<std::uint8_t> page(4096);
  const auto region = owned(ibv_reg_mr(sender->pd.get(), page.data(), page.size(), 0), "ibv_reg_mr");
  ASSERT_EQ(sender->post_segment(reinterpret_cast<std::uintptr_t>(page.data()), 60, region->lkey), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_SUCCESS);
}

TEST_F(Memory, ReceiveIntoMemoryThatIsNotWritable) {
  QueueOptions options;
  options.access = 0;
  const auto taker = queue(mac(1), options);
  const std::uint64_t before = counter("drop_protection");
  wire.send(plain(mac(1)));
  EXPECT_EQ(taker->receive(kPatienceMs).value().status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(counter("drop_protection"), before + 1);
  expect_dead(*taker);
}

TEST_F(Memory, ReceiveBufferTooSmall) {
  QueueOptions options;
  options.buffer_bytes = 128;
  const auto taker = queue(mac(1), options);
  wire.send(plain(mac(1), 3, 128));
  EXPECT_EQ(taker->receive_fill(), 3);
  wire.send(plain(mac(1), 3, 129));
  EXPECT_EQ(taker->receive(kPatienceMs).value().status, IBV_WC_LOC_LEN_ERR);
  expect_dead(*taker);
}

TEST_F(Memory, FrameScatteredOverTwoBuffers) {
  QueueOptions options;
  options.receive_requests = 1;
  RawQueue taker(context.get(), options);
  ASSERT_EQ(taker.modify(IBV_QPS_INIT), 0);
  ibv_sge parts[2] = {{start(taker), 50, taker.mr->lkey}, {start(taker) + 1000, 1000, taker.mr->lkey}};
  ibv_recv_wr request{0, nullptr, parts, 2};
  ibv_recv_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_recv(taker.qp.get(), &request, &bad), 0);
  ASSERT_EQ(taker.modify(IBV_QPS_RTR), 0);
  taker.take(mac(1));
  Frame frame = plain(mac(1), 1, 200);
  frame[49] = 49;
  frame[50] = 50;
  wire.send(frame);
  ibv_wc done{};
  ASSERT_TRUE(eventually([&] { return ibv_poll_cq(taker.receive_cq.get(), 1, &done) == 1; }));
  EXPECT_EQ(done.status, IBV_WC_SUCCESS);
  EXPECT_EQ(done.byte_len, 200U);
  EXPECT_EQ(taker.memory[49], 49);
  EXPECT_EQ(taker.memory[1000], 50);
  EXPECT_EQ(taker.memory[1149], 1);
}

TEST_F(Memory, NoBufferIsADropAndNoError) {
  QueueOptions options;
  options.receive_requests = 1;
  RawQueue taker(context.get(), options);
  ASSERT_EQ(taker.start(), 0);
  taker.take(mac(1));
  const std::uint64_t before = counter("drop_no_buffer");
  for (std::uint8_t i = 1; i < 4; ++i) wire.send(plain(mac(1), i));
  ASSERT_TRUE(eventually([&] { return counter("drop_no_buffer") == before + 2; }));
  EXPECT_EQ(taker.receive_fill(), 1);
  wire.send(plain(mac(1), 9));
  EXPECT_EQ(taker.receive_fill(), 9);
}

TEST_F(Memory, UnmappedAddress) {
  const auto domain = owned(ibv_alloc_pd(context.get()), "ibv_alloc_pd");
  void* pages = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  munmap(static_cast<std::uint8_t*>(pages) + 4096, 4096);
  EXPECT_FALSE(Handle<ibv_mr>(ibv_reg_mr(domain.get(), pages, 8192, kLocalWrite)));
  EXPECT_EQ(errno, EFAULT);
  munmap(pages, 4096);
}

TEST_F(Memory, ReadOnlyMemoryIsNotForWriting) {
  const auto domain = owned(ibv_alloc_pd(context.get()), "ibv_alloc_pd");
  void* page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  EXPECT_FALSE(Handle<ibv_mr>(ibv_reg_mr(domain.get(), page, 4096, kLocalWrite)));
  EXPECT_EQ(errno, EFAULT);
  EXPECT_TRUE(Handle<ibv_mr>(ibv_reg_mr(domain.get(), page, 4096, 0)));
  munmap(page, 4096);
}

TEST_F(Memory, LengthThatWrapsAround) {
  const auto domain = owned(ibv_alloc_pd(context.get()), "ibv_alloc_pd");
  std::vector<std::uint8_t> page(4096);
  EXPECT_FALSE(Handle<ibv_mr>(ibv_reg_mr(domain.get(), page.data(), ~std::size_t{0}, kLocalWrite)));
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(Memory, RemoteWriteWantsLocalWrite) {
  const auto domain = owned(ibv_alloc_pd(context.get()), "ibv_alloc_pd");
  std::vector<std::uint8_t> page(4096);
  EXPECT_FALSE(Handle<ibv_mr>(ibv_reg_mr(domain.get(), page.data(), 4096, int{IBV_ACCESS_REMOTE_WRITE})));
  EXPECT_EQ(errno, EINVAL);
}

/// In a process of its own, whose limit and capabilities it changes. @return 0 where all is as it should be.
int locked_memory_child() {
  const Handle<ibv_context> device = open_device();
  const auto domain = owned(ibv_alloc_pd(device.get()), "ibv_alloc_pd");
  const rlimit limit{65536, 65536};
  std::vector<std::uint8_t> memory(131072);
  setrlimit(RLIMIT_MEMLOCK, &limit);
  if (!Handle<ibv_mr>(ibv_reg_mr(domain.get(), memory.data(), memory.size(), 0))) return 1;  // root may
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2]{};
  syscall(SYS_capget, &header, sets);
  sets[0].effective &= ~(1U << CAP_IPC_LOCK);
  if (syscall(SYS_capset, &header, sets) != 0) return 2;
  if (Handle<ibv_mr>(ibv_reg_mr(domain.get(), memory.data(), memory.size(), 0)) || errno != ENOMEM) return 3;
  const Handle<ibv_mr> small(ibv_reg_mr(domain.get(), memory.data(), 49152, 0));
  if (!small) return 4;
  if (Handle<ibv_mr>(ibv_reg_mr(domain.get(), memory.data(), 49152, 0)) || errno != ENOMEM) return 5;  // the sum counts
  return 0;
}

TEST(MemoryLimit, LockedMemoryIsLimitedWithoutTheCapability) {
  const pid_t child = fork();
  if (child == 0) {
    int result = 6;
    try {
      result = locked_memory_child();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(result);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}

}  // namespace
}  // namespace softnic_client
