// The contract of vswitch/core/port.h, asked of every kind of port with somebody real at its other end.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <numeric>
#include <thread>

#include "tests/ports/kinds.h"
#include "tests/ports/rig.h"
#include "tests/ports/test_frames.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/net/gso.h"

namespace vswitch::test {
namespace {

constexpr std::size_t kLongest = 1514;  // MTU 1500
constexpr std::uint16_t kTag = 0x6064;  // priority 3, VLAN 100

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

std::uint64_t drops(const PortCounters& counters, Drop reason) {
  return counters.drops[static_cast<std::size_t>(reason)].read();
}
std::uint64_t all_drops(const PortCounters& counters) {
  return std::accumulate(counters.drops.begin(), counters.drops.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Counter& counter) { return sum + counter.read(); });
}

/// Frames of every length that matters, numbered from `first`.
std::vector<TestFrame> mixed(std::size_t count, std::size_t longest, std::uint16_t first = 0) {
  const std::size_t lengths[] = {60, 64, 65, 127, 128, 129, 130, 256, 1000, longest - 1, longest};
  std::vector<TestFrame> frames;
  for (std::size_t i = 0; i < count; ++i) {
    frames.push_back(numbered(static_cast<std::uint16_t>(first + i), lengths[i % std::size(lengths)]));
  }
  return frames;
}

/// What comes of a frame where all of it is finished on the way: the segments, each with its checksum.
std::vector<TestFrame> finished(const TestFrame& frame) {
  std::vector<TestFrame> all;
  Segmenter segmenter(frame.bytes, frame.bytes.size(), frame.offload);
  std::vector<std::byte> header(frame.bytes.size());
  const auto add = [&](std::vector<std::byte> bytes) {
    OwnedFrame unfinished(
        {std::move(bytes), 0, {Offload::kNeedsChecksum, 0, 0, frame.offload.csum_start, frame.offload.csum_offset}});
    Frame whole = unfinished.frame();
    whole.finish = Finish::checksum;
    TestFrame out;
    out.vlan = frame.vlan;
    out.bytes.resize(whole.length);
    copy_out(out.bytes.data(), whole, false);
    all.push_back(std::move(out));
  };
  if (!frame.offload.is_gso()) add(frame.bytes);
  for (auto part = segmenter.next(header); part.length != 0; part = segmenter.next(header)) {
    std::vector<std::byte> bytes(header.begin(), header.begin() + part.header_bytes);
    const auto rest = frame.bytes.begin() + part.offset;
    bytes.insert(bytes.end(), rest + part.header_bytes, rest + part.length);
    add(std::move(bytes));
  }
  return all;
}

class Contract : public testing::TestWithParam<Kind> {
 protected:
  void open(std::size_t workers = 1) {
    rig_ = std::make_unique<Rig>(GetParam().make(), workers);
    rig_->start();
  }
  Rig& rig() { return *rig_; }
  Harness& far() { return rig_->far(); }
  const PortCounters& counters(std::size_t w = 0) { return rig_->port().counters(w); }
  /// What arrives at the other end of what was sent. @param verdict what the port says of checksums that are right
  std::vector<TestFrame> arriving(const std::vector<TestFrame>& sent, std::uint8_t verdict = 0) {
    if (!far().traits().finishes) return sent;
    std::vector<TestFrame> all;
    for (const TestFrame& frame : sent) {
      if (frame.offload.is_plain()) {
        all.push_back(frame);
        continue;
      }
      for (TestFrame& part : finished(frame)) {
        part.offload.flags = verdict;
        all.push_back(std::move(part));
      }
    }
    return all;
  }
  void send_all(const std::vector<TestFrame>& frames) {
    for (const TestFrame& frame : frames) ASSERT_TRUE(far().send(frame)) << "the far end could not send";
  }

