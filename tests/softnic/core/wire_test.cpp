#include "tests/softnic/core/wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "tests/softnic/core/offload.h"

// Every test has network namespaces of its own, which go with their descriptors; nothing else of the machine is
// touched.
namespace softnic {
namespace {

using Frame = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;
constexpr Mac kWireMac = {2, 0, 0, 0, 0, 1};
constexpr Mac kForeign = {2, 0x5a, 0, 0, 0, 0x77};
constexpr Mac kPeerMac = {2, 0, 0, 0, 0, 2};
constexpr std::size_t kMtu = 1500;
constexpr std::uint16_t kTpids[] = {0x8100, 0x88a8};
constexpr std::uint16_t kTestType = 0x88b5;  // IEEE 802 local experimental

int must(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

class Owned {
 public:
  explicit Owned(int fd) : fd_{must(fd, "descriptor")} {}
  ~Owned() { ::close(fd_); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

int this_namespace() { return ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); }

class Namespace {
 public:
  /// Made by a thread of its own: the caller stays where it is.
  Namespace() : fd_{std::async(std::launch::async, create).get()} {}

  /// Runs `body` with the calling thread inside.
  template <class Body>
  auto in(const Body& body) const {
    struct Visit {
      explicit Visit(int inside) : home{this_namespace()} { must(::setns(inside, CLONE_NEWNET), "setns"); }
      ~Visit() { ::setns(home.get(), CLONE_NEWNET); }
      Owned home;
    } const visit{fd_.get()};
    return body();
  }
  void sh(const std::string& command) const {
    if (in([&] { return std::system(command.c_str()); }) != 0) throw std::runtime_error("failed: " + command);
  }
  [[nodiscard]] std::string path() const {
    return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
  }

 private:
  static int create() {
    must(::unshare(CLONE_NEWNET), "unshare");
    for (const char* scope : {"all", "default"})  // neighbour discovery would mix with what a test sends
      std::ofstream{std::string{"/proc/sys/net/ipv6/conf/"} + scope + "/disable_ipv6"} << 1;
    return this_namespace();
  }
  Owned fd_;
};

/// struct virtio_net_hdr.
struct Vnet {
  std::uint8_t flags = 0, gso_type = 0;
  std::uint16_t header_bytes = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};

/// A packet socket as simple as can be: what is compared with does not share the code under test.
class Raw {
 public:
  Raw(const Namespace& where, const char* netdev, int type = ETH_P_ALL)
      : socket_{where.in([] { return ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); })} {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(static_cast<std::uint16_t>(type));
    address.sll_ifindex = where.in([&] { return static_cast<int>(::if_nametoindex(netdev)); });
    must(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), netdev);
  }
  void send(const Frame& frame) const {
    must(static_cast<int>(::send(socket_.get(), frame.data(), frame.size(), 0)), "send");
  }
  void send(const Frame& frame, Vnet vnet) const {
    const int on = 1;
    must(::setsockopt(socket_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), "vnet header");
    iovec parts[] = {{&vnet, sizeof(vnet)}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    must(static_cast<int>(::writev(socket_.get(), parts, 2)), "send");
  }
  /// The next frame; empty when there is none.
  [[nodiscard]] Frame receive() const {
    Frame frame(70000);
    const ssize_t got = ::recv(socket_.get(), frame.data(), frame.size(), MSG_DONTWAIT);
    frame.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return frame;
  }

 private:
  Owned socket_;
};

Frame ethernet(const Mac& to, const Mac& from, std::uint16_t type, std::size_t payload) {
  Frame frame(14 + payload);
  std::copy(to.begin(), to.end(), frame.begin());
  std::copy(from.begin(), from.end(), frame.begin() + 6);
  store_be16(&frame[12], type);
  for (std::size_t i = 14; i < frame.size(); ++i) frame[i] = static_cast<std::uint8_t>(i * 7 + payload);
  return frame;
}

Frame tagged(Frame frame, std::uint16_t tpid, std::uint16_t tci) {
  frame.insert(frame.begin() + 12, 4, 0);
  store_be16(&frame[12], tpid);
  store_be16(&frame[14], tci);
  return frame;
}

struct Kind {
  bool v6;
  bool tcp;
  [[nodiscard]] std::size_t l4() const { return 14 + (v6 ? 40u : 20u); }
  [[nodiscard]] std::size_t header() const { return l4() + (tcp ? 20u : 8u); }
};

/// As a kernel with checksum offload makes it: the field holds the sum of the pseudo header only.
Frame partial(const Kind& kind, std::size_t payload) {
  Frame frame = ethernet(kForeign, kPeerMac, kind.v6 ? 0x86dd : 0x0800, kind.header() - 14 + payload);
  std::fill(frame.begin() + 14, frame.begin() + static_cast<std::ptrdiff_t>(kind.header()), std::uint8_t{0});
  const auto ip = std::span{frame}.subspan(14);
  const auto l4_bytes = static_cast<std::uint16_t>(frame.size() - kind.l4());
  const std::uint8_t protocol = kind.tcp ? 6 : 17;
  if (kind.v6) {
    ip[0] = 0x60;
    store_be16(&ip[4], l4_bytes);
    ip[6] = protocol;
    ip[7] = 64;
    for (std::size_t at : {8u, 24u}) store_be32(&ip[at], 0x20010002), ip[at + 15] = static_cast<std::uint8_t>(at);
  } else {
    ip[0] = 0x45;
    store_be16(&ip[2], static_cast<std::uint16_t>(frame.size() - 14));
    store_be16(&ip[4], 0xfffe);  // wraps while it counts
    ip[8] = 64;
    ip[9] = protocol;
    store_be32(&ip[12], 0xc6120001);
    store_be32(&ip[16], 0xc6120002);
    insert_l3_checksum(frame, parse(frame));
  }
  const auto l4 = std::span{frame}.subspan(kind.l4());
  store_be16(&l4[0], 4000);
  store_be16(&l4[2], 5000);
  if (kind.tcp) l4[12] = 0x50, l4[13] = 0x18;
  if (!kind.tcp) store_be16(&l4[4], l4_bytes);
  const std::uint64_t sum =
      sum_words(kind.v6 ? ip.subspan(8, 32) : ip.subspan(12, 8), std::uint64_t{protocol} + l4_bytes);
  store_be16(&l4[kind.tcp ? 16 : 6], static_cast<std::uint16_t>(~fold(sum)));
  return frame;
}

Vnet vnet_of(const Kind& kind, std::size_t tags, std::uint8_t gso_type, std::size_t gso_size) {
  return {.flags = 1,
          .gso_type = gso_type,
          .header_bytes = static_cast<std::uint16_t>(kind.header() + tags),
          .gso_size = static_cast<std::uint16_t>(gso_size),
          .csum_start = static_cast<std::uint16_t>(kind.l4() + tags),
          .csum_offset = static_cast<std::uint16_t>(kind.tcp ? 16 : 6)};
}

bool readable(int fd, int milliseconds = 0) {
  pollfd wait{fd, POLLIN, 0};
  return ::poll(&wait, 1, milliseconds) > 0;
}

/// w0 (the wire, in `near_`) and p0 (in `far_`) are a veth pair.
class WireTest : public testing::Test {
 protected:
  void SetUp() override {
    near_.sh(
        "ip link add w0 mtu 1500 address 02:00:00:00:00:01 type veth peer name p0 mtu 1500 address "
        "02:00:00:00:00:02 netns " +
        far_.path());
    near_.sh("ip link set lo up; ip link set w0 up");
    far_.sh("ip link set lo up; ip link set p0 up");
  }
  [[nodiscard]] std::unique_ptr<FrameEnd> open() const {
    auto wire = near_.in([] { return open_wire("w0"); });
    EXPECT_TRUE(wire->carrier());
    return wire;
  }
  static void expect_next(FrameEnd& end, const Frame& frame) {
    EXPECT_TRUE(readable(end.fd(), 1000));
    const Bytes got = end.receive();
    EXPECT_EQ(Frame(got.begin(), got.end()), frame);
  }
  static void expect_nothing(FrameEnd& end) {
    EXPECT_TRUE(end.receive().empty());
    EXPECT_EQ(end.lost(), 0u);
  }
  Namespace near_, far_;
};

TEST_F(WireTest, FramesOfAllLengthsAndForeignAddressesArriveAsTheyWere) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  near_.sh("ip -d link show w0 | grep -q 'promiscuity 1'");  // a veth does not filter, real netdevs do
  EXPECT_FALSE(readable(wire->fd()));
  for (std::size_t payload : {0u, 1u, 46u, 999u, 1500u})
    for (const Mac& to : {kWireMac, kForeign, Mac{1, 0, 0x5e, 0, 0, 1}, Mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}) {
      const Frame frame = ethernet(to, kPeerMac, kTestType, payload);
      peer.send(frame);
      expect_next(*wire, frame);
    }
  expect_nothing(*wire);
  EXPECT_FALSE(readable(wire->fd()));
}

TEST_F(WireTest, TagsAreInPlace) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  const Frame plain = ethernet(kForeign, kPeerMac, kTestType, 100);
  for (const Frame& frame : {tagged(plain, 0x8100, 0xefff), tagged(plain, 0x8100, 0x6000), tagged(plain, 0x88a8, 7),
                             tagged(tagged(plain, 0x8100, 5), 0x88a8, 0x3004), plain,
                             tagged(ethernet(kForeign, kPeerMac, kTestType, kMtu), 0x8100, 1)}) {
    peer.send(frame);
    expect_next(*wire, frame);
  }
  expect_nothing(*wire);
}

TEST_F(WireTest, SendsAndDoesNotSeeItsOwnFrames) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  const Frame frame = ethernet(kPeerMac, kForeign, kTestType, kMtu);
  EXPECT_EQ(wire->send(frame), Sent::yes);
  EXPECT_EQ(peer.receive(), frame);
  Raw{near_, "w0"}.send(frame);  // as the kernel's own stack may do
  EXPECT_EQ(peer.receive(), frame);
  expect_nothing(*wire);
  const auto far_wire = far_.in([] { return open_wire("p0"); });
  for (std::uint16_t tpid : kTpids) {
    const Frame with_tag = tagged(ethernet(kPeerMac, kForeign, kTestType, 1400), tpid, 0x2003);
    EXPECT_EQ(wire->send(with_tag), Sent::yes);
    expect_next(*far_wire, with_tag);
  }
  expect_nothing(*wire);
}

