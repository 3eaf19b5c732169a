// What the packet-socket uplink promises beyond the contract of every port: the host keeps its traffic, the netdev is
// left as found, and nothing that happens to the netdev hurts.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <thread>

#include "ports/af_packet/af_packet_uplink.h"
#include "ports/af_packet/vnet_header.h"
#include "tests/ports/net_lab.h"
#include "tests/ports/rig.h"
#include "tests/ports/test_frames.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

constexpr Mac kHost{{0x02, 0, 0, 0, 0xaa, 0x01}};
constexpr Mac kTenant{{0x02, 0, 0, 0, 0xbb, 0x02}};
constexpr Mac kStranger{{0x02, 0, 0, 0, 0xcc, 0x03}};
constexpr Mac kEverybody{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

Steering only_tenant() {
  Steering steering;
  steering.unicast = {{0, kTenant}};
  return steering;
}

/// What is in the netdev's receive filter, as the kernel's tools show it.
std::string receive_filter(const std::string& netdev) {
  return output_of("ip -d -o link show " + netdev + " | grep -o 'promiscuity [0-9]* *\\(allmulti [0-9]*\\)\\?'; " +
                   "bridge fdb show dev " + netdev + " | sort");
}

//   this namespace                          the peer's namespace
//   up0 198.18.7.1 (kHost)  ====veth====    far0 198.18.7.2
class AfPacket : public testing::Test {
 protected:
  AfPacket() {
    make_wire();
    context_.scratch.push_back(Mapping::anonymous(kScratchBytes));
    context_.scratch.push_back(Mapping::anonymous(kScratchBytes));
  }
  ~AfPacket() override {
    uplink_.reset();
    shell("ip link del up0 2>/dev/null; ip link del up1 2>/dev/null; true");
  }

  void make_wire() {
    shell("ip link add up0 address " + kHost.to_string() + " type veth peer name far0 netns " + peer_.path() +
          " && ip link set up0 up && ip addr add 198.18.7.1/24 dev up0");
    peer_.run([this] {
      shell("ip link set far0 up && ip addr add 198.18.7.2/24 dev far0");
      wait_for_link("far0");
      far_.emplace("far0");
    });
    wait_for_link("up0");
  }
  AfPacketUplink& start(const Steering& steering, const std::string& netdev = "up0", std::size_t workers = 1) {
    context_.workers = workers;
    uplink_ = std::make_unique<AfPacketUplink>(UplinkSpec{"wire", netdev, UplinkDriver::automatic}, context_);
    uplink_->start();
    uplink_->steer(steering);
    return *uplink_;
  }
  /// Numbers of the test frames that arrive within a short time, on all workers.
  std::vector<std::uint16_t> arrivals() {
    std::vector<std::uint16_t> numbers;
    for (const TestFrame& frame : receive()) numbers.push_back(number_of(frame));
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }
  std::vector<TestFrame> receive() {
    std::vector<TestFrame> frames;
    for (const Nanoseconds end = monotonic_now() + 100 * kMillisecond; monotonic_now() < end;) {
      for (std::size_t w = 0; w < context_.workers; ++w) {
        burst_.clear();
        if (uplink_->queue(w).receive(burst_) == 0) continue;
        for (const Frame& frame : burst_) {
          received_bytes_ += frame.length;
          TestFrame copy = Rig::copy_of(frame);
          if (std::memcmp(copy.bytes.data() + 6, kFrom.bytes.data(), 6) == 0) frames.push_back(std::move(copy));
        }
        uplink_->queue(w).release(burst_);
      }
    }
    return frames;
  }
  std::size_t transmit(const std::vector<TestFrame>& frames) {
    std::vector<OwnedFrame> owned(frames.begin(), frames.end());
    std::vector<const Frame*> pointers;
    for (const OwnedFrame& frame : owned) pointers.push_back(&frame.frame());
    return uplink_->queue(0).transmit(pointers);
  }
  std::uint64_t dropped(Drop reason) const {
    return uplink_->counters(0).drops[static_cast<std::size_t>(reason)].read();
  }
  void send_one_to_each() {
    for (const TestFrame& frame :
         {numbered(1, 64, kHost), numbered(2, 64, kTenant), numbered(3, 64, kStranger), numbered(4, 64, kEverybody)}) {
      ASSERT_TRUE(far_->send(frame));
    }
  }

  Namespace peer_;
  std::optional<RawSocket> far_;
  TestReactor reactor_;
  Quiescence quiescence_{2};
  int changes_ = 0;
  PortContext context_{
      .reactor = reactor_, .quiescence = quiescence_, .workers = 1, .scratch = {}, .changed = [this] { ++changes_; }};
  std::unique_ptr<AfPacketUplink> uplink_;
  Burst burst_;
  std::size_t received_bytes_ = 0;
};

using Numbers = std::vector<std::uint16_t>;

TEST_F(AfPacket, WithoutTenantsNothingIsCopied) {
  start({});
  send_one_to_each();
  EXPECT_EQ(arrivals(), Numbers{});
}

TEST_F(AfPacket, HostsOwnUnicastIsNeverCopied) {
  for (const std::size_t workers : {1U, 2U}) {
    start(only_tenant(), "up0", workers);
    send_one_to_each();
    EXPECT_EQ(arrivals(), (Numbers{2, 3, 4}));
  }
}

TEST_F(AfPacket, SourceModeSeesTheHostsUnicastFromItsSourcesOnly) {
  Steering steering;
  steering.sources = {kStranger};
  start(steering);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{2, 3, 4}));
  steering.sources = {kStranger, kFrom};
  uplink_->steer(steering);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{1, 2, 3, 4}));
  steering.sources.assign(1000, kStranger);  // too many for the filter: the steering table decides
  uplink_->steer(steering);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{1, 2, 3, 4}));
}

