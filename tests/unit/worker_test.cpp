#include "vswitch/core/worker.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/switch_fixture.h"
#include "vswitch/core/datapath.h"

namespace vswitch {
namespace {

constexpr PortId kA = 1;
constexpr PortId kB = 2;
constexpr PortId kC = 3;
const Mac kMacA = mac(0x0a);
const Mac kMacB = mac(0x0b);

std::uint64_t drops(LoopPort& port, Drop reason) {
  return port.counters(0).drops[static_cast<std::size_t>(reason)].read();
}

/// A worker stepped by hand.
class WorkerTest : public ::testing::Test {
 protected:
  void use(const std::vector<Tenant>& tenants, Idle idle = Idle::adaptive) {
    sut_ = std::make_unique<SwitchUnderTest>(tenants);
    published_.replace(&sut_->table());
    worker_ = std::make_unique<Worker>(0, -1, idle, quiescence_, published_);
    for (PortId id = 0; id < sut_->size(); ++id) worker_->watch(id, sut_->queue(id));
  }
  std::size_t step() { return worker_->step(now_ += kMicrosecond); }
  void send(PortId from, const std::vector<std::byte>& frame, std::uint16_t vlan = 0, const Offload& offload = {}) {
    ASSERT_TRUE(sut_->queue(from).inject(frame, vlan, offload));
  }
  LoopQueue& queue(PortId id) { return sut_->queue(id); }
  LoopPort& port(PortId id) { return sut_->port(id); }

  Quiescence quiescence_{1};
  Published<const Table> published_;
  std::unique_ptr<SwitchUnderTest> sut_;
  std::unique_ptr<Worker> worker_;
  Nanoseconds now_ = 1;
};

TEST_F(WorkerTest, DeliversBytesInOrderAndGivesThemBack) {
  use({{}, {}});
  for (std::size_t i = 0; i < 200; ++i) send(kA, ethernet(kMacB, kMacA, 60 + i));
  std::size_t received = 0;
  while (const std::size_t n = step()) received += n;
  EXPECT_EQ(received, 200u);
  ASSERT_EQ(queue(kB).sent_count(), 200u);
  for (std::size_t i = 0; i < 200; ++i) {
    const auto expected = ethernet(kMacB, kMacA, 60 + i);
    const LoopFrame got = queue(kB).sent(i);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), got.bytes.begin(), got.bytes.end())) << i;
  }
  EXPECT_EQ(queue(kA).held(), 0u);
  EXPECT_EQ(queue(kA).released(), 200u);
  EXPECT_EQ(port(kA).counters(0).rx_frames.read(), 200u);
  EXPECT_EQ(port(kB).counters(0).tx_frames.read(), 200u);
  EXPECT_EQ(port(kA).counters(0).rx_bytes.read(), port(kB).counters(0).tx_bytes.read());
}

TEST_F(WorkerTest, BroadcastReachesEveryOtherPortAndTheWire) {
  use({{}, {}, {}});
  send(kA, ethernet(kBroadcast, kMacA));
  step();
  EXPECT_EQ(queue(kA).sent_count(), 0u);
  EXPECT_EQ(queue(kB).sent_count(), 1u);
  EXPECT_EQ(queue(kC).sent_count(), 1u);
  EXPECT_EQ(queue(kWire).sent_count(), 1u);
}

TEST_F(WorkerTest, BroadcastToMorePortsThanEgressHasSlots) {
  use(std::vector<Tenant>(200));
  for (int i = 0; i < 64; ++i) send(kA, ethernet(kBroadcast, kMacA));
  step();
  for (PortId id = kB; id <= 200; ++id) EXPECT_EQ(queue(id).sent_count(), 64u) << id;
}

