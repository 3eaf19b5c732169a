// A tenant that does to its memory and descriptors what it likes, beside a pair of neighbours that must not notice.
//
//   mallory a (by hand) -- RingPort --+
//   neighbour b         -- RingPort --+-- one worker
//   neighbour c         -- RingPort --+

#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/unit/ring_support.h"

namespace vswitch::test {
namespace {

using namespace std::chrono_literals;

const Mac kA = mac(0x0a);
const Mac kB = mac(0x0b);
const Mac kC = mac(0x0c);
constexpr std::uint32_t kFrameBytes = 100;

class HostileRing : public testing::Test {
 protected:
  /// Lays a good frame at the arena's start and describes it at `index`.
  void describe(RawTenant& mallory, std::uint32_t index, std::uint32_t offset = 0, std::uint32_t length = kFrameBytes,
                const vswitch_offload& offload = {}) {
    const auto frame = plain(kB, kA, index, kFrameBytes);
    std::memcpy(mallory.arena(), frame.data(), frame.size());
    mallory.descriptor(index) = {offset, length, offload};
  }
  /// After whatever was done: the next good frame goes through, from where the switch says it is.
  void expect_usable(RawTenant& mallory, tenant::Port& b) {
    const std::uint32_t at = mallory.switch_tail();
    describe(mallory, at);
    mallory.publish(at + 1);
    EXPECT_EQ(receive(b).bytes, plain(kB, kA, at, kFrameBytes));
    EXPECT_TRUE(eventually([&] { return mallory.switch_tail() == at + 1; }));
  }
  RingSwitch net_{3};
};

TEST_F(HostileRing, HeadFarAheadIsSkippedOver) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  std::uint64_t corrupt = 0;
  for (const std::uint32_t ahead : {1025U, 5000U, 0x8000'0000U, 0xffff'ffffU}) {
    const std::uint32_t head = mallory.switch_tail() + ahead;
    mallory.publish(head);
    ASSERT_TRUE(eventually([&] { return mallory.switch_tail() == head; })) << ahead;
    EXPECT_EQ(net_.drops(0, Drop::ring_corrupt), ++corrupt);
    expect_usable(mallory, b);
  }
}

TEST_F(HostileRing, ImpossibleDescriptorsAreRefusedOneByOne) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  struct Case {
    std::uint32_t offset, length;
    Drop reason;
  };
  const std::uint32_t arena = mallory.geometry.arena_bytes;
  const std::vector<Case> cases = {{0, 0, Drop::malformed},
                                   {0, 13, Drop::malformed},
                                   {0xffff'ffff, 13, Drop::malformed},
                                   {arena - 13, 14, Drop::bad_descriptor},
                                   {arena, 14, Drop::bad_descriptor},
                                   {0xffff'fff0, 64, Drop::bad_descriptor},
                                   {0xffff'ffff, 0xffff'ffff, Drop::bad_descriptor},
                                   {0, VSWITCH_RING_MAX_FRAME + 1, Drop::bad_descriptor},
                                   {0, 0xffff'ffff, Drop::bad_descriptor},
                                   {64, arena - 64, Drop::bad_descriptor}};
  for (const Case& bad : cases) {
    const std::uint64_t before = net_.drops(0, bad.reason);
    const std::uint32_t at = mallory.switch_tail();
    describe(mallory, at, bad.offset, bad.length);
    describe(mallory, at + 1);
    mallory.publish(at + 2);
    EXPECT_EQ(receive(b).bytes, plain(kB, kA, at + 1, kFrameBytes)) << "the good frame behind it";
    EXPECT_EQ(net_.drops(0, bad.reason), before + 1) << bad.offset << " " << bad.length;
    ASSERT_TRUE(eventually([&] { return mallory.switch_tail() == at + 2; }));
  }
  // The last bytes of the arena are a tenant's to use.
  const std::uint32_t at = mallory.switch_tail();
  const auto frame = plain(kB, kA, 5, kFrameBytes);
  std::memcpy(mallory.arena() + arena - kFrameBytes, frame.data(), frame.size());
  mallory.descriptor(at) = {arena - kFrameBytes, kFrameBytes, {}};
  mallory.publish(at + 1);
  EXPECT_EQ(receive(b).bytes, frame);
}

TEST_F(HostileRing, ContradictoryOffloadsAreRefused) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  struct Lie {
    vswitch_offload offload;
    Drop reason;
  };
  const std::vector<Lie> cases = {
      {{1, 0, 0, 99, 0}, Drop::bad_checksum_range},
      {{1, 0, 0, 0, 0}, Drop::bad_checksum_range},
      {{1, 0, 0, 0xffff, 0xffff}, Drop::bad_checksum_range},
      {{1, 1, 1, 34, 16}, Drop::bad_gso_type},
      {{0, 0x7f, 100, 0, 0}, Drop::bad_gso_type},
      {{1, 4, 1400, 34, 16}, Drop::bad_gso_type},
      {{1, 3, 1400, 34, 6}, Drop::bad_gso_type},
      {{0xff, 0xff, 0xffff, 0xffff, 0xffff}, Drop::bad_gso_type},
  };
  for (const auto& [offload, reason] : cases) {
    const std::uint64_t before = net_.drops(0, reason);
    const std::uint32_t at = mallory.switch_tail();
    describe(mallory, at, 0, kFrameBytes, offload);
    mallory.publish(at + 1);
    ASSERT_TRUE(eventually([&] { return mallory.switch_tail() == at + 1; }));
    EXPECT_EQ(net_.drops(0, reason), before + 1) << int{offload.flags} << " " << int{offload.gso_type};
  }
  expect_usable(mallory, b);
}

TEST_F(HostileRing, TailsThatCannotBeAreNotBelieved) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  const std::uint32_t frames = mallory.geometry.ring_frames;
  for (const std::uint32_t tail : {1U, frames + 1, 0x8000'0000U, 0xffff'ffffU}) {  // ahead of what was ever there
    mallory.tail().store(tail);
    const std::uint64_t before = net_.drops(0, Drop::dest_full);
    const std::uint32_t head = mallory.switch_head();
    ASSERT_TRUE(send(b, plain(kA, kB, tail)));
    ASSERT_TRUE(
        eventually([&] { return mallory.switch_head() == head + 1 || net_.drops(0, Drop::dest_full) > before; }));
  }
  const std::uint32_t head = mallory.switch_head();
  ASSERT_EQ(head, 4U);
  // A tail that runs ahead makes no room: the ring fills up, and what lies in it stays as it was.
  mallory.tail().store(0x4000'0000);
  for (std::uint64_t i = head; i < frames + 50; ++i) ASSERT_TRUE(send(b, plain(kA, kB, i)));
  ASSERT_TRUE(eventually([&] { return net_.drops(0, Drop::dest_full) == 50; })) << net_.drops(0, Drop::dest_full);
  EXPECT_EQ(mallory.switch_head(), frames);
  for (std::uint32_t i = head; i < frames; ++i) {
    const auto expected = plain(kA, kB, i);
    ASSERT_TRUE(std::ranges::equal(mallory.received(i), expected)) << i;
  }
  mallory.tail().store(frames);  // an honest one does
  ASSERT_TRUE(send(b, plain(kA, kB, 7)));
  ASSERT_TRUE(eventually([&] { return mallory.switch_head() == frames + 1; }));
  mallory.tail().store(frames - 100);  // backwards: nothing is taken back
  ASSERT_TRUE(send(b, plain(kA, kB, 8)));
  ASSERT_TRUE(eventually([&] { return mallory.switch_head() == frames + 2; }));
  EXPECT_TRUE(std::ranges::equal(mallory.received(frames + 1), plain(kA, kB, 8)));
}

/// Whoever is woken holds an end of what wakes it; it must not be able to stop the worker with that.
TEST_F(HostileRing, DescriptorsInItsHandsStallNobody) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  tenant::Port c(net_.socket(2));
  for (const Fd& fd : mallory.fds) ::fcntl(fd.get(), F_SETFL, 0);  // blocking, as far as that is shared
  ::fcntl(mallory.control.get(), F_SETFL, 0);
  const std::uint64_t most = 0xffff'ffff'ffff'fffe;
  const Fd& wake = mallory.fds[3];
  EXPECT_EQ(::write(wake.get(), &most, sizeof(most)), 8);
  for (int i = 0; i < 2000; ++i) {  // never drained, asked for again and again
    mallory.need_wake().store(static_cast<std::uint32_t>(i + 1));
    ASSERT_TRUE(send(b, plain(kA, kB, 1)));
    mallory.tail().store(mallory.switch_head());
  }
  static_cast<void>(::write(mallory.fds[2].get(), &most, sizeof(most)));  // the doorbell: full for ever
  ASSERT_TRUE(send(b, plain(kC, kB, 2)));
  EXPECT_EQ(receive(c).bytes, plain(kC, kB, 2));
}

/// Random values, the interesting ones most often, over everything a tenant may write.
class Scribbler {
 public:
  Scribbler(RawTenant& mallory, std::uint64_t seed) : mallory_(mallory), random_(seed) {}

