#include "ports/tap/tap_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <filesystem>

#include "tests/unit/tap_support.h"

// TAP ports in real namespaces, driven by a small forwarder; must run as root.
//
//   namespace red                                        namespace blue
//   [ t0 198.18.0.1/24 fd00:5::1 ] <- TapPort | test forwarder | TapPort -> [ t0 198.18.0.2/24 fd00:5::2 ]

namespace vswitch::test {
namespace {

using ::testing::HasSubstr;

std::size_t open_descriptors() {
  using std::filesystem::directory_iterator;
  return static_cast<std::size_t>(std::distance(directory_iterator("/proc/self/fd"), directory_iterator()));
}

class TapTest : public ::testing::Test {
 protected:
  TestNetns red_{"red"};
  TestNetns blue_{"blue"};
  Workers one_{1};
};

// --- the netdev -----------------------------------------------------------------------------------------------------

TEST_F(TapTest, NetdevIsAsAskedAndGoneAfterStop) {
  PortSpec spec = spec_of(red_, 1);
  spec.mtu = 1400;
  tap_of(spec).routes = {{std::nullopt, IpAddress::parse("198.18.0.254")}, {IpPrefix::parse("198.19.0.0/16"), {}}};
  TapPort port(spec, one_.context);
  EXPECT_FALSE(port.status().link_up);
  const std::size_t descriptors = open_descriptors();
  for (int round = 0; round < 2; ++round) {
    port.start();
    red_.ip("link show t0 | grep -q 'mtu 1400 .*state UNKNOWN\\|mtu 1400 .*state UP'");
    red_.ip("link show t0 | grep -q 'link/ether 02:00:00:00:00:01 '");
    red_.ip("addr show t0 | grep -q 'inet 198.18.0.1/24 '");
    red_.ip("addr show t0 | grep -q 'inet6 fd00:5::1/64 '");
    red_.ip("route show | grep -q '^default via 198.18.0.254 dev t0'");
    red_.ip("route show | grep -q '^198.19.0.0/16 dev t0'");
    const PortStatus status = port.status();
    EXPECT_TRUE(status.link_up);
    EXPECT_EQ(status.mtu, 1400U);
    EXPECT_THAT(status.detail, HasSubstr("netdev t0 in " + red_.path()));
    EXPECT_EQ(status.offloads_requested, OffloadCaps::all());
    EXPECT_EQ(port.queue(0).offloads().checksum, true);
    port.stop();
    EXPECT_FALSE(red_.has_netdev("t0"));
    EXPECT_EQ(open_descriptors(), descriptors);
    EXPECT_EQ(one_.reactor.watches(), 0U);
  }
}

TEST_F(TapTest, ExistingNetdevIsRefusedAndUntouched) {
  red_.ip("link add t0 type veth peer name t1");
  blue_.ip("tuntap add t0 mode tap multi_queue");
  for (const TestNetns* netns : {&red_, &blue_}) {
    const std::string before = netns->read("/proc/thread-self/net/dev");
    TapPort port(spec_of(*netns, 1), one_.context);
    EXPECT_THAT(error_of([&] { port.start(); }), HasSubstr("create netdev t0: Device or resource busy; the namespace"));
    EXPECT_EQ(netns->read("/proc/thread-self/net/dev"), before);
    netns->ip("link show t0 | grep -q DOWN");
    netns->ip("link show t0 | grep -vq 'link/ether 02:00:00:00:00:01'");
  }
}

TEST_F(TapTest, FailureHalfWayLeavesNothing) {
  PortSpec spec = spec_of(red_, 1);
  tap_of(spec).routes = {{std::nullopt, IpAddress::parse("203.0.113.1")}};
  TapPort port(spec, one_.context);
  const std::size_t descriptors = open_descriptors();
  EXPECT_THAT(error_of([&] { port.start(); }), HasSubstr("invalid gateway"));
  EXPECT_FALSE(red_.has_netdev("t0"));
  EXPECT_EQ(open_descriptors(), descriptors);
}

TEST_F(TapTest, BadNamesAndNamespacesAreExplained) {
  PortSpec spec = spec_of(red_, 1);
  for (const char* name : {"", "a%d", "sixteencharacter"}) {
    tap_of(spec).name = name;
    EXPECT_THAT(error_of([&] { TapPort(spec, one_.context).start(); }), HasSubstr("1 to 15 characters")) << name;
  }
  tap_of(spec).name = "a/b";
  EXPECT_THAT(error_of([&] { TapPort(spec, one_.context).start(); }), HasSubstr("is it a netdev name"));
  spec = spec_of(red_, 1);
  tap_of(spec).netns = "/run/netns/vswtest-none";
  EXPECT_THAT(error_of([&] { TapPort(spec, one_.context).start(); }), HasSubstr("create it first"));
}

TEST_F(TapTest, VanishesWhenTheProcessIsKilled) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    TapPort port(spec_of(red_, 1), one_.context);
    port.start();
    if (::write(pipe[1], "x", 1) != 1) ::_exit(1);
    ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(pipe[0], &byte, 1), 1);
  EXPECT_TRUE(red_.has_netdev("t0"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(red_.has_netdev("t0"));
  ::close(pipe[0]);
  ::close(pipe[1]);
}

// --- traffic between two tenants
// --------------------------------------------------------------------------------------

/// Two started ports and a forwarder between them.
struct Pair {
  Pair(const PortSpec& a, const PortSpec& b, Workers& workers) : red(a, workers.context), blue(b, workers.context) {
    red.start();
    blue.start();
    forwarder = std::make_unique<Forwarder>(red, blue, workers.context.workers);
  }
  TapPort red, blue;
  std::unique_ptr<Forwarder> forwarder;
};

TEST_F(TapTest, PingPasses) {
  Pair pair(spec_of(red_, 1), spec_of(blue_, 2), one_);
  const Fd socket = red_.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  set_timeout(socket, 3);
  sockaddr_storage blue = address_of("198.18.0.2", 0);
  icmphdr echo{};
  echo.type = ICMP_ECHO;
  echo.checksum = htons(0xf7ff);  // of type 8 and zeros
  ASSERT_EQ(::sendto(socket.get(), &echo, sizeof(echo), 0, raw(blue), sizeof(sockaddr_in)), sizeof(echo));
  std::array<std::byte, 256> reply;
  ASSERT_EQ(::recv(socket.get(), reply.data(), reply.size(), 0), 28);
  EXPECT_EQ(reply[20], std::byte{ICMP_ECHOREPLY});
}

TEST_F(TapTest, TcpPassesInWholeGsoFrames) {
  Pair pair(spec_of(red_, 1), spec_of(blue_, 2), one_);
  constexpr std::size_t kBytes = 32 << 20;
  const Passed& passed = pair.forwarder->passed;
  for (const char* to : {"198.18.0.2", "fd00:5::2"}) {
    const std::size_t gso_before = passed.gso;
    EXPECT_EQ(tcp_transfer(red_, blue_, to, kBytes), kBytes) << to;
    EXPECT_GT(passed.gso, gso_before + 100) << to;
  }
  EXPECT_EQ(tcp_transfer(blue_, red_, "198.18.0.1", kBytes), kBytes);
  EXPECT_EQ(checksum_errors(red_) + checksum_errors(blue_), 0U);
  EXPECT_EQ(passed.refused, 0U);
}

TEST_F(TapTest, TcpPassesWithOffloadsOff) {
  PortSpec red = spec_of(red_, 1);
  PortSpec blue = spec_of(blue_, 2);
  red.offloads = blue.offloads = {};
  Pair pair(red, blue, one_);
  EXPECT_EQ(pair.red.queue(0).offloads(), OffloadCaps{});
  EXPECT_EQ(pair.red.status().offloads_requested, OffloadCaps{});
  EXPECT_EQ(pair.red.status().offloads_why_not, "");
  constexpr std::size_t kBytes = 4 << 20;
  for (const char* to : {"198.18.0.2", "fd00:5::2"}) EXPECT_EQ(tcp_transfer(red_, blue_, to, kBytes), kBytes) << to;
  EXPECT_EQ(pair.forwarder->passed.gso + pair.forwarder->passed.partial, 0U);
  EXPECT_EQ(checksum_errors(red_) + checksum_errors(blue_), 0U);
}

TEST_F(TapTest, OffloadsChangeBetweenTransfers) {
  Pair pair(spec_of(red_, 1), spec_of(blue_, 2), one_);
  const Passed& passed = pair.forwarder->passed;
  constexpr std::size_t kBytes = 8 << 20;
  const auto transfer = [&] {
    const std::size_t before = passed.gso;
    EXPECT_EQ(tcp_transfer(red_, blue_, "198.18.0.2", kBytes), kBytes);
    return passed.gso - before;
  };
  EXPECT_GT(transfer(), 20U);
  for (TapPort* port : {&pair.red, &pair.blue}) {
    port->permit({.checksum = true, .tso6 = true});
    EXPECT_EQ(port->queue(0).offloads(), (OffloadCaps{.checksum = true, .tso6 = true}));
    EXPECT_EQ(port->status().offloads_requested, (OffloadCaps{.checksum = true, .tso6 = true}));
  }
  EXPECT_EQ(transfer(), 0U) << "TSO for IPv4 was taken back";
  for (TapPort* port : {&pair.red, &pair.blue}) port->permit(OffloadCaps::all());
  EXPECT_GT(transfer(), 20U);
  EXPECT_EQ(checksum_errors(red_) + checksum_errors(blue_), 0U);
}

TEST_F(TapTest, OffloadsOfADeletedNetdevChangeToo) {
  TapPort port(spec_of(red_, 1), one_.context);
  port.start();
  red_.ip("link del t0");
  port.permit({});
  EXPECT_EQ(port.status().offloads_requested, OffloadCaps{});
  port.stop();
  port.start();
  EXPECT_EQ(port.queue(0).offloads(), OffloadCaps{}) << "made again with what was permitted last";
}

TEST_F(TapTest, TcpWithASmallSegmentSizeIsNotRefused) {
  PortSpec red = spec_of(red_, 1);
  PortSpec blue = spec_of(blue_, 2);
  red.mtu = blue.mtu = 300;  // 64 KiB would be 263 segments
  red.ips.pop_back();
  blue.ips.pop_back();
  Pair pair(red, blue, one_);
  EXPECT_EQ(tcp_transfer(red_, blue_, "198.18.0.2", 4 << 20), std::size_t{4} << 20);
  EXPECT_GT(pair.forwarder->passed.gso, 10U);
  EXPECT_EQ(pair.red.counters(0).drops[static_cast<std::size_t>(Drop::bad_gso_segments)].read(), 0U);
}

TEST_F(TapTest, UdpSegmentsPassInOneFrame) {
  Pair pair(spec_of(red_, 1), spec_of(blue_, 2), one_);
  ASSERT_TRUE(pair.red.queue(0).offloads().uso);
  sockaddr_storage blue = address_of("198.18.0.2", 4000);
  const Fd receiver = blue_.socket(AF_INET, SOCK_DGRAM);
  ASSERT_EQ(::bind(receiver.get(), raw(blue), sizeof(sockaddr_in)), 0);
  set_timeout(receiver, 3);
  const Fd sender = red_.socket(AF_INET, SOCK_DGRAM);
  const int segment = 1000;
  ASSERT_EQ(::setsockopt(sender.get(), IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
  const std::vector<std::byte> content(10'500, std::byte{7});
  ASSERT_EQ(::sendto(sender.get(), content.data(), content.size(), 0, raw(blue), sizeof(sockaddr_in)), 10'500);
  std::array<std::byte, 2000> datagram;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(::recv(receiver.get(), datagram.data(), datagram.size(), 0), 1000);
  EXPECT_EQ(::recv(receiver.get(), datagram.data(), datagram.size(), 0), 500);
  EXPECT_EQ(pair.forwarder->passed.udp_gso, 1U);
}

TEST_F(TapTest, SeveralWorkersShareTheTraffic) {
  Workers two(2);
  Pair pair(spec_of(red_, 1), spec_of(blue_, 2), two);
  sockaddr_storage blue = address_of("198.18.0.2", 4000);
  const Fd receiver = blue_.socket(AF_INET, SOCK_DGRAM);
  ASSERT_EQ(::bind(receiver.get(), raw(blue), sizeof(sockaddr_in)), 0);
  set_timeout(receiver, 3);
  constexpr int kFlows = 64;
  for (int i = 0; i < kFlows; ++i) {
    const Fd sender = red_.socket(AF_INET, SOCK_DGRAM);
    ASSERT_EQ(::sendto(sender.get(), "x", 1, 0, raw(blue), sizeof(sockaddr_in)), 1);
  }
  char byte = 0;
  for (int i = 0; i < kFlows; ++i) ASSERT_EQ(::recv(receiver.get(), &byte, 1, 0), 1) << i;
  EXPECT_GT(pair.forwarder->passed.by_worker[0], 5U);
  EXPECT_GT(pair.forwarder->passed.by_worker[1], 5U);
  EXPECT_EQ(tcp_transfer(red_, blue_, "198.18.0.2", 16 << 20), std::size_t{16} << 20);
  EXPECT_EQ(checksum_errors(red_) + checksum_errors(blue_), 0U);
}

TEST_F(TapTest, AnArrivalAfterArmMakesAnEdge) {
  TapPort port(spec_of(red_, 1), one_.context);
  port.start();
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, port.queue(0).wait_fd(), &event), 0);
  PacketSocket tenant(red_);
  Burst burst;
  EXPECT_FALSE(port.queue(0).arm()) << "never read: there may be work";
  for (int i = 0; i < 200; ++i) {
    do {
      burst.clear();
    } while (port.queue(0).receive(burst) != 0);
    ASSERT_TRUE(port.queue(0).arm());
    ASSERT_TRUE(tenant.send({}, ethernet(mac_of(2), mac_of(1), {kTestType}, 46)));
    ASSERT_EQ(::epoll_wait(epoll.get(), &event, 1, 2000), 1) << i;
  }
}

// --- what a queue makes of single frames
// ------------------------------------------------------------------------------

/// One port, no forwarder: the test is its worker, and the tenant is a packet socket.
class TapQueueTest : public TapTest {
 protected:
  Queue& start(std::uint16_t vlan) {
    PortSpec spec = spec_of(red_, 2);
    spec.vlan = vlan;
    port_.emplace(spec, one_.context);
    port_->start();
    tenant_.emplace(red_);
    return port_->queue(0);
  }
  std::optional<TapPort> port_;
  std::optional<PacketSocket> tenant_;
  Burst burst_;
};

TEST_F(TapQueueTest, LendsFramesInOrderAsTheyAre) {
  Queue& queue = start(0);
  for (const std::size_t payload : {46U, 113U, 114U, 115U, 1500U}) {
    const auto sent = ethernet(mac_of(1), mac_of(2), {kTestType}, payload);
    ASSERT_TRUE(tenant_->send({}, sent));
    const Frame* frame = receive_type(queue, burst_, kTestType);
    ASSERT_NE(frame, nullptr);
    ASSERT_EQ(frame->length, sent.size());
    EXPECT_EQ(frame->header_bytes, std::min(sent.size(), kHeaderBytes));
    EXPECT_EQ(std::memcmp(frame->header, sent.data(), frame->header_bytes), 0);
    EXPECT_EQ(std::memcmp(frame->rest().data(), sent.data() + frame->header_bytes, frame->rest().size()), 0);
    EXPECT_EQ(frame->vlan, 0);
    EXPECT_TRUE(frame->offload.is_plain());
  }
  // A burst that is full leaves the rest for the next one.
  for (std::uint16_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(tenant_->send({}, ethernet(mac_of(1), mac_of(2), {kTestType, i}, 44)));
  }
  for (std::uint16_t i = 0; i < 10; ++i) {
    const Frame* frame = receive_type(queue, burst_, kTestType);
    ASSERT_NE(frame, nullptr);
    EXPECT_EQ(load_be16(frame->header + kEthernetHeaderBytes), i);
    EXPECT_FALSE(queue.arm());
  }
}

TEST_F(TapQueueTest, ATransparentPortKeepsTagsInTheBytes) {
  Queue& queue = start(0);
  ASSERT_TRUE(tenant_->send({}, ethernet(mac_of(1), mac_of(2), {0x8100, 0x6007, kTestType}, 46)));
  const Frame* frame = receive_type(queue, burst_, 0x8100);
  ASSERT_NE(frame, nullptr);
  EXPECT_EQ(frame->vlan, 0);
  EXPECT_EQ(frame->length, 64U);
  EXPECT_EQ(load_be16(frame->header + 14), 0x6007);
}

TEST_F(TapQueueTest, AnAccessPortPutsItsVlanBeside) {
  Queue& queue = start(100);
  ASSERT_TRUE(tenant_->send({}, ethernet(mac_of(1), mac_of(2), {kTestType}, 46)));
  const Frame* frame = receive_type(queue, burst_, kTestType);
  ASSERT_NE(frame, nullptr);
  EXPECT_EQ(frame->vlan, 100);
  // Priority 3 without a VLAN ID: out of the bytes, offsets move along.
  const auto tagged = udp_frame({0x8100, 0x6000, 0x0800}, 200);
  ASSERT_TRUE(tenant_->send({.flags = 1, .hdr_len = 46, .csum_start = 38, .csum_offset = 6}, tagged));
  frame = receive_type(queue, burst_, 0x0800);
  ASSERT_NE(frame, nullptr);
  EXPECT_EQ(frame->vlan, 0x6000 | 100);
  ASSERT_EQ(frame->length, tagged.size() - 4);
  EXPECT_EQ(frame->offload, (Offload{.flags = 1, .csum_start = 34, .csum_offset = 6}));
  EXPECT_EQ(std::memcmp(frame->header, tagged.data(), 12), 0);
  EXPECT_EQ(std::memcmp(frame->header + 12, tagged.data() + 16, frame->header_bytes - 12U), 0);
  EXPECT_EQ(std::memcmp(frame->rest().data(), tagged.data() + 4 + frame->header_bytes, frame->rest().size()), 0);
  // With one: left for decide() to refuse.
  ASSERT_TRUE(tenant_->send({}, ethernet(mac_of(1), mac_of(2), {0x8100, 7, kTestType}, 46)));
  frame = receive_type(queue, burst_, 0x8100);
  ASSERT_NE(frame, nullptr);
  EXPECT_EQ(frame->vlan, 100);
}

TEST_F(TapQueueTest, TagsGoIntoATransparentPortsFramesAndNotIntoAnAccessPorts) {
  for (const std::uint16_t port_vlan : {std::uint16_t{0}, std::uint16_t{100}}) {
    Queue& queue = start(port_vlan);
    for (const std::size_t payload : {20U, 1000U}) {
      LentFrame lent(udp_frame({0x0800}, payload));
      lent.frame.vlan = 0x6000 | 100;
      lent.frame.offload = {.flags = 1, .csum_start = 34, .csum_offset = 6};
      ASSERT_EQ(transmit(queue, {&lent.frame}), 1U);
      const auto got = tenant_->receive(0x0800);  // the kernel takes a tag out and moves the offsets back
      ASSERT_EQ(got.frame, lent.bytes);
      EXPECT_EQ(got.vlan, port_vlan == 0 ? 0x6000 | 100 : -1);
      EXPECT_EQ(got.vnet.flags, 1);
      EXPECT_EQ(got.vnet.csum_start, 34);
      EXPECT_EQ(got.vnet.csum_offset, 6);
    }
    tenant_.reset();
    port_.reset();
  }
}

TEST_F(TapQueueTest, AContradictingOffloadIsRefused) {
  Queue& queue = start(0);
  // To the kernel a checksum in an ARP frame is as good as any.
  ASSERT_TRUE(
      tenant_->send({.flags = 1, .csum_start = 20, .csum_offset = 2}, ethernet(mac_of(1), mac_of(2), {0x0806}, 46)));
  EXPECT_TRUE(wait_for_drop(queue, Drop::bad_checksum_place));
}

TEST_F(TapQueueTest, AFrameTheKernelRefusesTakesNoOtherWithIt) {
  Queue& queue = start(0);
  LentFrame first(ethernet(mac_of(2), mac_of(1), {kTestType, 1}, 60));
  LentFrame bad(udp_frame({0x0800}, 3000));
  bad.frame.offload = {.flags = 1, .gso_type = 0x7f, .gso_size = 1000, .csum_start = 34, .csum_offset = 6};
  LentFrame last(ethernet(mac_of(2), mac_of(1), {kTestType, 2}, 60));
  EXPECT_EQ(transmit(queue, {&first.frame, &bad.frame, &last.frame}), 3U);
  EXPECT_EQ(queue.counters().drops[static_cast<std::size_t>(Drop::dest_error)].read(), 1U);
  EXPECT_EQ(tenant_->receive(kTestType).frame, first.bytes);
  EXPECT_EQ(tenant_->receive(kTestType).frame, last.bytes);
}

// --- a tenant that takes its netdev away
// ------------------------------------------------------------------------------

TEST_F(TapQueueTest, ANetdevSetDownRefusesUntilItIsUp) {
  Queue& queue = start(0);
  LentFrame lent(ethernet(mac_of(2), mac_of(1), {kTestType}, 60));
  EXPECT_EQ(transmit(queue, {&lent.frame}), 1U);
  red_.ip("link set t0 down");
  EXPECT_EQ(transmit(queue, {&lent.frame, &lent.frame}), 0U);
  EXPECT_EQ(queue.refusal(), Drop::dest_detached);
  EXPECT_TRUE(one_.reactor.run_until([&] { return !port_->status().link_up; }));
  EXPECT_EQ(one_.changes, 1);
  EXPECT_THAT(port_->status().detail, HasSubstr("set down by the tenant"));
  red_.ip("link set t0 up");
  EXPECT_TRUE(one_.reactor.run_until([&] { return port_->status().link_up; }));
  EXPECT_EQ(one_.changes, 2);
  EXPECT_EQ(transmit(queue, {&lent.frame}), 1U);
}

TEST_F(TapQueueTest, ARenamedNetdevStaysTheSamePort) {
  Queue& queue = start(0);
  red_.ip("link set t0 name web mtu 1300");
  EXPECT_TRUE(one_.reactor.run_until([&] { return port_->status().mtu == 1300; }));
  EXPECT_THAT(port_->status().detail, HasSubstr("netdev web in"));
  LentFrame lent(ethernet(mac_of(2), mac_of(1), {kTestType}, 60));
  EXPECT_EQ(transmit(queue, {&lent.frame}), 1U);
}

/// The port is down for good, costs nothing, and can be stopped.
void expect_gone(TapPort& port) {
  Queue& queue = port.queue(0);
  Burst burst;
  EXPECT_EQ(queue.receive(burst), 0U);
  EXPECT_TRUE(queue.arm());
  LentFrame lent(ethernet(mac_of(2), mac_of(1), {kTestType}, 60));
  EXPECT_EQ(transmit(queue, {&lent.frame}), 0U);
  EXPECT_EQ(queue.refusal(), Drop::dest_detached);
  EXPECT_FALSE(port.status().link_up);
}

TEST_F(TapQueueTest, ADeletedNetdevIsADownPort) {
  Queue& queue = start(0);
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, queue.wait_fd(), &event), 0);
  red_.ip("link del t0");
  while (::epoll_wait(epoll.get(), &event, 1, 200) == 1) std::ignore = queue.receive(burst_);  // edges come to an end
  EXPECT_TRUE(one_.reactor.run_until([&] { return one_.changes == 1; }));
  EXPECT_THAT(port_->status().detail, HasSubstr("was removed by the tenant"));
  expect_gone(*port_);
  port_->stop();
  port_->start();
  EXPECT_TRUE(port_->status().link_up);
  EXPECT_TRUE(red_.has_netdev("t0"));
}

TEST_F(TapQueueTest, ADeletedNamespaceIsADownPort) {
  start(0);
  tenant_.reset();
  red_.remove();
  EXPECT_TRUE(one_.reactor.run_until([&] { return one_.changes == 1; }));
  EXPECT_THAT(port_->status().detail, HasSubstr("went with its namespace"));
  expect_gone(*port_);
  port_->stop();
  EXPECT_THAT(error_of([&] { port_->start(); }), HasSubstr("create it first"));
  red_.create();
  port_->start();
  EXPECT_TRUE(port_->status().link_up);
}

}  // namespace
}  // namespace vswitch::test