TEST_F(WorkerTest, FullDestinationCostsOnlyItself) {
  use({{}, {}, {}});
  queue(kB).limit(10);
  for (int i = 0; i < 32; ++i) send(kA, ethernet(kMacB, kMacA));
  for (int i = 0; i < 16; ++i) send(kA, ethernet(mac(0x0c), kMacA));
  step();
  EXPECT_EQ(queue(kB).sent_count(), 10u);
  EXPECT_EQ(queue(kC).sent_count(), 16u);
  EXPECT_EQ(drops(port(kB), Drop::dest_full), 22u);
  EXPECT_EQ(queue(kA).released(), 48u);
}

TEST_F(WorkerTest, RefusedFramesAreCountedWhereTheyCameFrom) {
  use({{}, {}});
  send(kA, ethernet(kMacB, mac(0x66)));
  send(kWire, ethernet(mac(0x77), kPeer));
  step();
  EXPECT_EQ(drops(port(kA), Drop::spoofed_mac), 1u);
  EXPECT_EQ(drops(port(kWire), Drop::unknown_destination), 1u);
}

TEST_F(WorkerTest, MtuIsEnforcedAtTheDestination) {
  use({{}, {}});
  send(kA, ethernet(kMacB, kMacA, 1518));
  send(kA, ethernet(kMacB, kMacA, 1519));
  step();
  EXPECT_EQ(queue(kB).sent_count(), 1u);
  EXPECT_EQ(drops(port(kB), Drop::too_long), 1u);
}

TEST_F(WorkerTest, QueueThatOnlyWastesTimeIsPassedOver) {
  use({{}, {}, {}});
  std::size_t flood_steps = 0;
  for (int turn = 0; turn < 400; ++turn) {
    while (queue(kA).inject(ethernet(kMacB, mac(0x66)))) {
    }
    send(kB, ethernet(mac(0x0c), kMacB));
    const std::uint64_t before = drops(port(kA), Drop::spoofed_mac);
    step();
    flood_steps += drops(port(kA), Drop::spoofed_mac) != before ? 1 : 0;
    queue(kC).drop_sent(queue(kC).sent_count());
  }
  EXPECT_LT(flood_steps, 20u);
  EXPECT_EQ(port(kC).counters(0).tx_frames.read(), 400u);
}

TEST_F(WorkerTest, PenaltyEndsWithTheFirstGoodBurst) {
  use({{}, {}});
  for (int i = 0; i < 64; ++i) send(kA, ethernet(kMacB, mac(0x66)));
  step();
  for (int i = 0; i < 128; ++i) send(kA, ethernet(kMacB, kMacA));
  EXPECT_EQ(step(), 0u);
  EXPECT_EQ(step(), 64u);
  EXPECT_EQ(step(), 64u);
}

/// TCPv4 with 3,000 bytes of payload, checksum partial.
std::vector<std::byte> tcp_frame() {
  auto frame = ethernet(kMacB, kMacA, 14 + 20 + 20 + 3000);
  const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
    for (const int byte : bytes) frame[at++] = static_cast<std::byte>(byte);
  };
  put(12, {0x08, 0x00});
  put(14, {0x45, 0, (40 + 3000) >> 8, (40 + 3000) & 0xff, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2});
  put(34, {0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0});
  return frame;
}

Offload tso4(std::uint16_t gso_size) {
  return {.flags = Offload::kNeedsChecksum,
          .gso_type = Offload::kGsoTcp4,
          .gso_size = gso_size,
          .csum_start = 34,
          .csum_offset = 16};
}

TEST_F(WorkerTest, GsoFrameIsCutForAPortThatTakesNone) {
  use({{}, {}});
  queue(kB).set_offloads({});
  send(kA, tcp_frame(), 0, tso4(1400));
  step();
  ASSERT_EQ(queue(kB).sent_count(), 3u);
  EXPECT_EQ(queue(kB).sent(0).bytes.size(), 54u + 1400u);
  EXPECT_EQ(queue(kB).sent(2).bytes.size(), 54u + 200u);
  EXPECT_TRUE(queue(kB).sent(0).offload.is_plain());
  EXPECT_EQ(port(kB).counters(0).sw_gso.read(), 1u);
}