TEST_F(WireTest, RefusesFramesThatNoCableCarries) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  EXPECT_EQ(wire->send({}), Sent::full);
  EXPECT_EQ(wire->send(Frame(13)), Sent::full);
  EXPECT_EQ(wire->send(ethernet(kPeerMac, kForeign, kTestType, 0)), Sent::yes);
  EXPECT_EQ(wire->send(ethernet(kPeerMac, kForeign, kTestType, kMtu + 1)), Sent::full);
  EXPECT_EQ(wire->send(tagged(ethernet(kPeerMac, kForeign, kTestType, kMtu), 0x8100, 1)), Sent::yes);
  EXPECT_EQ(wire->send(tagged(ethernet(kPeerMac, kForeign, kTestType, kMtu + 1), 0x8100, 1)), Sent::full);
  EXPECT_EQ(wire->send(Frame(100000)), Sent::full);
  EXPECT_EQ(peer.receive().size(), 14u);
  EXPECT_EQ(peer.receive().size(), 14 + kMtu);
  EXPECT_TRUE(peer.receive().empty());
}

TEST_F(WireTest, CountsOverlongFramesAsLost) {
  near_.sh("ip link set w0 mtu 20000");
  far_.sh("ip link set p0 mtu 20000");
  const auto wire = open();
  const Raw peer{far_, "p0"};
  const Frame longest = ethernet(kForeign, kPeerMac, kTestType, kMostFrameBytes - 14);
  peer.send(ethernet(kForeign, kPeerMac, kTestType, kMostFrameBytes - 13));
  peer.send(tagged(longest, 0x8100, 1));
  peer.send(ethernet(kForeign, kPeerMac, kTestType, 20000));
  peer.send(longest);
  expect_next(*wire, longest);
  EXPECT_EQ(wire->lost(), 3u);
  peer.send(partial({false, true}, 40000), vnet_of({false, true}, 0, 1, 12000));  // segments that are too long
  EXPECT_TRUE(wire->receive().empty());
  EXPECT_EQ(wire->lost(), 1u);
  expect_nothing(*wire);
}