 private:
  std::unique_ptr<Rig> rig_;
};

TEST_P(Contract, LendsFramesInOrderAsTheyWereSent) {
  open();
  const auto sent = mixed(200, kLongest);
  send_all(sent);
  EXPECT_EQ(rig().receive(sent.size()), sent);
  EXPECT_EQ(all_drops(counters()), 0U);
}

TEST_P(Contract, LendsNoMoreThanThereIsRoomFor) {
  open();
  const auto sent = mixed(10, 200);
  send_all(sent);
  Burst burst;
  std::vector<TestFrame> got;
  for (int tries = 0; got.size() < sent.size() && tries < 100'000; ++tries) {
    burst.clear(3);
    static_cast<void>(rig().queue().receive(burst));
    EXPECT_LE(burst.size(), 3U);
    for (const Frame& frame : burst) got.push_back(Rig::copy_of(frame));
    if (!burst.empty()) rig().queue().release(burst);
  }
  EXPECT_EQ(got, sent);
}

TEST_P(Contract, LentFramesStayUntilTheyAreReleased) {
  open();
  const auto first = mixed(20, 500);
  const auto later = mixed(200, 1000, 100);
  send_all(first);
  if (far().traits().behind_nic) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Burst burst;
  for (int tries = 0; burst.size() < first.size() && tries < 100'000; ++tries) {
    if (burst.empty()) burst.clear();
    if (rig().queue().receive(burst) != 0 && burst.size() < first.size()) {
      FAIL() << "frames that lay ready came in two bursts";
    }
  }
  std::vector<TestFrame> before;
  for (const Frame& frame : burst) before.push_back(Rig::copy_of(frame));
  send_all(later);
  std::vector<TestFrame> after;
  for (const Frame& frame : burst) after.push_back(Rig::copy_of(frame));
  EXPECT_EQ(before, first);
  EXPECT_EQ(after, first) << "lent memory was written to";
  rig().queue().release(burst);
  EXPECT_EQ(rig().receive(later.size()), later);
}

// By what is in the burst the worker tells a tenant that sends from one whose frames are all refused, and passes the
// latter over for a while.
TEST_P(Contract, GivingFramesBackLeavesTheBurstAsItIs) {
  open();
  const auto sent = mixed(20, 500);
  send_all(sent);
  Burst burst;
  std::size_t received = 0;
  for (int tries = 0; received == 0 && tries < 100'000; ++tries) received = rig().queue().receive(burst);
  EXPECT_EQ(burst.size(), received);
  rig().queue().release(burst);
  EXPECT_EQ(burst.size(), received);
}

TEST_P(Contract, TransmitsHeaderCopyAndRestInOrder) {
  open();
  const auto frames = mixed(200, kLongest);
  EXPECT_EQ(rig().transmit(frames), frames.size());
  EXPECT_EQ(rig().read(frames.size()), frames);
}

TEST_P(Contract, RefusesWithoutBlockingWhenFullAndRecovers) {
  open();
  const auto frames = mixed(3000, 1000);
  far().set_narrow(true);
  const Nanoseconds start = monotonic_now();
  const std::size_t taken = rig().transmit(frames);
  EXPECT_LT(monotonic_now() - start, 2 * kSecond);
  if (taken < frames.size()) {
    EXPECT_EQ(rig().queue().refusal(), Drop::dest_full);
    EXPECT_TRUE(!far().traits().never_full || far().traits().behind_nic);
  } else {
    EXPECT_TRUE(far().traits().never_full);
  }
  far().set_narrow(false);
  const auto arrived = rig().read(taken);
  // What was taken and what arrived are the same frames, but for those a wire's own queue held when it was made wide.
  ASSERT_LE(arrived.size(), taken);
  for (std::size_t i = 0; i < arrived.size(); ++i) EXPECT_EQ(arrived[i], frames[i]);

  const auto again = mixed(50, 1000, 5000);
  EXPECT_EQ(rig().transmit(again), again.size());
  EXPECT_EQ(rig().read(again.size()), again);
}

TEST_P(Contract, VlanTagArrives) {
  open();
  TestFrame sent = numbered(1, 100);
  sent.vlan = kTag;
  if (!far().traits().vlan_beside) sent = with_inline_tag(sent);
  send_all({sent});
  const auto got = rig().receive(1);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0], sent);
}

TEST_P(Contract, VlanTagBesideTheFrameIsTransmitted) {
  open();
  TestFrame sent = numbered(1, 100);
  sent.vlan = kTag;
  EXPECT_EQ(rig().transmit({sent}), 1U);
  const auto got = rig().read(1);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(canonical(got[0]), canonical(sent));
}

TEST_P(Contract, UnfinishedChecksumArrives) {
  open();
  const std::vector<TestFrame> sent = {unfinished_udp(100, 0), unfinished_tcp(1000, 0)};
  const auto expected = arriving(sent, Offload::kDataValid);
  send_all(sent);
  EXPECT_EQ(rig().receive(expected.size()), expected);
}