TEST_F(WorkerTest, GsoFramePassesWholeToAPortThatTakesIt) {
  use({{}, {}});
  queue(kB).set_offloads(OffloadCaps::all());
  send(kA, tcp_frame(), 0, tso4(1400));
  step();
  ASSERT_EQ(queue(kB).sent_count(), 1u);
  EXPECT_EQ(queue(kB).sent(0).bytes.size(), 54u + 3000u);
  EXPECT_EQ(queue(kB).sent(0).offload, tso4(1400));
}

TEST_F(WorkerTest, GsoSegmentsMustFitTheMtu) {
  use({{}, {}});
  queue(kB).set_offloads(OffloadCaps::all());
  send(kA, tcp_frame(), 0, tso4(1500));
  step();
  EXPECT_EQ(queue(kB).sent_count(), 0u);
  EXPECT_EQ(drops(port(kB), Drop::too_long), 1u);
}

/// Threads and tables: traffic runs while tables are replaced; nothing of an untouched port is lost or reordered.
TEST(Datapath, TablesAreReplacedUnderTraffic) {
  Quiescence quiescence(1);
  SwitchUnderTest sut({{}, {}, {}});
  Datapath datapath({.cpus = {}, .idle = Idle::adaptive}, quiescence);
  for (PortId id = 0; id < sut.size(); ++id) datapath.add_port(id, sut.port(id));
  datapath.start();
  const auto rebuild = [&] {
    TableBuilder builder(1);
    builder.add_uplink(kWire, "lan", sut.port(kWire), 1500);
    for (PortId id = 1; id < sut.size(); ++id) {
      PortSpec spec;
      spec.tenant = "t";
      spec.name = std::to_string(id);
      spec.mtu = 1500;
      spec.mac = mac(static_cast<std::uint8_t>(0x09 + id));
      builder.add_tenant(id, spec, kWire, sut.port(id));
    }
    return builder.build();
  };
  datapath.publish(rebuild());
  std::atomic<bool> stop{false};
  std::thread control([&] {
    while (!stop.load()) datapath.publish(rebuild());
  });
  constexpr std::uint32_t kFrames = 200'000;
  std::uint32_t sent = 0;
  std::uint32_t got = 0;
  auto frame = ethernet(kMacB, kMacA);
  while (got < kFrames) {
    for (int i = 0; i < 64 && sent < kFrames && sent - got < 512; ++i) {
      std::memcpy(frame.data() + 14, &sent, sizeof(sent));
      if (!sut.queue(kA).inject(frame)) break;
      ++sent;
    }
    for (std::size_t n = sut.queue(kB).sent_count(); n > 0; --n) {
      std::uint32_t number;
      std::memcpy(&number, sut.queue(kB).sent(0).bytes.data() + 14, sizeof(number));
      ASSERT_EQ(number, got);
      ++got;
      sut.queue(kB).drop_sent(1);
    }
  }
  stop = true;
  control.join();
  datapath.stop();
}

/// An idle worker sleeps, and each frame wakes it.
TEST(Datapath, SleepingWorkerIsWokenByEveryFrame) {
  Quiescence quiescence(1);
  SwitchUnderTest sut({{}, {}});
  Datapath datapath({.cpus = {}, .idle = Idle::adaptive}, quiescence);
  for (PortId id = 0; id < sut.size(); ++id) datapath.add_port(id, sut.port(id));
  datapath.start();
  datapath.publish(sut.take_table());
  for (std::size_t i = 1; i <= 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_TRUE(sut.queue(kA).inject(ethernet(kMacB, kMacA)));
    const Nanoseconds deadline = monotonic_now() + 5 * kSecond;
    while (sut.queue(kB).sent_count() < i && monotonic_now() < deadline) std::this_thread::yield();
    ASSERT_EQ(sut.queue(kB).sent_count(), i);
  }
  EXPECT_GT(datapath.counters(0).sleeps.read(), 10u);
  datapath.stop();
}

}  // namespace
}  // namespace vswitch
