#include "vswitch/daemon/reconcile.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/unit/loop_switch.h"
#include "vswitch/daemon/lock_file.h"

namespace vswitch {
namespace {

using namespace test;

class ReconcileTest : public ::testing::Test {
 protected:
  void start(const SwitchSpec& spec) {
    switch_ = std::make_unique<Switch>(spec.workers, reactor_, world_.factory());
    switch_->apply(spec);
  }
  /// Expects the change to fail with `text` in the message and nothing to have happened.
  void expect_refusal(const SwitchSpec& spec, const std::string& text) {
    const auto ids = port_ids();
    const auto held = world_.world.held;
    const Steering steering = lan_steering();
    try {
      switch_->apply(spec);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
    EXPECT_EQ(port_ids(), ids);
    EXPECT_EQ(world_.world.held, held);
    EXPECT_EQ(lan_steering(), steering);
  }
  [[nodiscard]] Steering lan_steering() const {
    return static_cast<const LoopPort&>(*switch_->state().uplinks.at("lan").port).steering();
  }
  [[nodiscard]] std::map<std::string, PortId> port_ids() const {
    std::map<std::string, PortId> ids;
    for (const auto& [name, running] : switch_->state().ports) ids[name] = running.id;
    return ids;
  }
  /// Whether a frame gets from one port to another through the worker thread.
  [[nodiscard]] bool reaches(const std::string& from, const std::string& to) {
    LoopQueue& target = far_side(*switch_, to);
    target.drop_sent(target.sent_count());
    const auto& state = switch_->state();
    const auto bytes = frame(state.ports.at(to).spec.mac, state.ports.at(from).spec.mac, ++number_);
    if (!far_side(*switch_, from).inject(bytes) || !wait_for_frame(target)) return false;
    return number_in(target.sent(0)) == number_;
  }

  UringReactor reactor_;
  LoopWorld world_;
  std::unique_ptr<Switch> switch_;
  std::uint64_t number_ = 0;
};

TEST_F(ReconcileTest, FirstConfigurationRuns) {
  PortSpec tagged = port("c", 3);
  tagged.vlan = 100;
  tagged.macs = {mac(4)};
  start(on_lan({port("a", 1), port("b", 2), tagged}));
  EXPECT_TRUE(reaches("t/a", "t/b"));
  EXPECT_TRUE(reaches("t/b", "t/a"));
  const std::vector<Steering::Rule> rules{{0, mac(1)}, {0, mac(2)}, {100, mac(3)}, {100, mac(4)}};
  EXPECT_EQ(lan_steering().unicast, rules);
  EXPECT_FALSE(lan_steering().everything);
}

TEST_F(ReconcileTest, PassthruAndSourceSteering) {
  PortSpec passthru = port("p", 1);
  passthru.mode = Mode::passthru;
  PortSpec source = port("s", 2);
  source.mode = Mode::source;
  source.vlan = 5;
  source.source_macs = {mac(90), mac(80)};
  start(on_lan({passthru, source}));
  EXPECT_TRUE(lan_steering().everything);
  EXPECT_EQ(lan_steering().unicast, (std::vector<Steering::Rule>{{5, mac(2)}}));
  EXPECT_EQ(lan_steering().sources, (std::vector<Mac>{mac(80), mac(90)}));
}

TEST_F(ReconcileTest, EndLeavesNothing) {
  start(on_lan({port("a", 1), port("b", 2)}));
  EXPECT_EQ(world_.world.held.size(), 2U);
  switch_.reset();
  EXPECT_TRUE(world_.world.held.empty());
}

TEST_F(ReconcileTest, AddedAndRemoved) {
  start(on_lan({port("a", 1), port("b", 2)}));
  const PortId id_of_a = port_ids().at("t/a");
  const ApplyReport report = switch_->apply(on_lan({port("a", 1), port("c", 3)}));
  EXPECT_EQ(report.added, std::vector<std::string>{"t/c"});
  EXPECT_EQ(report.removed, std::vector<std::string>{"t/b"});
  EXPECT_EQ(report.untouched, 1U);
  EXPECT_EQ(port_ids().at("t/a"), id_of_a);
  EXPECT_EQ(world_.world.held, (std::set<std::string>{"tap-a", "tap-c"}));
  EXPECT_TRUE(reaches("t/a", "t/c"));
  EXPECT_EQ(world_.world.history, (std::vector<std::string>{"+t/a", "+t/b", "+t/c", "-t/b"}));  // new ones first
}

TEST_F(ReconcileTest, OffloadsChangeWithoutReopening) {
  start(on_lan({port("a", 1), port("b", 2)}));
  PortSpec fewer = port("b", 2);
  fewer.offloads = {.checksum = true};
  fewer.gro = false;
  const ApplyReport report = switch_->apply(on_lan({port("a", 1), fewer}));
  EXPECT_EQ(report.changed, std::vector<std::string>{"t/b"});
  EXPECT_EQ(report.untouched, 1U);
  EXPECT_EQ(far_side(*switch_, "t/b").offloads(), fewer.offloads);
  EXPECT_EQ(far_side(*switch_, "t/a").offloads(), OffloadCaps::all());
  EXPECT_FALSE(switch_->datapath().table().port(port_ids().at("t/b")).gro);
  EXPECT_TRUE(switch_->datapath().table().port(port_ids().at("t/a")).gro);
  EXPECT_EQ(world_.world.history, (std::vector<std::string>{"+t/a", "+t/b", "=t/b"}));
}

TEST_F(ReconcileTest, RefusedOffloadsChangeNothing) {
  start(on_lan({port("a", 1), port("b", 2)}));
  PortSpec a = port("a", 1);
  PortSpec b = port("b", 2);
  a.offloads = b.offloads = {};
  world_.world.unavailable.insert("tap-b");
  expect_refusal(on_lan({a, b}), "tap-b");
  EXPECT_EQ(far_side(*switch_, "t/a").offloads(), OffloadCaps::all()) << "changed first, and back";
  EXPECT_EQ(far_side(*switch_, "t/b").offloads(), OffloadCaps::all());
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, ModeChangesWithoutReopening) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 2)});
  spec.ports[1].mode = Mode::private_;
  const ApplyReport report = switch_->apply(spec);
  EXPECT_EQ(report.changed, std::vector<std::string>{"t/b"});
  EXPECT_EQ(world_.world.history.size(), 2U);
  EXPECT_EQ(switch_->datapath().table().port(port_ids().at("t/b")).mode, Mode::private_);
}

