#include "vswitch/core/decide.h"

#include <gtest/gtest.h>

#include "tests/unit/switch_fixture.h"
#include "vswitch/base/error.h"

// The kernel's macvlan delivery matrix as a table (tests/kernel asks the kernel itself), with our differences: a
// spoofed source is dropped, private also refuses reflected unicast, and multicast nobody joined goes to every port.

namespace vswitch {
namespace {

constexpr PortId kA = 1;
const Mac kMacA = mac(0x0a);
const Mac kMacB = mac(0x0b);

struct Row {
  const char* what;
  PortId ingress;
  std::vector<std::byte> frame;
  const char* bridge;
  const char* private_;
  const char* vepa;
  const char* mixed;  ///< a and b bridge, c private
};

std::vector<Row> matrix() {
  return {
      {"a unicast to b", kA, ethernet(kMacB, kMacA), "b", "wire", "wire", "b"},
      {"a unicast to the host's MAC", kA, ethernet(kHost, kMacA), "wire", "wire", "wire", "wire"},
      {"a broadcast", kA, ethernet(kBroadcast, kMacA), "wire b c", "wire", "wire", "wire b"},
      {"peer broadcast", kWire, ethernet(kBroadcast, kPeer), "a b c", "a b c", "a b c", "a b c"},
      {"peer broadcast from a (reflected)", kWire, ethernet(kBroadcast, kMacA), "[reflected]", "a", "b c",
       "[reflected]"},
      {"peer unicast to b from a (reflected)", kWire, ethernet(kMacB, kMacA), "b", "[isolated]", "b", "b"},
      {"peer unicast to a", kWire, ethernet(kMacA, kPeer), "a", "a", "a", "a"},
      {"peer unicast to nobody", kWire, ethernet(mac(0x77), kPeer), "[unknown_destination]", "[unknown_destination]",
       "[unknown_destination]", "[unknown_destination]"},
      {"a unicast to peer, spoofed", kA, ethernet(kPeer, mac(0x66)), "[spoofed_mac]", "[spoofed_mac]", "[spoofed_mac]",
       "[spoofed_mac]"},
      {"a unicast to b, spoofed as b", kA, ethernet(kMacB, kMacB), "[spoofed_mac]", "[spoofed_mac]", "[spoofed_mac]",
       "[spoofed_mac]"},
      {"peer multicast nobody joined", kWire, ethernet(kMulticast, kPeer), "a b c", "a b c", "a b c", "a b c"},
      {"a unicast to b, tag 5", kA, ethernet(kMacB, kMacA, 64, {5}), "b", "wire", "wire", "b"},
      {"a unicast to b, priority tag", kA, ethernet(kMacB, kMacA, 64, {0xa000}), "b", "wire", "wire", "b"},
      {"a sends LLDP", kA, ethernet(kLldp, kMacA), "wire b c", "wire", "wire", "wire b"},
  };
}

TEST(MacvlanMatrix, EveryModeDeliversAsTheKernelDoes) {
  const SwitchUnderTest bridge({{}, {}, {}});
  const SwitchUnderTest private_({{Mode::private_}, {Mode::private_}, {Mode::private_}});
  const SwitchUnderTest vepa({{Mode::vepa}, {Mode::vepa}, {Mode::vepa}});
  const SwitchUnderTest mixed({{Mode::bridge}, {Mode::bridge}, {Mode::private_}});
  for (const Row& row : matrix()) {
    EXPECT_EQ(bridge.delivery(row.ingress, row.frame), row.bridge) << row.what;
    EXPECT_EQ(private_.delivery(row.ingress, row.frame), row.private_) << row.what;
    EXPECT_EQ(vepa.delivery(row.ingress, row.frame), row.vepa) << row.what;
    EXPECT_EQ(mixed.delivery(row.ingress, row.frame), row.mixed) << row.what;
  }
}

TEST(MacvlanMatrix, TaggedWireFramesReachPortsWithoutVlan) {
  const SwitchUnderTest bridge({{}, {}});
  EXPECT_EQ(bridge.delivery(kWire, ethernet(kMacA, kPeer), 5), "a");
  EXPECT_EQ(bridge.delivery(kWire, ethernet(kBroadcast, kPeer), 5), "a b");
}

TEST(Passthru, GetsEverythingAndMaySendEverything) {
  const SwitchUnderTest passthru({{Mode::passthru}});
  EXPECT_EQ(passthru.delivery(kWire, ethernet(mac(0x77), kPeer)), "a");
  EXPECT_EQ(passthru.delivery(kWire, ethernet(kHost, kPeer)), "a");
  EXPECT_EQ(passthru.delivery(kWire, ethernet(kBroadcast, kPeer)), "a");
  EXPECT_EQ(passthru.delivery(kA, ethernet(kPeer, mac(0x66))), "wire");
  EXPECT_EQ(passthru.delivery(kA, ethernet(kBroadcast, kMacA)), "wire");
}

TEST(Passthru, MustBeAlone) {
  EXPECT_THROW(SwitchUnderTest({{Mode::passthru}, {Mode::bridge}}), Error);
  EXPECT_NO_THROW(SwitchUnderTest({{Mode::passthru}, {.vlan = 7}}));
}

TEST(Source, GetsWhatItsListSaysWhoeverItIsFor) {
  const SwitchUnderTest source({{.mode = Mode::source, .source_macs = {kPeer}}, {.mode = Mode::bridge}});
  EXPECT_EQ(source.delivery(kWire, ethernet(kHost, kPeer)), "a");
  EXPECT_EQ(source.delivery(kWire, ethernet(kMacB, kPeer)), "a b");
  EXPECT_EQ(source.delivery(kWire, ethernet(kBroadcast, kPeer)), "a b");
  EXPECT_EQ(source.delivery(kWire, ethernet(kMacA, mac(0x55))), "[unknown_destination]");
  EXPECT_EQ(source.delivery(kWire, ethernet(kBroadcast, mac(0x55))), "b");
  EXPECT_EQ(source.delivery(kA, ethernet(kMacB, kMacA)), "wire");
}

TEST(Source, NodstConsumesTheFrame) {
  const SwitchUnderTest source({{.mode = Mode::source, .source_macs = {kPeer}, .nodst = true}, {}});
  EXPECT_EQ(source.delivery(kWire, ethernet(kMacB, kPeer)), "a");
  EXPECT_EQ(source.delivery(kWire, ethernet(kBroadcast, kPeer)), "a");
  EXPECT_EQ(source.delivery(kWire, ethernet(kMacB, mac(0x55))), "b");
}

TEST(Trusted, MaySendAnySource) {
  const SwitchUnderTest trusted({{.trusted = true}, {}});
  EXPECT_EQ(trusted.delivery(kA, ethernet(kMacB, mac(0x66))), "b");
}

TEST(SeveralMacs, AllReceiveAndAllMaySend) {
  const SwitchUnderTest several({{.macs = {mac(0x20), mac(0x21)}}, {}});
  EXPECT_EQ(several.delivery(2, ethernet(mac(0x21), kMacB)), "a");
  EXPECT_EQ(several.delivery(kWire, ethernet(mac(0x20), kPeer)), "a");
  EXPECT_EQ(several.delivery(kA, ethernet(kMacB, mac(0x20))), "b");
  EXPECT_EQ(several.delivery(2, ethernet(kMacA, mac(0x20))), "[spoofed_mac]");
}

TEST(AccessVlan, IsItsOwnDomain) {
  const SwitchUnderTest vlans({{.vlan = 100}, {.vlan = 100}, {.vlan = 200}, {}});
  EXPECT_EQ(vlans.delivery(1, ethernet(kMacB, kMacA), 100), "b");
  EXPECT_EQ(vlans.delivery(1, ethernet(mac(0x0c), kMacA), 100), "wire");
  EXPECT_EQ(vlans.delivery(1, ethernet(kBroadcast, kMacA), 100), "wire b");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kBroadcast, kPeer), 100), "a b");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kBroadcast, kPeer), 200), "c");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kBroadcast, kPeer), 300), "d");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kBroadcast, kPeer)), "d");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kMacA, kPeer), 0x2000 | 100), "a");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(kMacA, kPeer)), "[unknown_destination]");
  EXPECT_EQ(vlans.delivery(kWire, ethernet(mac(0x0d), kPeer), 100), "[unknown_destination]");
}