TEST_F(WireTest, FinishesPartialChecksums) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  for (bool v6 : {false, true})
    for (bool tcp : {false, true})
      for (std::size_t payload : {0u, 1u, 1000u, 1001u})
        for (std::uint16_t tpid : kTpids) {
          const Kind kind{v6, tcp};
          const Frame frame = partial(kind, payload);
          EXPECT_FALSE(verify(frame, parse(frame)).l4_ok);
          Frame whole = frame;
          insert_l4_checksum(whole, parse(whole));
          peer.send(frame, vnet_of(kind, 0, 0, 0));
          expect_next(*wire, whole);
          peer.send(tagged(frame, tpid, 9), vnet_of(kind, 4, 0, 0));
          expect_next(*wire, tagged(whole, tpid, 9));
        }
  expect_nothing(*wire);
}

struct Super {
  Kind kind;
  std::uint8_t gso_type;
  std::vector<std::uint16_t> tpids;  // outermost last
  std::size_t payload;
  std::size_t size;
};

/// Takes the segments of one super-frame from `wire`. @return their payloads, joined.
Frame joined(FrameEnd& wire, const Super& super, const Frame& original) {
  Frame all;
  const std::size_t tags = 4 * super.tpids.size();
  for (std::size_t index = 0; all.size() < super.payload; ++index) {
    // It is readable for each of them, though the socket has given all it had.
    const Bytes got = readable(wire.fd(), 1000) ? wire.receive() : Bytes{};
    if (got.empty()) break;
    EXPECT_TRUE(std::equal(got.begin(), got.begin() + 14 + static_cast<std::ptrdiff_t>(tags), original.begin()));
    Frame bare(got.begin(), got.end());
    if (tags == 8) bare.resize(strip_vlan(bare));  // parse() looks behind one only
    const Headers headers = parse(bare);
    const ChecksumResult result = verify(bare, headers);
    EXPECT_TRUE(result.l3_ok && result.l4_ok) << index;
    EXPECT_EQ(headers.l3_end, bare.size());
    EXPECT_EQ(bare.size() - headers.payload, std::min(super.size, super.payload - all.size()));
    EXPECT_TRUE(headers.ipv6 || load_be16(&bare[headers.l3 + 4u]) == static_cast<std::uint16_t>(0xfffe + index));
    EXPECT_TRUE(headers.udp() || load_be32(&bare[headers.l4 + 4u]) == all.size());
    EXPECT_TRUE(headers.tcp() || load_be16(&bare[headers.l4 + 4u]) == bare.size() - headers.l4);
    all.insert(all.end(), bare.begin() + headers.payload, bare.end());
  }
  return all;
}