TEST_F(ReconcileTest, ChangedPortGivesItsDeviceToItsSuccessor) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 22)});
  const ApplyReport report = switch_->apply(spec);
  EXPECT_EQ(report.reopened, std::vector<std::string>{"t/b"});
  EXPECT_EQ(report.untouched, 1U);
  EXPECT_EQ(world_.world.history, (std::vector<std::string>{"+t/a", "+t/b", "-t/b", "+t/b"}));
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, ChangedPortWithAnotherDeviceOpensFirst) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 2)});
  std::get<TapAttachSpec>(spec.ports[1].attach).name = "other";
  world_.world.history.clear();
  switch_->apply(spec);
  EXPECT_EQ(world_.world.history, (std::vector<std::string>{"+t/b", "-t/b"}));
  EXPECT_EQ(world_.world.held, (std::set<std::string>{"tap-a", "other"}));
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, RenamedPortKeepsItsDevice) {
  start(on_lan({port("a", 1), port("b", 2)}));
  PortSpec renamed = port("c", 2);
  std::get<TapAttachSpec>(renamed.attach).name = "tap-b";
  switch_->apply(on_lan({port("a", 1), renamed}));
  EXPECT_EQ(world_.world.held, (std::set<std::string>{"tap-a", "tap-b"}));
  EXPECT_TRUE(reaches("t/a", "t/c"));
}

