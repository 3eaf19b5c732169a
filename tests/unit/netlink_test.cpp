#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <poll.h>
#include <sys/stat.h>

#include <stdexcept>

#include "netlink/rtnetlink.h"
#include "tests/unit/test_netns.h"

// Everything here asks the kernel, in namespaces of its own; it must run as root.

namespace vswitch::test {
namespace {

using ::testing::HasSubstr;

ino_t inode_of(const char* path) {
  struct stat status {};
  return ::stat(path, &status) == 0 ? status.st_ino : 0;
}

TEST(Netns, OpensOnlyNetworkNamespaces) {
  EXPECT_THAT(error_of([] { Netns::open("/run/netns/vswtest-none"); }), HasSubstr("ip netns add"));
  EXPECT_THAT(error_of([] { Netns::open("/etc/passwd"); }), HasSubstr("no network namespace"));
  EXPECT_THAT(error_of([] { Netns::open("/proc/self/ns/mnt"); }), HasSubstr("no network namespace"));
  EXPECT_THAT(error_of([] { Netns::open("/proc"); }), HasSubstr("no network namespace"));
}

TEST(Netns, EmptyPathIsTheOwnOne) {
  EXPECT_EQ(Netns::open("").inode(), inode_of("/proc/thread-self/ns/net"));
  EXPECT_EQ(Netns::open("").name(), "the daemon's own namespace");
}

TEST(Netns, RunsInsideAndLeavesTheCallerWhereItIs) {
  const TestNetns red("red");
  const ino_t before = inode_of("/proc/thread-self/ns/net");
  ino_t inside = 0;
  red.run([&] { inside = inode_of("/proc/thread-self/ns/net"); });
  EXPECT_EQ(inside, Netns::open(red.path()).inode());
  EXPECT_NE(inside, before);
  EXPECT_EQ(inode_of("/proc/thread-self/ns/net"), before);
}

TEST(Netns, PassesExceptionsThrough) {
  const TestNetns red("red");
  EXPECT_THROW(red.run([] { throw std::out_of_range("x"); }), std::out_of_range);
  EXPECT_EQ(error_of([&] { red.run([] { throw Error(EIO, "try", "it", "again"); }); }),
            "try it: Input/output error; again");
}

TEST(Netns, KnowsWhenItsNameIsGoneOrTakenOver) {
  TestNetns red("red");
  const Netns netns = Netns::open(red.path());
  EXPECT_TRUE(is_netns_at(red.path(), netns.inode()));
  red.remove();
  EXPECT_FALSE(is_netns_at(red.path(), netns.inode()));
  red.create();
  EXPECT_FALSE(is_netns_at(red.path(), netns.inode()));
}

/// A namespace with a veth pair v0, v1 and a request socket inside it.
class RtnetlinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    red_.ip("link add v0 type veth peer name v1");
    red_.run([this] { netlink_.emplace(); });
  }
  Link v0() { return netlink_->find_link("v0").value(); }

  TestNetns red_{"red"};
  std::optional<Rtnetlink> netlink_;
};

TEST_F(RtnetlinkTest, FindsByNameAndIndex) {
  const Link link = v0();
  EXPECT_EQ(link.name, "v0");
  EXPECT_EQ(link.mtu, 1500U);
  EXPECT_FALSE(link.up);
  EXPECT_FALSE(link.mac.is_zero());
  EXPECT_EQ(netlink_->find_link(link.index)->name, "v0");
  EXPECT_FALSE(netlink_->find_link("v9").has_value());
  EXPECT_FALSE(netlink_->find_link(9999).has_value());
  EXPECT_EQ(v0().index, link.index) << "the socket works on after a miss";
}

TEST_F(RtnetlinkTest, ChangesMacMtuNameAndFlags) {
  const Mac mac = Mac::parse("02:00:00:00:00:11").value();
  netlink_->change_link(v0(), {.mac = mac, .mtu = 1400, .name = "web", .up = true});
  netlink_->change_link(netlink_->find_link("v1").value(), {.mac = {}, .mtu = {}, .name = {}, .up = true});
  const Link web = netlink_->find_link("web").value();
  EXPECT_EQ(web.mac, mac);
  EXPECT_EQ(web.mtu, 1400U);
  EXPECT_TRUE(web.up);
  EXPECT_TRUE(web.running);
  netlink_->change_link(web, {.mac = {}, .mtu = {}, .name = {}, .up = false});
  EXPECT_FALSE(netlink_->find_link("web")->up);
  EXPECT_EQ(netlink_->find_link("web")->mtu, 1400U);
}

TEST_F(RtnetlinkTest, Deletes) {
  netlink_->delete_link(v0());
  EXPECT_FALSE(red_.has_netdev("v0"));
  EXPECT_FALSE(red_.has_netdev("v1"));
}

TEST_F(RtnetlinkTest, LimitsGsoSegments) {
  netlink_->limit_gso_segments(v0(), 77);
  red_.ip("-d link show v0 | grep -q 'gso_max_segs 77 '");
}