TEST_F(WireTest, CutsSuperFrames) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  far_.sh("ip link set p0 gso_max_size 100000");  // else the kernel cuts what is longer than 65535 with its headers
  constexpr Kind kTcp4{false, true}, kTcp6{true, true}, kUdp4{false, false}, kUdp6{true, false};
  for (const Super& super :
       {Super{kTcp4, 1, {}, 20000, 1448}, Super{kTcp4, 0x81, {0x8100}, 65495, 1460}, Super{kTcp6, 4, {}, 65515, 1440},
        Super{kTcp6, 4, {}, 1441, 1440}, Super{kTcp6, 4, {0x88a8}, 65515, 999},
        Super{kTcp4, 1, {0x8100, 0x88a8}, 30001, 1400}, Super{kUdp4, 5, {}, 65507, 1472},
        Super{kUdp6, 5, {0x8100}, 4001, 1000}, Super{kUdp4, 5, {0x8100, 0x88a8}, 9000, 1000}}) {
    SCOPED_TRACE(testing::Message() << int{super.gso_type} << ", bytes " << super.payload);
    Frame frame = partial(super.kind, super.payload);
    const Frame payload(frame.begin() + static_cast<std::ptrdiff_t>(super.kind.header()), frame.end());
    for (std::uint16_t tpid : super.tpids) frame = tagged(frame, tpid, 0x2064);
    peer.send(frame, vnet_of(super.kind, 4 * super.tpids.size(), super.gso_type, super.size));
    EXPECT_EQ(joined(*wire, super, frame), payload);
    EXPECT_TRUE(wire->receive().empty());
  }
  expect_nothing(*wire);
}