TEST_F(AfPacket, PassthruSeesEverything) {
  Steering steering;
  steering.everything = true;
  start(steering);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{1, 2, 3, 4}));
}

TEST_F(AfPacket, HostKeepsItsTrafficAndItIsNotSeen) {
  for (const std::size_t workers : {1U, 2U}) {
    start(only_tenant(), "up0", workers);
    shell("ip neigh replace 198.18.7.2 lladdr 02:00:00:00:dd:04 dev up0");
    peer_.run([] {
      shell("ip link set far0 address 02:00:00:00:dd:04 && ip neigh replace 198.18.7.1 lladdr " + kHost.to_string() +
            " dev far0 && ping -q -c 5 -i 0.01 -W 1 -s 1000 198.18.7.1 >/dev/null");
    });
    received_bytes_ = 0;
    receive();
    EXPECT_LT(received_bytes_, 1000U) << "the host's ping was copied to the switch";
  }
}

TEST_F(AfPacket, RefusesToSteerTheHostsAddressAndChangesNothing) {
  start(only_tenant());
  const std::string before = receive_filter("up0");
  Steering wrong;
  wrong.unicast = {{0, kStranger}, {7, kHost}};
  wrong.everything = true;
  EXPECT_THROW(
      {
        try {
          uplink_->steer(wrong);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), EADDRINUSE);
          EXPECT_NE(std::string(error.what()).find(kHost.to_string()), std::string::npos);
          EXPECT_NE(std::string(error.what()).find("another MAC"), std::string::npos);
          throw;
        }
      },
      Error);
  EXPECT_EQ(receive_filter("up0"), before);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{2, 3, 4}));
}

TEST_F(AfPacket, ReceiveFilterFollowsSteeringAndEndsWithStop) {
  const std::string before = receive_filter("up0");
  start(only_tenant());
  EXPECT_NE(receive_filter("up0").find(kTenant.to_string()), std::string::npos);
  Steering other;
  other.unicast = {{0, kStranger}, {5, kStranger}};
  other.everything = true;
  uplink_->steer(other);
  const std::string promiscuous = receive_filter("up0");
  EXPECT_EQ(promiscuous.find(kTenant.to_string()), std::string::npos);
  EXPECT_NE(promiscuous.find(kStranger.to_string()), std::string::npos);
  other.everything = false;
  uplink_->steer(other);
  EXPECT_NE(receive_filter("up0"), promiscuous);
  uplink_->steer({});
  EXPECT_EQ(receive_filter("up0"), before);
  uplink_->steer(other);
  uplink_->stop();
  EXPECT_EQ(receive_filter("up0"), before);
}

TEST_F(AfPacket, NothingSurvivesKill9) {
  const std::string before = receive_filter("up0");
  std::array<int, 2> ready;
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    Steering steering = only_tenant();
    steering.everything = true;
    start(steering);
    static_cast<void>(!::write(ready[1], "x", 1));
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_NE(receive_filter("up0"), before);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(receive_filter("up0"), before);
  for (const int fd : ready) ::close(fd);
}

