#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>

#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"
#include "vswitch/base/memory.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/net/ip.h"
#include "vswitch/net/mac.h"

namespace vswitch {
namespace {

TEST(Error, SaysOperationSubjectReasonAndHint) {
  const Error error(ENOENT, "open", "/dev/net/tun", "load the tun module");
  EXPECT_STREQ(error.what(), "open /dev/net/tun: No such file or directory; load the tun module");
  EXPECT_EQ(error.code(), ENOENT);
  EXPECT_STREQ(Error(0, "port", "red/web", "is wrong").what(), "port red/web; is wrong");
}

TEST(Fd, ClosesOnceAndMovesOwnership) {
  Fd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = first.get();
  Fd second = std::move(first);
  EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): the moved-from state is the point
  EXPECT_EQ(second.get(), number);
  second.reset();
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST(SealedMemory, CannotBeTruncatedOrGrown) {
  const Fd fd = make_sealed_memory("test", 8192);
  EXPECT_EQ(::ftruncate(fd.get(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(fd.get(), 16384), -1);
}

TEST(SealedMemory, AfterSealingOnlyOldMappingsCanWrite) {
  const Fd fd = make_sealed_memory("test", 4096);
  const Mapping ours = Mapping::shared(fd.get(), 4096, true);
  seal_against_writers(fd, "test");
  ours.data()[0] = std::byte{7};
  EXPECT_THROW(Mapping::shared(fd.get(), 4096, true), Error);
  const Mapping reader = Mapping::shared(fd.get(), 4096, false);
  EXPECT_EQ(reader.data()[0], std::byte{7});
  EXPECT_EQ(::mprotect(reader.data(), 4096, PROT_READ | PROT_WRITE), -1);
}

/// A reader uses an object as long as it likes between two announcements; the writer frees each only after wait().
TEST(Quiescence, NothingIsFreedWhileAReaderMayUseIt) {
  Quiescence quiescence(1);
  struct Value {
    std::atomic<int> alive{1};
  };
  auto current = std::make_unique<Value>();
  Published<Value> published(current.get());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> reads{0};
  std::thread reader([&] {
    for (std::uint64_t i = 0; !stop.load(); ++i) {
      if (i % 64 == 0) {
        quiescence.offline(0);
        std::this_thread::yield();
        quiescence.wake(0);
      } else {
        quiescence.online(0);
      }
      Value* value = published.load();
      for (int k = 0; k < 10; ++k) EXPECT_EQ(value->alive.load(std::memory_order_relaxed), 1);
      reads.fetch_add(1);
    }
    quiescence.offline(0);
  });
  for (int i = 0; i < 2000; ++i) {
    auto next = std::make_unique<Value>();
    published.replace(next.get());
    quiescence.wait();
    current->alive = 0;
    current = std::move(next);
  }
  while (reads.load() < 1000) std::this_thread::yield();
  stop = true;
  reader.join();
}

TEST(Mac, ParsesAndPrints) {
  EXPECT_EQ(Mac::parse("02:00:00:AB:cd:11")->to_string(), "02:00:00:ab:cd:11");
  for (const char* bad : {"", "02:00:00:00:00", "02:00:00:00:00:1", "02-00-00-00-00-11", "0g:00:00:00:00:11",
                          "02:00:00:00:00:111", "+2:00:00:00:00:11", "02:00:00:00:00:1 "}) {
    EXPECT_FALSE(Mac::parse(bad)) << bad;
  }
  EXPECT_TRUE(Mac::parse("01:00:5e:00:00:01")->is_multicast());
  EXPECT_FALSE(Mac::parse("02:00:00:00:00:01")->is_multicast());
}

TEST(IpPrefix, ParsesAndPrints) {
  EXPECT_EQ(IpPrefix::parse("198.18.0.11/24")->to_string(), "198.18.0.11/24");
  EXPECT_EQ(IpPrefix::parse("fd00::1/64")->to_string(), "fd00::1/64");
  EXPECT_EQ(IpPrefix::parse("198.18.0.11")->to_string(), "198.18.0.11/32");
  for (const char* bad : {"", "198.18.0/24", "198.18.0.11/33", "fd00::1/129", "198.18.0.11/", "198.18.0.11/a", "/24"}) {
    EXPECT_FALSE(IpPrefix::parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace vswitch