TEST_F(WireTest, OverflowIsCounted) {
  const auto wire = open();
  const Raw peer{far_, "p0"};
  constexpr std::uint64_t kFrames = 40000;
  for (std::uint64_t i = 0; i < kFrames; ++i) peer.send(ethernet(kForeign, kPeerMac, kTestType, 1000));
  std::uint64_t received = 0;
  while (!wire->receive().empty()) ++received;
  const std::uint64_t lost = wire->lost();
  EXPECT_GT(received, 1000u);
  EXPECT_GT(lost, 0u);
  EXPECT_EQ(received + lost, kFrames);
  expect_nothing(*wire);
}

TEST_F(WireTest, CarrierAndDown) {
  const auto wire = open();
  const Frame frame = ethernet(kPeerMac, kForeign, kTestType, 100);
  far_.sh("ip link set p0 down");
  EXPECT_FALSE(wire->carrier());
  far_.sh("ip link set p0 up");
  EXPECT_TRUE(wire->carrier());
  near_.sh("ip link set w0 down");
  EXPECT_FALSE(wire->carrier());
  EXPECT_EQ(wire->send(frame), Sent::down);
  expect_nothing(*wire);
  near_.sh("ip link set w0 up; ip link set w0 down; ip link set w0 up");
  EXPECT_EQ(wire->send(frame), Sent::yes);
  Raw{far_, "p0"}.send(frame);
  expect_next(*wire, frame);
  near_.sh("ip link del w0");
  EXPECT_FALSE(wire->carrier());
  EXPECT_EQ(wire->send(frame), Sent::down);
  expect_nothing(*wire);
}

void expect_failure(int error, const std::string& netdev, const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << netdev;
  } catch (const std::system_error& failure) {
    EXPECT_EQ(failure.code().value(), error) << failure.what();
    EXPECT_NE(std::string{failure.what()}.find("'" + netdev + "'"), std::string::npos) << failure.what();
  }
}

TEST_F(WireTest, FailuresNameTheNetdev) {
  near_.in([] {
    expect_failure(ENODEV, "none0", [] { (void)open_wire("none0"); });
    expect_failure(ENAMETOOLONG, "sixteen-letters-", [] { (void)open_wire("sixteen-letters-"); });
    expect_failure(EBUSY, "w0", [] { (void)open_kernel_netdev("w0", kForeign, kMtu); });
    expect_failure(EADDRNOTAVAIL, "t0", [] { (void)open_kernel_netdev("t0", Mac{1}, kMtu); });
    expect_failure(EINVAL, "t0", [] { (void)open_kernel_netdev("t0", kForeign, 1u << 20); });
    EXPECT_EQ(::if_nametoindex("t0"), 0u);
    const auto tap = open_kernel_netdev("t0", kForeign, kMtu);
    expect_failure(EBUSY, "t0", [] { (void)open_kernel_netdev("t0", kForeign, kMtu); });
  });
}