TEST(AccessVlan, RefusesTagsOfItsOwn) {
  const SwitchUnderTest vlans({{.vlan = 100}, {.vlan = 100}});
  EXPECT_EQ(vlans.delivery(1, ethernet(kMacB, kMacA, 64, {100}), 100), "[vlan_not_allowed]");
  EXPECT_EQ(vlans.delivery(1, ethernet(kMacB, kMacA, 14), 100), "b");
}

TEST(Table, SameMacInTwoVlansIsTwoPortsAndTwiceInOneIsRefused) {
  LoopPort uplink;
  LoopPort first;
  LoopPort second;
  for (LoopPort* port : {&uplink, &first, &second}) port->start();
  PortSpec spec;
  spec.tenant = "t";
  spec.mtu = 1500;
  spec.mac = kMacA;
  const auto build = [&](std::uint16_t vlan_of_second) {
    TableBuilder builder(1);
    builder.add_uplink(0, "lan", uplink, 1500);
    spec.name = "first";
    spec.vlan = 0;
    builder.add_tenant(1, spec, 0, first);
    spec.name = "second";
    spec.vlan = vlan_of_second;
    builder.add_tenant(2, spec, 0, second);
    return builder.build();
  };
  EXPECT_NO_THROW(build(7));
  try {
    build(0);
    FAIL() << "a duplicate was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("t/first"), std::string::npos) << error.what();
  }
}

TEST(Table, FindsEveryOfManyMacsAndNoOther) {
  LoopPort uplink;
  LoopPort port;
  uplink.start();
  port.start();
  PortSpec spec;
  spec.tenant = "t";
  spec.name = "many";
  spec.mtu = 1500;
  const auto numbered = [](std::uint32_t i) {
    return Mac{{0x02, 0x10, static_cast<std::uint8_t>(i >> 16), static_cast<std::uint8_t>(i >> 8),
                static_cast<std::uint8_t>(i), 0}};
  };
  constexpr std::uint32_t kMany = 20'000;
  for (std::uint32_t i = 0; i < kMany; ++i) spec.macs.push_back(numbered(i));
  spec.mac = mac(0x0a);
  TableBuilder builder(1);
  builder.add_uplink(0, "lan", uplink, 1500).add_tenant(1, spec, 0, port);
  const auto table = builder.build();
  const DomainId domain = table->port(1).domain;
  for (std::uint32_t i = 0; i < kMany; ++i) ASSERT_EQ(table->find(domain, mac_bits(numbered(i))), 1);
  for (std::uint32_t i = kMany; i < 2 * kMany; ++i) ASSERT_EQ(table->find(domain, mac_bits(numbered(i))), kNoPort);
}

}  // namespace
}  // namespace vswitch