TEST_F(RtnetlinkTest, AddsAddressesThatAreUsableAtOnce) {
  netlink_->change_link(v0(), {.mac = {}, .mtu = {}, .name = {}, .up = true});
  netlink_->add_address(v0(), IpPrefix::parse("198.18.0.11/24").value());
  netlink_->add_address(v0(), IpPrefix::parse("fd00:5::11/64").value());
  red_.ip("-4 addr show v0 | grep -q 'inet 198.18.0.11/24 '");
  red_.ip("-6 addr show v0 | grep -q 'inet6 fd00:5::11/64 '");
  red_.ip("-6 addr show v0 | grep 'fd00:5::11' | grep -q nodad");
  // bind(2) refuses a tentative address.
  const Fd socket = red_.socket(AF_INET6, SOCK_DGRAM);
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  const IpAddress ip = IpAddress::parse("fd00:5::11").value();
  std::copy(ip.bytes.begin(), ip.bytes.end(), address.sin6_addr.s6_addr);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
}

TEST_F(RtnetlinkTest, AddsRoutes) {
  netlink_->change_link(v0(), {.mac = {}, .mtu = {}, .name = {}, .up = true});
  netlink_->add_address(v0(), IpPrefix::parse("198.18.0.11/24").value());
  netlink_->add_address(v0(), IpPrefix::parse("fd00:5::11/64").value());
  netlink_->add_route(v0(), std::nullopt, IpAddress::parse("198.18.0.1"));
  netlink_->add_route(v0(), IpPrefix::parse("198.19.0.0/16"), std::nullopt);
  netlink_->add_route(v0(), std::nullopt, IpAddress::parse("fd00:5::1"));
  netlink_->add_route(v0(), IpPrefix::parse("fd00:6::/64"), IpAddress::parse("fd00:5::2"));
  red_.ip("route show | grep -q '^default via 198.18.0.1 dev v0'");
  red_.ip("route show | grep -q '^198.19.0.0/16 dev v0 .*scope link'");
  red_.ip("-6 route show | grep -q '^default via fd00:5::1 dev v0'");
  red_.ip("-6 route show | grep -q '^fd00:6::/64 via fd00:5::2 dev v0'");
}

TEST_F(RtnetlinkTest, ErrorsSayWhatTheKernelSays) {
  netlink_->change_link(v0(), {.mac = {}, .mtu = {}, .name = {}, .up = true});
  const IpPrefix address = IpPrefix::parse("198.18.0.11/24").value();
  netlink_->add_address(v0(), address);
  EXPECT_THAT(error_of([&] { netlink_->add_address(v0(), address); }),
              HasSubstr("add address 198.18.0.11/24 to v0: File exists"));
  const std::string bad_route =
      error_of([&] { netlink_->add_route(v0(), std::nullopt, IpAddress::parse("203.0.113.1")); });
  EXPECT_THAT(bad_route, HasSubstr("add route default via 203.0.113.1"));
  EXPECT_THAT(bad_route, HasSubstr("the kernel says: Nexthop has invalid gateway"));
  EXPECT_THAT(bad_route, HasSubstr("is the gateway inside a subnet"));
  EXPECT_THAT(
      error_of([&] { netlink_->add_route(v0(), IpPrefix::parse("198.19.0.0/16"), IpAddress::parse("fd00:5::1")); }),
      HasSubstr("gateway of the destination's address family"));
  const std::string bad_mtu =
      error_of([&] { netlink_->change_link(v0(), {.mac = {}, .mtu = 20, .name = {}, .up = {}}); });
  EXPECT_THAT(bad_mtu, HasSubstr("set v0 MTU 20: Invalid argument; the kernel says: mtu less than device minimum"));
}

TEST_F(RtnetlinkTest, MonitorTellsOfChanges) {
  std::optional<LinkMonitor> monitor;
  red_.run([&] { monitor.emplace(); });
  pollfd waiting{monitor->fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 0), 0);
  for (int i = 0; i < 3; ++i) {
    netlink_->change_link(v0(), {.mac = {}, .mtu = 1300U + static_cast<unsigned>(i), .name = {}, .up = {}});
    EXPECT_EQ(::poll(&waiting, 1, 2000), 1);
    monitor->drain();
    EXPECT_EQ(::poll(&waiting, 1, 0), 0);
  }
}

TEST_F(RtnetlinkTest, MonitorSurvivesAFullQueue) {
  std::optional<LinkMonitor> monitor;
  red_.run([&] { monitor.emplace(); });
  const int small = 1;
  ASSERT_EQ(::setsockopt(monitor->fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
  for (unsigned i = 0; i < 50; ++i) netlink_->change_link(v0(), {.mac = {}, .mtu = 1300 + i, .name = {}, .up = {}});
  monitor->drain();
  pollfd waiting{monitor->fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 0), 0);
  netlink_->change_link(v0(), {.mac = {}, .mtu = 1400, .name = {}, .up = {}});
  EXPECT_EQ(::poll(&waiting, 1, 2000), 1);
}

}  // namespace
}  // namespace vswitch::test