class KernelNetdevTest : public WireTest {
 protected:
  [[nodiscard]] std::unique_ptr<FrameEnd> open_tap(unsigned mtu = kMtu) const {
    return host_.in([&] { return open_kernel_netdev("t0", kForeign, mtu); });
  }
  Namespace host_;
};

TEST_F(KernelNetdevTest, IsAsAskedAndGoesWithItsObject) {
  auto tap = open_tap(9000);
  EXPECT_TRUE(tap->carrier());
  host_.sh("ip -o link show t0 | grep -q '[<,]UP.* mtu 9000 .*02:5a:00:00:00:77'");
  host_.sh("ip link set t0 down");
  EXPECT_FALSE(tap->carrier());
  EXPECT_EQ(tap->send(ethernet(kForeign, kPeerMac, kTestType, 100)), Sent::down);
  tap.reset();
  EXPECT_EQ(host_.in([] { return ::if_nametoindex("t0"); }), 0u);
}

TEST_F(KernelNetdevTest, CarriesFramesBothWaysWithTags) {
  const auto tap = open_tap();
  const Raw stack{host_, "t0", kTestType};
  EXPECT_FALSE(readable(tap->fd()));
  for (std::size_t payload : {0u, 46u, 1500u}) {
    const Frame frame = ethernet(kPeerMac, kForeign, kTestType, payload);
    stack.send(frame);
    expect_next(*tap, frame);
    EXPECT_EQ(tap->send(frame), Sent::yes);
    EXPECT_EQ(stack.receive(), frame);
  }
  for (std::uint16_t tpid : kTpids) {
    const Frame frame = tagged(ethernet(kPeerMac, kForeign, kTestType, 1400), tpid, 0x2003);
    stack.send(frame);
    expect_next(*tap, frame);
  }
  EXPECT_EQ(tap->send(Frame(13)), Sent::full);
  expect_nothing(*tap);
}

TEST_F(KernelNetdevTest, CountsWhatIsLost) {
  const auto tap = open_tap(20000);
  host_.sh("ip link set t0 txqueuelen 100");
  const Raw stack{host_, "t0", kTestType};
  const Frame longest = ethernet(kPeerMac, kForeign, kTestType, kMostFrameBytes - 14);
  stack.send(ethernet(kPeerMac, kForeign, kTestType, kMostFrameBytes - 13));
  stack.send(longest);
  expect_next(*tap, longest);
  EXPECT_EQ(tap->lost(), 1u);
  constexpr std::uint64_t kFrames = 3000;
  const Frame frame = ethernet(kPeerMac, kForeign, kTestType, 100);
  std::uint64_t received = 0;
  for (std::uint64_t i = 0; i < kFrames; ++i) stack.send(frame);
  while (!tap->receive().empty()) ++received;
  const std::uint64_t lost = tap->lost();
  EXPECT_GT(lost, 0u);
  EXPECT_EQ(received + lost, kFrames);
  expect_nothing(*tap);
}

std::uint8_t content(std::size_t at) { return static_cast<std::uint8_t>((at * 2654435761u) >> 13); }

/// One direction of a TCP connection; both sockets do not block.
class Transfer {
 public:
  static constexpr std::size_t kBytes = 6 << 20;