TEST_F(AfPacket, NetdevGoesDownAndUp) {
  start(only_tenant());
  Waiter waiter(uplink_->queue(0));
  shell("ip link set up0 down");
  EXPECT_TRUE(reactor_.run_until([this] { return changes_ > 0; }));
  EXPECT_FALSE(uplink_->status().link_up);
  EXPECT_NE(uplink_->status().detail.find("down"), std::string::npos);
  EXPECT_TRUE(arrivals().empty());
  EXPECT_EQ(transmit({numbered(1, 64)}), 0U);
  EXPECT_EQ(uplink_->queue(0).refusal(), Drop::dest_detached);
  while (waiter.wait(0)) EXPECT_TRUE(arrivals().empty());
  EXPECT_TRUE(uplink_->queue(0).arm());
  EXPECT_FALSE(waiter.wait(100)) << "a netdev that is down keeps the worker awake";

  shell("ip link set up0 up");
  EXPECT_TRUE(reactor_.run_until([this] { return uplink_->status().link_up; }));
  wait_for_link("up0");
  EXPECT_EQ(transmit({numbered(2, 64), numbered(3, 64)}), 2U) << "the first frames after the pause were refused";
  EXPECT_EQ(far_->read(1000).size(), 2U);
  ASSERT_TRUE(far_->send(unfinished_tcp(40'000, 1448, 4000, kTenant)));
  ASSERT_TRUE(far_->send(numbered(4, 64, kTenant)));
  EXPECT_EQ(receive().size(), 2U);
}

TEST_F(AfPacket, NetdevVanishesAndComesBack) {
  start(only_tenant());
  shell("ip link del up0");
  EXPECT_TRUE(reactor_.run_until([this] { return changes_ > 0; }));
  EXPECT_NE(uplink_->status().detail.find("gone"), std::string::npos);
  EXPECT_TRUE(arrivals().empty());
  EXPECT_EQ(transmit({numbered(1, 64)}), 0U);
  EXPECT_EQ(uplink_->queue(0).refusal(), Drop::dest_detached);
  EXPECT_THROW(uplink_->steer({}), Error);
  EXPECT_THROW(static_cast<void>(uplink_->host_mac()), Error);
  uplink_->stop();
  EXPECT_THROW(uplink_->start(), Error);
  make_wire();
  uplink_->start();
  uplink_->steer(only_tenant());
  ASSERT_TRUE(far_->send(numbered(4, 64, kTenant)));
  EXPECT_EQ(arrivals(), Numbers{4});
}

TEST_F(AfPacket, FollowsRenameAndNewAddressOfTheHost) {
  start(only_tenant());
  shell("ip link set up0 down && ip link set up0 name up1 address " + kStranger.to_string() + " && ip link set up1 up");
  EXPECT_TRUE(reactor_.run_until([this] { return uplink_->status().detail.find("up1") != std::string::npos; }));
  wait_for_link("up1");
  peer_.run([] { wait_for_link("far0"); });
  reactor_.run_once(100);
  EXPECT_EQ(uplink_->host_mac(), kStranger);
  send_one_to_each();
  EXPECT_EQ(arrivals(), (Numbers{1, 2, 4}));
}

TEST_F(AfPacket, TagOfAnotherTypeStaysInTheFrame) {
  start(only_tenant());
  TestFrame sent = numbered(1, 200, kTenant);
  constexpr std::array<std::byte, 4> kProviderTag{std::byte{0x88}, std::byte{0xa8}, std::byte{0x00}, std::byte{0x07}};
  sent.bytes.insert(sent.bytes.begin() + 12, kProviderTag.begin(), kProviderTag.end());
  ASSERT_TRUE(far_->send(sent));
  EXPECT_EQ(receive(), std::vector<TestFrame>{sent});
}

TEST_F(AfPacket, KernelFinishesWhatTheNetdevCannot) {
  shell("ethtool -K up0 tx off tso off gso off >/dev/null");
  start(only_tenant());
  std::vector<TestFrame> frames = {unfinished_tcp(2500, 1000), unfinished_tcp(2500, 1000), unfinished_udp(100, 0)};
  frames[1].vlan = 0x0064;
  std::size_t expected = 7;
  if (uplink_->queue(0).offloads().uso) {
    frames.push_back(unfinished_udp(2500, 1000));
    expected += 3;
  }
  EXPECT_EQ(transmit(frames), frames.size());
  std::vector<TestFrame> got;
  while (got.size() < expected) {
    const auto more = far_->read(1000);
    ASSERT_FALSE(more.empty());
    got.insert(got.end(), more.begin(), more.end());
  }
  ASSERT_EQ(got.size(), expected);
  for (const TestFrame& frame : got) {
    EXPECT_TRUE(frame.offload.is_plain() || frame.offload.flags == Offload::kDataValid);
    const std::span<const std::byte> bytes(frame.bytes);
    const std::uint8_t protocol = std::to_integer<std::uint8_t>(bytes[23]);
    std::uint32_t sum = protocol + static_cast<std::uint32_t>(bytes.size() - 34);
    for (std::size_t i = 26; i < bytes.size(); i += 2) {
      sum += std::to_integer<std::uint32_t>(bytes[i]) << 8;
      if (i + 1 < bytes.size()) sum += std::to_integer<std::uint32_t>(bytes[i + 1]);
    }
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    EXPECT_EQ(sum, 0xffffU) << "a wrong checksum left the host";
  }
  EXPECT_EQ(std::count_if(got.begin(), got.end(), [](const TestFrame& frame) { return frame.vlan == 0x0064; }), 3);
}

TEST_F(AfPacket, ARefusedFrameCostsOnlyItself) {
  start(only_tenant());
  TestFrame contradictory = unfinished_udp(100, 0);
  contradictory.offload.csum_start = 60'000;
  const TestFrame too_long = numbered(3, 1600);
  EXPECT_EQ(transmit({numbered(1, 64), contradictory, numbered(2, 64), too_long, numbered(4, 64)}), 5U);
  EXPECT_EQ(dropped(Drop::dest_error), 1U);
  EXPECT_EQ(dropped(Drop::too_long), 1U);
  EXPECT_EQ(far_->read(1000).size(), 3U);
}

TEST_F(AfPacket, RingThatTheKernelForgotIsMadeAnew) {
  // A TAP lets us receive a frame whose segmentation has no name in a virtio-net header on the way out (UDP fragments).
  Fd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  ASSERT_TRUE(tap.valid());
  ifreq request{};
  std::memcpy(request.ifr_name, "up1", 4);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  ASSERT_EQ(::ioctl(tap.get(), TUNSETIFF, &request), 0);
  shell("ip link set up1 up");
  start(only_tenant(), "up1");
  const auto write = [&tap](const TestFrame& frame) {
    af_packet::VnetHeader header;
    header.flags = frame.offload.flags;
    header.gso_type = frame.offload.gso_type;
    header.gso_size = frame.offload.gso_size;
    header.csum_start = frame.offload.csum_start;
    header.csum_offset = frame.offload.csum_offset;
    std::vector<std::byte> bytes(sizeof(header));
    std::memcpy(bytes.data(), &header, sizeof(header));
    bytes.insert(bytes.end(), frame.bytes.begin(), frame.bytes.end());
    return ::write(tap.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  };
  TestFrame fragments = unfinished_udp(4000, 1480, kTenant);
  fragments.offload.gso_type = 3;
  ASSERT_TRUE(write(fragments));
  receive();
  EXPECT_TRUE(uplink_->queue(0).arm());
  ASSERT_TRUE(write(numbered(1, 64, kTenant)));  // may be lost: this is how the ring is found out
  receive();
  EXPECT_TRUE(uplink_->queue(0).arm());
  ASSERT_TRUE(write(numbered(2, 64, kTenant)));
  ASSERT_TRUE(write(numbered(3, 3000, kTenant)));
  ASSERT_TRUE(write(numbered(4, 64, kTenant)));
  const Numbers got = arrivals();
  EXPECT_EQ(got, (Numbers{2, 3, 4}));
  EXPECT_NE(uplink_->status().detail.find("lost"), std::string::npos) << "losses are shown";
}

void expect_error(const std::string& netdev, PortContext& context, const std::string& words) {
  AfPacketUplink uplink(UplinkSpec{"wire", netdev, UplinkDriver::automatic}, context);
  try {
    uplink.start();
    ADD_FAILURE() << netdev << " was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST_F(AfPacket, ErrorsSayWhatToDo) {
  expect_error("nosuch0", context_, "`ip link` lists");
  expect_error("a-name-that-is-too-long", context_, "1 to 15 characters");
  expect_error("lo", context_, "loopback");
  shell("ip tuntap add mode tun name up1");
  expect_error("up1", context_, "not an Ethernet device");
  EXPECT_EQ(reactor_.watches(), 0U);
  std::thread([this] {  // capabilities are a thread's own
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> none{};
    ASSERT_EQ(::syscall(SYS_capset, &header, none.data()), 0);
    expect_error("up0", context_, "CAP_NET_RAW");
  })
      .join();
}

}  // namespace
}  // namespace vswitch::test
