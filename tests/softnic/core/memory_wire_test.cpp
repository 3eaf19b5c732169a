#include "tests/softnic/core/memory_wire.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

namespace softnic {
namespace {

using Frame = std::vector<std::uint8_t>;

Frame numbered(std::uint64_t number, std::size_t bytes) {
  Frame frame(bytes, static_cast<std::uint8_t>(number));
  std::memcpy(frame.data(), &number, sizeof number);
  return frame;
}

std::uint64_t number_of(Bytes frame) {
  std::uint64_t number = 0;
  std::memcpy(&number, frame.data(), sizeof number);
  return number;
}

bool equal(Bytes a, const Frame& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

TEST(FrameRing, HandsFramesOverInOrderAndWhole) {
  FrameRing ring(4, 128);
  EXPECT_TRUE(ring.front().empty());
  for (std::uint64_t turn = 0; turn < 10; ++turn) {  // around the ring more than once
    EXPECT_EQ(ring.put(numbered(turn, 64)), Sent::yes);
    EXPECT_EQ(ring.put(numbered(turn + 100, 128)), Sent::yes);
    EXPECT_TRUE(equal(ring.front(), numbered(turn, 64)));
    EXPECT_TRUE(equal(ring.front(), numbered(turn, 64))) << "it stays until it is dropped";
    ring.drop();
    EXPECT_TRUE(equal(ring.front(), numbered(turn + 100, 128)));
    ring.drop();
    EXPECT_TRUE(ring.front().empty());
  }
}

TEST(FrameRing, SaysThatItIsFull) {
  FrameRing ring(4, 64);
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(ring.put(numbered(i, 64)), Sent::yes);
  EXPECT_EQ(ring.put(numbered(4, 64)), Sent::full);
  ring.drop();
  EXPECT_EQ(ring.put(numbered(4, 64)), Sent::yes);
  for (std::uint64_t i = 1; i < 5; ++i) {
    EXPECT_EQ(number_of(ring.front()), i);
    ring.drop();
  }
}

TEST(FrameRing, RefusesWhatDoesNotFit) {
  EXPECT_THROW(FrameRing(3, 64), std::invalid_argument);
  EXPECT_THROW(FrameRing(0, 64), std::invalid_argument);
  FrameRing ring(4, 64);
  EXPECT_EQ(ring.put(numbered(0, 65)), Sent::down);
  EXPECT_EQ(ring.put({}), Sent::down);
  EXPECT_TRUE(ring.front().empty());
}

TEST(FrameRing, LosesNothingBetweenTwoThreads) {
  constexpr std::uint64_t kFrames = 20'000;
  FrameRing ring(64, 128);
  std::thread sender([&ring] {
    for (std::uint64_t i = 0; i < kFrames; ++i) {
      const Frame frame = numbered(i, 64 + i % 65);
      while (ring.put(frame) != Sent::yes) std::this_thread::yield();
    }
  });
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < kFrames; ++i) {
    Bytes frame;
    while ((frame = ring.front()).empty()) std::this_thread::yield();
    wrong += equal(frame, numbered(i, 64 + i % 65)) ? 0 : 1;
    ring.drop();
  }
  sender.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(MemoryWire, LeadsBothWays) {
  MemoryWire wire(1500);
  const std::unique_ptr<FrameEnd> nic = wire.nic_end();
  EXPECT_TRUE(nic->carrier());
  EXPECT_EQ(nic->lost(), 0U);
  EXPECT_TRUE(nic->receive().empty());

  EXPECT_EQ(wire.to_nic().put(numbered(1, 1522)), Sent::yes);
  EXPECT_EQ(wire.to_nic().put(numbered(2, 60)), Sent::yes);
  EXPECT_TRUE(equal(nic->receive(), numbered(1, 1522)));
  EXPECT_TRUE(equal(nic->receive(), numbered(2, 60)));
  EXPECT_TRUE(nic->receive().empty());
  EXPECT_TRUE(nic->receive().empty()) << "nothing is dropped that was not shown";
  EXPECT_EQ(wire.to_nic().put(numbered(3, 60)), Sent::yes);
  EXPECT_EQ(number_of(nic->receive()), 3U);

  EXPECT_EQ(nic->send(numbered(4, 64)), Sent::yes);
  EXPECT_EQ(nic->send(numbered(5, 9000)), Sent::down) << "longer than the wire's MTU";
  EXPECT_TRUE(equal(wire.from_nic().front(), numbered(4, 64)));
  wire.from_nic().drop();
  EXPECT_TRUE(wire.from_nic().front().empty());
}

TEST(MemoryWire, TakesAsManyFramesAsItHasSlots) {
  MemoryWire wire(1500);
  const std::unique_ptr<FrameEnd> nic = wire.nic_end();
  for (std::size_t i = 0; i < MemoryWire::kSlots; ++i) ASSERT_EQ(nic->send(numbered(i, 64)), Sent::yes);
  EXPECT_EQ(nic->send(numbered(0, 64)), Sent::full);
}

}  // namespace
}  // namespace softnic