TEST_P(Contract, GsoFramesArriveWhole) {
  open();
  const std::vector<TestFrame> sent = {unfinished_tcp(60'000, 1448), unfinished_tcp(3000, 1000), numbered(7, 64),
                                       unfinished_tcp(64'000, 1448)};
  const auto expected = arriving(sent, Offload::kDataValid);
  send_all(sent);
  EXPECT_EQ(rig().receive(expected.size()), expected);
}

TEST_P(Contract, GsoFrameKeepsItsTag) {
  open();
  TestFrame sent = unfinished_tcp(30'000, 1400);
  sent.vlan = kTag;
  if (!far().traits().vlan_beside) sent = with_inline_tag(sent);
  const auto expected = arriving({sent}, Offload::kDataValid);
  send_all({sent});
  EXPECT_EQ(rig().receive(expected.size()), expected);
}

TEST_P(Contract, OfferedOffloadsAreTransmitted) {
  open();
  const OffloadCaps caps = rig().queue().offloads();
  std::vector<TestFrame> frames;
  if (caps.checksum) frames.push_back(unfinished_udp(100, 0));
  if (caps.tso4) frames.push_back(unfinished_tcp(60'000, 1448));
  if (caps.uso) frames.push_back(unfinished_udp(6000, 1400));
  ASSERT_FALSE(frames.empty()) << "every kind of port offers offloads";
  if (caps.tso4) {
    frames.push_back(unfinished_tcp(20'000, 1400));
    frames.back().vlan = kTag;
  }
  EXPECT_EQ(rig().transmit(frames), frames.size());
  const auto expected = arriving(frames);
  const auto got = rig().read(expected.size());
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(canonical(got[i]), canonical(expected[i])) << "frame " << i;
}

TEST_P(Contract, RuntsAndOverlongFramesAreRefused) {
  open();
  TestFrame runt = numbered(1, 64);
  runt.bytes.resize(13);
  const TestFrame overlong = numbered(2, kMaxFrameBytes + 1);
  std::uint64_t accepted = 0;
  for (const TestFrame& frame : {runt, overlong}) accepted += far().send(frame) ? 1 : 0;
  EXPECT_GE(accepted, far().traits().sends_any_length ? 1U : 0U);
  send_all({numbered(3, 64)});
  const auto got = rig().receive(2);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0], numbered(3, 64));
  EXPECT_EQ(all_drops(counters()), accepted) << "what is refused is counted";
}

TEST_P(Contract, ContradictoryOffloadsAreRefused) {
  open();
  TestFrame outside = unfinished_udp(100, 0);
  outside.offload.csum_start = 5000;
  TestFrame wrong_type = unfinished_udp(6000, 1400);
  wrong_type.offload.gso_type = Offload::kGsoTcp6;
  TestFrame too_many = unfinished_tcp(60'000, 1);
  std::uint64_t accepted = 0;
  std::map<Drop, std::uint64_t> refused;
  std::vector<std::pair<TestFrame, Drop>> contradictory = {{outside, Drop::bad_checksum_range},
                                                           {wrong_type, Drop::bad_gso_type}};
  if (!far().traits().finishes) contradictory.emplace_back(too_many, Drop::bad_gso_segments);  // else it is cut
  for (const auto& [frame, reason] : contradictory) {
    refused[reason] = far().send(frame) ? 1 : 0;
    accepted += refused[reason];
  }
  EXPECT_GE(accepted, far().traits().sends_bad_offloads ? 3U : 0U);
  if (far().traits().finishes) accepted = 0;  // the way there does not carry them
  send_all({numbered(3, 64)});
  const auto got = rig().receive(2);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0], numbered(3, 64));
  for (const auto& [reason, count] : refused) {
    EXPECT_EQ(drops(counters(), reason), accepted == 0 ? 0 : count) << text_of(reason).name;
  }
  EXPECT_EQ(all_drops(counters()), accepted);
}

TEST_P(Contract, ArmSaysNoWhileFramesAreWaiting) {
  open();
  send_all({numbered(1, 64)});
  const Nanoseconds end = monotonic_now() + kSecond;
  bool refused = false;
  while (!refused && monotonic_now() < end) refused = !rig().queue().arm();
  // A kind that wakes by the kernel's own edge may say yes; then the edge must be there.
  if (!refused) {
    Waiter waiter(rig().queue());
    EXPECT_TRUE(waiter.wait(1000));
  }
  EXPECT_EQ(rig().receive(1).size(), 1U);
}

TEST_P(Contract, ArmedQueueIsQuietUntilAFrameComes) {
  open();
  Waiter waiter(rig().queue());
  EXPECT_TRUE(rig().receive(1, 0, 50).empty());
  ASSERT_TRUE(rig().queue().arm());
  waiter.wait(0);  // what happened before arming may have left an edge
  EXPECT_FALSE(waiter.wait(100)) << "woken by nothing";
  send_all({numbered(1, 64)});
  EXPECT_TRUE(waiter.wait(2000)) << "a frame came and nobody was woken";
  EXPECT_EQ(rig().receive(1).size(), 1U);
}

TEST_P(Contract, NoWakeUpIsEverLost) {
  open();
  constexpr std::size_t kCount = 3000;
  Waiter waiter(rig().queue());
  std::atomic<std::size_t> got{0};
  std::thread sender([this, &got] {
    for (std::size_t i = 0; i < kCount; ++i) {
      // Now and then wait for the receiver to be about to sleep: the moment at which wake-ups get lost.
      for (int turns = 0; i % 3 == 0 && got.load() < i && turns < 10'000; ++turns) std::this_thread::yield();
      while (!far().send(numbered(static_cast<std::uint16_t>(i), 64))) std::this_thread::yield();
    }
  });
  std::size_t sleeps = 0;
  Burst burst;
  std::size_t next = 0;
  bool lost = false;
  while (next < kCount && !lost) {
    burst.clear();
    if (rig().queue().receive(burst) != 0) {
      for (const Frame& frame : burst) EXPECT_EQ(number_of(Rig::copy_of(frame)), next++ & 0xffff);
      rig().queue().release(burst);
      got.store(next);
    } else if (rig().queue().arm()) {
      ++sleeps;
      lost = !waiter.wait(5000);
    }
  }
  EXPECT_FALSE(lost) << "asleep with " << kCount - next << " frames outstanding";
  EXPECT_GT(sleeps, 0U);
  sender.join();
}

TEST_P(Contract, StopLeavesNothingAndStartWorksAgain) {
  open();
  far().close_far_end(rig().reactor());
  rig().stop();
  const std::size_t descriptors = open_descriptors();
  const std::size_t watches = rig().reactor().watches();
  for (int round = 0; round < 3; ++round) {
    rig().start();
    const auto frames = mixed(20, 1000);
    send_all(frames);
    EXPECT_EQ(rig().receive(frames.size()), frames);
    EXPECT_EQ(rig().transmit(frames), frames.size());
    EXPECT_EQ(rig().read(frames.size()), frames);
    far().close_far_end(rig().reactor());
    rig().stop();
    EXPECT_EQ(rig().reactor().watches(), watches);
    EXPECT_EQ(open_descriptors(), descriptors);
  }
}

TEST_P(Contract, SeveralWorkersShareTheFrames) {
  constexpr std::size_t kWorkers = 2;
  constexpr std::size_t kFlows = 32;
  open(kWorkers);
  std::size_t sent = 0;
  for (std::size_t round = 0; round < 4; ++round) {
    for (std::size_t flow = 0; flow < kFlows; ++flow) {
      TestFrame frame = unfinished_tcp(100, 0, static_cast<std::uint16_t>(4000 + flow));
      frame.bytes.back() = static_cast<std::byte>(round);
      send_all({frame});
      ++sent;
    }
  }
  std::size_t got = 0;
  std::map<std::byte, std::size_t> worker_of;  // by flow
  std::map<std::byte, unsigned> round_of;
  for (std::size_t w = 0; w < kWorkers; ++w) {
    const auto frames = rig().receive(sent, w);
    EXPECT_TRUE(!frames.empty() || far().traits().one_worker) << "worker " << w << " got nothing";
    got += frames.size();
    for (const TestFrame& frame : frames) {
      const std::byte flow = frame.bytes[35];
      EXPECT_EQ(worker_of.emplace(flow, w).first->second, w) << "a flow was split between workers";
      EXPECT_EQ(std::to_integer<unsigned>(frame.bytes.back()), round_of[flow]++) << "a flow was reordered";
    }
  }
  EXPECT_EQ(got, sent);
  for (std::size_t w = 0; w < kWorkers; ++w) EXPECT_EQ(rig().transmit({numbered(9, 64)}, w), 1U);
  EXPECT_EQ(rig().read(kWorkers).size(), kWorkers);
}

TEST_P(Contract, StatusFollowsTheFarEnd) {
  open();
  EXPECT_TRUE(rig().reactor().run_until([this] { return rig().port().status().link_up; }));
  EXPECT_EQ(rig().port().status().mtu, 1500U);
  EXPECT_FALSE(rig().port().status().detail.empty());
  far().close_far_end(rig().reactor());
  EXPECT_TRUE(rig().reactor().run_until([this] { return !rig().port().status().link_up; }));
  // Whatever becomes of frames now, nothing blocks and nothing is lent.
  const Nanoseconds start = monotonic_now();
  static_cast<void>(rig().transmit(mixed(100, 1000)));
  EXPECT_LT(monotonic_now() - start, kSecond);
  rig().stop();
  EXPECT_FALSE(rig().port().status().link_up);
}

INSTANTIATE_TEST_SUITE_P(Port, Contract, testing::ValuesIn(kinds()),
                         [](const testing::TestParamInfo<Kind>& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace vswitch::test