  bool pump(int from, int to) {
    const std::size_t before = sent_ + received_;
    std::array<std::uint8_t, 65536> block;
    const std::size_t most = std::min(block.size(), kBytes - sent_);
    for (std::size_t i = 0; i < most; ++i) block[i] = content(sent_ + i);
    if (const ssize_t done = ::send(from, block.data(), most, MSG_DONTWAIT | MSG_NOSIGNAL); done > 0)
      sent_ += static_cast<std::size_t>(done);
    if (const ssize_t got = ::recv(to, block.data(), block.size(), MSG_DONTWAIT); got > 0) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) wrong_ += block[i] != content(received_ + i);
      received_ += static_cast<std::size_t>(got);
    }
    return sent_ + received_ != before;
  }
  [[nodiscard]] bool done() const { return received_ == kBytes && wrong_ == 0; }

 private:
  std::size_t sent_ = 0, received_ = 0, wrong_ = 0;
};

/// The far stack's p0 - w0, the wire | this shuttle | TAP t0 of the host's stack.
struct Shuttle {
  FrameEnd& wire;
  FrameEnd& tap;
  std::size_t tcp_frames = 0, bad = 0, longest = 0;

  bool move() { return move(wire, tap) + move(tap, wire) != 0; }
  void wait() const {
    pollfd both[] = {{wire.fd(), POLLIN, 0}, {tap.fd(), POLLIN, 0}};
    ::poll(both, 2, 5);
  }
  std::size_t move(FrameEnd& from, FrameEnd& to) {
    for (std::size_t moved = 0; moved < 64; ++moved) {
      const Bytes frame = from.receive();
      if (frame.empty()) return moved;
      const Headers headers = parse(frame);
      const ChecksumResult result = verify(frame, headers);
      tcp_frames += headers.tcp() ? 1 : 0;
      bad += headers.ipv4 && !(result.l3_ok && result.l4_ok) ? 1 : 0;
      longest = std::max(longest, frame.size());
      (void)to.send(frame);  // what does not fit is sent again by TCP
    }
    return 64;
  }
};

int tcp_socket(const Namespace& where) {
  return where.in([] { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); });
}

TEST_F(KernelNetdevTest, TwoKernelStacksTalkThroughWireAndTap) {
  const auto wire = open();
  const auto tap = open_tap();
  far_.sh("ip addr add 198.18.0.1/24 dev p0");
  host_.sh("ip addr add 198.18.0.2/24 dev t0");
  const Raw witness{near_, "w0"};  // of the super-frames that the peer's offloads make
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(5201);
  ::inet_pton(AF_INET, "198.18.0.1", &address.sin_addr);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  const Owned listener{tcp_socket(far_)}, client{tcp_socket(host_)};
  must(::bind(listener.get(), name, sizeof(address)), "bind");
  must(::listen(listener.get(), 1), "listen");
  ASSERT_TRUE(::connect(client.get(), name, sizeof(address)) == -1 && errno == EINPROGRESS);
  Shuttle shuttle{*wire, *tap};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
  const auto in_time = [&] { return std::chrono::steady_clock::now() < deadline; };
  while (!readable(listener.get()) && in_time())
    if (!shuttle.move()) shuttle.wait();
  const Owned server{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  Transfer up, down;
  std::size_t longest_seen = 0;
  while (!(up.done() && down.done()) && in_time()) {
    bool busy = up.pump(client.get(), server.get());
    busy |= down.pump(server.get(), client.get());
    busy |= shuttle.move();
    longest_seen = std::max(longest_seen, witness.receive().size());
    if (!busy) shuttle.wait();
  }
  EXPECT_TRUE(up.done() && down.done());
  EXPECT_GT(shuttle.tcp_frames, 2 * Transfer::kBytes / kMtu);
  EXPECT_EQ(shuttle.bad, 0u);
  EXPECT_EQ(shuttle.longest, 14 + kMtu);
  EXPECT_GT(longest_seen, 2 * kMtu) << "the peer's offloads are off: nothing was cut";
  EXPECT_EQ(wire->lost(), 0u);
}

}  // namespace
}  // namespace softnic