  void scribble() {
    const std::size_t frames = mallory_.geometry.ring_frames;
    switch (random_() % 16) {
      case 0:
        mallory_.publish(number());
        break;
      case 1:
        mallory_.tail().store(number());
        break;
      case 2:
        mallory_.need_wake().store(number());
        break;
      case 3:
        mallory_.tail().store(mallory_.switch_head() - static_cast<std::uint32_t>(random_() % 3));
        break;
      case 4: {  // anywhere
        const std::size_t at = random_() % (mallory_.tenant_memory.size() / 8) * 8;
        write(mallory_.tenant_memory.data() + at, random_());
        break;
      }
      case 5:  // a frame's first bytes
        write(mallory_.arena() + random_() % 64 * 8, random_());
        break;
      case 6:
      case 7:
        mallory_.publish(mallory_.switch_tail() + static_cast<std::uint32_t>(random_() % (2 * frames)));
        break;
      default: {
        vswitch_descriptor& d = mallory_.descriptor(static_cast<std::uint32_t>(random_()));
        write(reinterpret_cast<std::byte*>(&d), std::uint64_t{number()} << 32 | number());
        write(reinterpret_cast<std::byte*>(&d) + 8, random_() % 2 == 0 ? 0 : random_());
      }
    }
  }

 private:
  static void write(std::byte* at, std::uint64_t value) {
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(at)).store(value, std::memory_order_relaxed);
  }
  std::uint32_t number() {
    const std::uint32_t arena = mallory_.geometry.arena_bytes;
    const std::array<std::uint32_t, 10> edges = {
        0, 13, 14, 64, 1514, arena - 14, arena, VSWITCH_RING_MAX_FRAME, 0x8000'0000, 0xffff'ffff};
    const auto random = static_cast<std::uint32_t>(random_());
    switch (random % 4) {
      case 0:
        return edges[random_() % edges.size()] + static_cast<std::uint32_t>(random_() % 3) - 1;
      case 1:
        return static_cast<std::uint32_t>(random_() % arena);
      case 2:
        return static_cast<std::uint32_t>(random_() % 2048);
      default:
        return random;
    }
  }
  RawTenant& mallory_;
  std::mt19937_64 random_;
};