TEST_F(ReconcileTest, PortsMaySwapDevices) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 2)});
  std::swap(spec.ports[0].attach, spec.ports[1].attach);
  const ApplyReport report = switch_->apply(spec);
  EXPECT_EQ(report.reopened.size(), 2U);
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, DuplicateMacIsRefused) {
  start(on_lan({port("a", 1), port("b", 2)}));
  expect_refusal(on_lan({port("a", 1), port("b", 2), port("c", 2)}), "has the MAC of port");
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, MacOfTheHostIsRefused) {
  start(on_lan({port("a", 1), port("b", 2)}));
  PortSpec evil = port("c", 3);
  evil.mac = world_.host_mac;
  expect_refusal(on_lan({port("a", 1), port("b", 2), evil}), "");
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, FailureOfTheLastPortClosesThoseBefore) {
  start(on_lan({port("a", 1), port("b", 2)}));
  world_.world.unavailable = {"tap-e"};
  expect_refusal(on_lan({port("a", 1), port("b", 2), port("c", 3), port("d", 4), port("e", 5)}), "t/e");
  EXPECT_EQ(world_.world.history, (std::vector<std::string>{"+t/a", "+t/b", "+t/c", "+t/d", "-t/d", "-t/c"}));
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, FailedSuccessorBringsThePredecessorBack) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 22), port("c", 3)});
  spec.ports[2].mac = spec.ports[0].mac;  // found when the table is built: after b was replaced
  expect_refusal(spec, "has the MAC of port");
  EXPECT_EQ(switch_->state().ports.at("t/b").spec.mac, mac(2));
  EXPECT_TRUE(reaches("t/a", "t/b"));
  EXPECT_TRUE(reaches("t/b", "t/a"));
}

TEST_F(ReconcileTest, WhatCannotBeBroughtBackIsToldAndOpenedByTheNextReload) {
  start(on_lan({port("a", 1), port("b", 2)}));
  world_.world.unavailable = {"tap-b"};
  try {
    switch_->apply(on_lan({port("a", 1), port("b", 22)}));
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("could not be opened again: open tap-b"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(port_ids().count("t/b"), 0U);
  EXPECT_EQ(port_ids().count("t/a"), 1U);
  world_.world.unavailable.clear();
  const ApplyReport report = switch_->apply(on_lan({port("a", 1), port("b", 2)}));
  EXPECT_EQ(report.added, std::vector<std::string>{"t/b"});
  EXPECT_TRUE(reaches("t/a", "t/b"));
}

TEST_F(ReconcileTest, WorkersNeedARestart) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1)});
  spec.workers.cpus = {0, 1};
  expect_refusal(spec, "needs a restart");
}

TEST_F(ReconcileTest, MtuComesFromTheUplink) {
  world_.uplink_mtus["eth9"] = 9000;
  auto spec = on_lan({port("a", 1), port("b", 2)});
  spec.ports[1].mtu = 1400;
  start(spec);
  EXPECT_EQ(switch_->state().ports.at("t/a").spec.mtu, 9000U);
  EXPECT_EQ(switch_->state().ports.at("t/b").spec.mtu, 1400U);
  spec.ports[1].mtu = 9001;
  expect_refusal(spec, "9001");
}

TEST_F(ReconcileTest, UplinkIsReplacedUnderItsPorts) {
  start(on_lan({port("a", 1), port("b", 2)}));
  auto spec = on_lan({port("a", 1), port("b", 2)});
  spec.uplinks[0].netdev = "eth8";
  const auto ids = port_ids();
  const ApplyReport report = switch_->apply(spec);
  EXPECT_EQ(report.reopened, std::vector<std::string>{"lan"});
  EXPECT_EQ(report.untouched, 2U);
  EXPECT_EQ(port_ids(), ids);
  EXPECT_EQ(lan_steering().unicast.size(), 2U);
  LoopQueue& wire = far_side(*switch_, "lan");
  ASSERT_TRUE(far_side(*switch_, "t/a").inject(frame(mac(77), mac(1), 5)));
  ASSERT_TRUE(wait_for_frame(wire));
  EXPECT_EQ(number_in(wire.sent(0)), 5U);
}

TEST_F(ReconcileTest, UplinkWithASmallerMtuReopensPortsThatInheritIt) {
  world_.uplink_mtus = {{"eth9", 9000}, {"eth8", 1500}};
  start(on_lan({port("a", 1)}));
  auto spec = on_lan({port("a", 1)});
  spec.uplinks[0].netdev = "eth8";
  const ApplyReport report = switch_->apply(spec);
  EXPECT_EQ(report.reopened, (std::vector<std::string>{"lan", "t/a"}));
  EXPECT_EQ(switch_->state().ports.at("t/a").spec.mtu, 1500U);
}

TEST_F(ReconcileTest, PortOnAnUnknownUplinkIsRefused) {
  start(on_lan({port("a", 1)}));
  auto spec = on_lan({port("a", 1), port("b", 2)});
  spec.ports[1].uplink = "nowhere";
  expect_refusal(spec, "nowhere");
}

TEST_F(ReconcileTest, IdsAreUsedAgain) {
  start(on_lan({port("a", 1)}));
  for (unsigned i = 0; i < 20; ++i) switch_->apply(on_lan({port("a", 1), port(i % 2 == 0 ? "b" : "c", 2)}));
  EXPECT_LE(switch_->datapath().table().port_slots(), 4U);
}

/// Counted traffic between two ports that no change touches.
class UntouchedTraffic {
 public:
  UntouchedTraffic(LoopQueue& from, LoopQueue& to)
      : from_(from), to_(to), sender_([this] { send(); }), receiver_([this] { receive(); }) {}
  ~UntouchedTraffic() { finish(); }
  /// Ends the sender and waits for the last frame.
  void finish() {
    stop_ = true;
    if (sender_.joinable()) sender_.join();
    sending_ = false;
    if (receiver_.joinable()) receiver_.join();
  }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t out_of_order() const { return out_of_order_; }

 private:
  static constexpr std::uint64_t kInFlight = 256;  // fewer than the far queue holds: what is lost, the switch lost

  void send() {
    for (std::uint64_t number = 0; !stop_;) {
      if (number - received_ < kInFlight && from_.inject(frame(mac(2), mac(1), number))) {
        sent_ = ++number;
      } else {
        std::this_thread::yield();
      }
    }
  }
  void receive() {
    Nanoseconds quiet_since = monotonic_now();
    while (sending_ || (received_ < sent_ && monotonic_now() - quiet_since < kSecond)) {
      const std::size_t here = to_.sent_count();
      for (std::size_t i = 0; i < here; ++i) {
        if (number_in(to_.sent(i)) != received_ + i) ++out_of_order_;
      }
      to_.drop_sent(here);
      received_ += here;
      if (here != 0) quiet_since = monotonic_now();
      if (here == 0) std::this_thread::yield();
    }
  }

  LoopQueue& from_;
  LoopQueue& to_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> sending_{true};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
  std::uint64_t out_of_order_ = 0;
  std::thread sender_;
  std::thread receiver_;
};

TEST_F(ReconcileTest, UntouchedPortsLoseAndReorderNothing) {
  start(on_lan({port("a", 1), port("b", 2), port("c", 3)}));
  UntouchedTraffic traffic(far_side(*switch_, "t/a"), far_side(*switch_, "t/b"));
  for (unsigned round = 0; round < 60; ++round) {
    std::vector<PortSpec> ports{port("a", 1), port("b", 2)};
    if (round % 3 != 0) ports.push_back(port("c", 3 + round));         // added, removed, reopened on its device
    if (round % 4 == 0) ports.push_back(port("d", 1000 + round % 8));  // added, removed
    PortSpec shy = port("e", 2000);
    shy.mode = round % 2 == 0 ? Mode::private_ : Mode::vepa;  // changed in place
    ports.push_back(shy);
    auto spec = on_lan(ports);
    switch_->apply(spec);
    if (round % 5 == 0) {  // a change that fails after it replaced a port
      spec.ports.back().mac = mac(1);
      EXPECT_THROW(switch_->apply(spec), Error);
    }
  }
  traffic.finish();
  EXPECT_GT(traffic.sent(), 100U);
  EXPECT_EQ(traffic.received(), traffic.sent());
  EXPECT_EQ(traffic.out_of_order(), 0U);
}

TEST(LockFile, SecondOneIsRefusedAndNamesTheFirst) {
  const std::string path = ::testing::TempDir() + "lock-" + std::to_string(::getpid());
  {
    const LockFile first(path);
    try {
      const LockFile second(path);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("process " + std::to_string(::getpid())), std::string::npos)
          << error.what();
    }
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  const LockFile again(path);
}

TEST(LockFile, FileLeftByAKilledDaemonDoesNotStopTheNext) {
  const std::string path = ::testing::TempDir() + "stale-" + std::to_string(::getpid());
  { const PidFile left(path); }
  const pid_t child = ::fork();
  if (child == 0) {
    const LockFile lock(path);
    ::_exit(0);  // as kill -9 would: no destructor
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  const LockFile next(path);
}

TEST(RuntimeDirectory, IsMadeAndRemoved) {
  const std::string path = ::testing::TempDir() + "run-" + std::to_string(::getpid());
  {
    const RuntimeDirectory directory(path);
    EXPECT_EQ(::access(path.c_str(), W_OK), 0);
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  EXPECT_THROW(RuntimeDirectory("/proc/nowhere"), Error);
}

}  // namespace
}  // namespace vswitch