TEST_F(HostileRing, NeighboursNoticeNoScribbling) {
  tenant::Port b(net_.socket(1));
  tenant::Port c(net_.socket(2));
  const NumberedFrames frames;
  std::uint64_t rounds = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    RawTenant mallory(net_.socket(0));
    std::atomic<bool> stop{false};
    std::uint64_t scribbled = 0;
    std::thread scribbling([&] {
      for (Scribbler scribbler(mallory, seed); !stop.load(std::memory_order_relaxed); ++scribbled) scribbler.scribble();
    });
    Flow flow(frames, kSlow ? 20'000 : 150'000, 1514);
    std::thread sender([&] {
      for (std::uint64_t i = 0; !flow.sent(); ++i) {
        if (i % 16 == 0) static_cast<void>(send(b, plain(kA, kB, i)));  // its own rings are filled as well
        if (flow.send_some(b, kC, kB) == 0) std::this_thread::yield();
      }
    });
    EXPECT_EQ(flow.receive(c), 0U) << "seed " << seed;
    sender.join();
    stop.store(true);
    scribbling.join();
    rounds += scribbled;
  }
  EXPECT_GT(rounds, 1000U);
  EXPECT_GT(net_.drops(0, Drop::bad_descriptor) + net_.drops(0, Drop::ring_corrupt), 0U);
  while (!receive(b, 100ms).bytes.empty() || !receive(c, 100ms).bytes.empty()) continue;  // what mallory sent them
  ASSERT_TRUE(eventually([&] { return !net_.attached(0); }));
  tenant::Port honest(net_.socket(0));
  ASSERT_TRUE(send(honest, plain(kB, kA, 9)));
  EXPECT_EQ(receive(b).bytes, plain(kB, kA, 9)) << "who comes after it finds the port as new";
}

/// Only the memory it is told to release can be reused: a reader that holds on to everything costs itself.
TEST_F(HostileRing, FloodOfGarbageDoesNotStopNeighbours) {
  RawTenant mallory(net_.socket(0));
  tenant::Port b(net_.socket(1));
  tenant::Port c(net_.socket(2));
  for (std::uint32_t i = 0; i < mallory.geometry.ring_frames; ++i) mallory.descriptor(i) = {0xffff'ffff, 14, {}};
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    while (!stop.load()) mallory.publish(mallory.switch_tail() + mallory.geometry.ring_frames);
  });
  const NumberedFrames frames;
  Flow flow(frames, kSlow ? 20'000 : 100'000, 1514);
  std::thread sender([&] { EXPECT_TRUE(flow.send(b, kC, kB)); });
  EXPECT_EQ(flow.receive(c), 0U);
  sender.join();
  stop.store(true);
  flood.join();
  EXPECT_GT(net_.drops(0, Drop::bad_descriptor), 1000U);
}

}  // namespace
}  // namespace vswitch::test
