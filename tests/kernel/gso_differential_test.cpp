// Asks the running kernel to finish random GSO and NEEDS_CSUM frames and compares what it makes of them, byte by byte,
// with what the adapter makes of them.
//
//   test -- write(vnet_hdr + frame) --> tap0 -- br0 -- veth0 (tso, gso, tx-csum off) -- veth1 --> packet socket -- test
//
// Everything lives in a network namespace of this process, which ends with it. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>

#include "../unit/offload_frames.h"
#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/adapt.h"
#include "vswitch/core/copy_out.h"

namespace vswitch {
namespace {

using test::build;
using test::BuiltFrame;
using test::Bytes;
using test::FrameSpec;

/// struct virtio_net_hdr; <linux/virtio_net.h> of Linux 6.1 is no C++ (a member is called "class").
struct VnetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t hdr_len = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

void shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw Error(0, "run", command);
}

Fd open_tap(const char* name) {
  Fd tap(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!tap.valid()) throw_errno("open", "/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) throw_errno("create tap", name);
  return tap;
}

void ethtool_off(const char* name, int command) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_value value{static_cast<unsigned>(command), 0};
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&value);
  if (::ioctl(socket.get(), SIOCETHTOOL, &request) != 0) throw_errno("turn offload off", name);
}

Fd open_capture(const char* name) {
  Fd capture(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!capture.valid()) throw_errno("open packet socket", name);
  const int on = 1;
  const int bytes = 64 << 20;
  if (::setsockopt(capture.get(), SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) != 0 ||
      ::setsockopt(capture.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0 ||
      ::setsockopt(capture.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0) {
    throw_errno("set up packet socket", name);
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = __builtin_bswap16(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(name));
  if (::bind(capture.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw_errno("bind packet socket", name);
  }
  return capture;
}

/// The kernel as an oracle.
class Kernel {
 public:
  Kernel() {
    if (::unshare(CLONE_NEWNET) != 0) throw_errno("make", "a network namespace", "run as root");
    for (const char* which : {"all", "default"}) {
      std::ofstream("/proc/sys/net/ipv6/conf/" + std::string(which) + "/disable_ipv6") << 1;
    }
    tap_ = open_tap("tap0");
    shell("ip link add veth0 mtu 65535 type veth peer name veth1 mtu 65535");
    shell("ip link add br0 type bridge");
    for (const char* name : {"tap0", "veth0"}) shell(std::string("ip link set master br0 dev ") + name);
    for (const auto command : {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM, ETHTOOL_SSG}) {
      ethtool_off("veth0", command);
    }
    capture_ = open_capture("veth1");
    for (const char* name : {"veth1", "veth0", "tap0", "br0"}) shell(std::string("ip link set up dev ") + name);
  }

  /// What comes out when `frame` goes in. `expected`: frames to wait for; a short while longer for more than that.
  std::vector<Bytes> finish(const BuiltFrame& frame, std::size_t expected) {
    const VnetHeader header{.flags = frame.offload.flags,
                            .gso_type = frame.offload.gso_type,
                            .gso_size = frame.offload.gso_size,
                            .csum_start = frame.offload.csum_start,
                            .csum_offset = frame.offload.csum_offset};
    Bytes message(sizeof(header));
    std::memcpy(message.data(), &header, sizeof(header));
    message.insert(message.end(), frame.bytes.begin(), frame.bytes.end());
    if (::write(tap_.get(), message.data(), message.size()) != static_cast<ssize_t>(message.size())) {
      throw_errno("write", "tap0");
    }
    std::vector<Bytes> frames;
    constexpr int kPatience = 1000;
    pollfd readable{capture_.get(), POLLIN, 0};
    while (frames.size() < expected && ::poll(&readable, 1, kPatience) == 1) drain(frames);
    drain(frames);
    return frames;
  }

 private:
  /// All frames that are there and come from the test's sender, the tag that the kernel took out put back.
  void drain(std::vector<Bytes>& frames) {
    for (;;) {
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control{};
      iovec vector{buffer_.data(), buffer_.size()};
      msghdr message{};
      message.msg_iov = &vector;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t length = ::recvmsg(capture_.get(), &message, 0);
      if (length < 0) return;
      Bytes frame(buffer_.begin(), buffer_.begin() + length);
      tpacket_auxdata auxiliary{};
      std::memcpy(&auxiliary, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(auxiliary));
      if ((auxiliary.tp_status & TP_STATUS_VLAN_VALID) != 0) {
        Bytes tag;
        test::put16(tag, auxiliary.tp_vlan_tpid);
        test::put16(tag, auxiliary.tp_vlan_tci);
        frame.insert(frame.begin() + 12, tag.begin(), tag.end());
      }
      if (test::get32(frame, 6) == 0x02000000 && test::get16(frame, 10) == 2) frames.push_back(std::move(frame));
    }
  }

  Fd tap_;
  Fd capture_;
  Bytes buffer_ = Bytes(1 << 17);
};

/// What the adapter makes of `frame` for a queue that takes nothing unfinished; nullopt: it is refused.
std::optional<std::vector<Bytes>> adapt(const BuiltFrame& frame) {
  Bytes bytes = frame.bytes;
  Frame lent;
  std::array<std::byte, kHeaderBytes> header{};
  lent.data = bytes.data();
  lent.header = header.data();
  lent.length = static_cast<std::uint32_t>(bytes.size());
  lent.header_bytes = static_cast<std::uint16_t>(std::min(bytes.size(), kHeaderBytes));
  std::copy_n(bytes.begin(), lent.header_bytes, header.begin());
  const std::span<std::byte> copy(header.data(), lent.header_bytes);
  if (!offload_is_valid(frame.offload, copy, lent.length)) return std::nullopt;
  lent.offload = sanitize(frame.offload, copy, lent.length, OffloadOrigin::tenant);
  Adapter adapter;
  std::array<const Frame*, kMaxSegments> out{};
  std::vector<Bytes> frames;
  for (std::size_t i = 0, count = adapter.adapt(lent, OffloadCaps{}, out); i < count; ++i) {
    Bytes& segment = frames.emplace_back(copied_length(*out[i], false));
    copy_out(segment.data(), *out[i], false);
  }
  return frames;
}

std::string hex(const Bytes& bytes) {
  std::ostringstream text;
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 160); ++i) {
    text << std::hex << std::setw(2) << std::setfill('0') << std::to_integer<int>(bytes[i]) << (i % 2 == 0 ? "" : " ");
  }
  return text.str() + " (" + std::to_string(bytes.size()) + " bytes)";
}

class GsoDifferential : public testing::Test {
 protected:
  static void SetUpTestSuite() { kernel_ = std::make_unique<Kernel>(); }
  static void TearDownTestSuite() { kernel_.reset(); }

  static void compare(const BuiltFrame& frame) {
    const auto ours = adapt(frame);
    ASSERT_TRUE(ours.has_value()) << hex(frame.bytes);
    const auto theirs = kernel_->finish(frame, ours->size());
    ASSERT_EQ(ours->size(), theirs.size()) << "gso_size " << frame.offload.gso_size << ", frame " << hex(frame.bytes);
    for (std::size_t i = 0; i < ours->size(); ++i) {
      ASSERT_EQ((*ours)[i], theirs[i]) << "segment " << i << " of " << ours->size() << "\nours   " << hex((*ours)[i])
                                       << "\nkernel " << hex(theirs[i]);
    }
  }

  static inline std::unique_ptr<Kernel> kernel_;
};

/// Any frame a sender could ask to be cut or summed.
FrameSpec random_spec(std::mt19937& random) {
  const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
  FrameSpec spec;
  spec.ipv6 = below(2) != 0;
  spec.tcp = below(3) != 0;
  for (std::size_t i = below(2) * (1 + below(2)); i > 0; --i) {
    spec.tags.push_back(static_cast<std::uint16_t>(1 + below(4094) + 0x2000 * below(8)));
  }
  spec.ip_options = 4 * (below(3) == 0 ? below(11) : 0);
  spec.tcp_options = 4 * below(11);
  if (spec.ipv6 && below(2) == 0) {
    const std::array<unsigned, 3> kinds{0, 43, 60};
    const std::size_t count = 1 + below(2);
    for (std::size_t i = 0; i < count; ++i) spec.extensions.push_back(i == 0 ? kinds[below(3)] : 60);
  }
  // All headers must fit into the private copy.
  const std::size_t ip = spec.ipv6 ? 40 + 8 * spec.extensions.size() : 20 + spec.ip_options;
  spec.tcp_options = std::min<std::size_t>(spec.tcp_options, (kHeaderBytes - 22 - ip - 20) / 4 * 4);
  spec.flags = static_cast<unsigned>(below(0x200));
  spec.sequence = random();
  spec.id = below(0x10000);
  spec.seed = static_cast<unsigned>(below(251));
  spec.gso_size = static_cast<std::uint16_t>(1 + below(below(4) == 0 ? 30'000 : 1500));
  const std::size_t most =
      std::min<std::size_t>(below(4) == 0 ? 65'000 : 9000, spec.gso_size * std::size_t{kMaxSegments});
  spec.payload = 1 + below(most);
  // A difference on purpose: the kernel forgets TCP options when it looks whether a frame is too short to be GSO, and
  // then drops what it took for GSO. Such a frame is not GSO for the adapter; here it is avoided.
  const bool forgotten = spec.tcp && spec.payload <= spec.gso_size && spec.payload + spec.tcp_options > spec.gso_size;
  if (forgotten) spec.gso_size = static_cast<std::uint16_t>(spec.payload + spec.tcp_options);
  return spec;
}

TEST_F(GsoDifferential, GoldenFrames) {
  for (const bool ipv6 : {false, true}) {
    for (const bool tcp : {false, true}) compare(build({.ipv6 = ipv6, .tcp = tcp, .gso_size = 1400}));
  }
}

TEST_F(GsoDifferential, RandomFrames) {
  std::mt19937 random(20'26);
  for (int i = 0; i < 5000; ++i) {
    SCOPED_TRACE(i);
    compare(build(random_spec(random)));
    if (HasFatalFailure()) return;
  }
}

TEST_F(GsoDifferential, RandomFramesWithoutGso) {
  std::mt19937 random(7);
  for (int i = 0; i < 1000; ++i) {
    SCOPED_TRACE(i);
    FrameSpec spec = random_spec(random);
    spec.gso_size = 0;
    compare(build(spec));
    if (HasFatalFailure()) return;
  }
}

TEST_F(GsoDifferential, GsoWithoutNeedsChecksum) {
  std::mt19937 random(8);
  for (int i = 0; i < 300; ++i) {
    SCOPED_TRACE(i);
    FrameSpec spec = random_spec(random);
    spec.tcp = true;
    spec.extensions.clear();
    BuiltFrame frame = build(spec);
    if (spec.payload <= spec.gso_size) continue;
    frame.offload.flags = 0;
    frame.offload.csum_start = frame.offload.csum_offset = 0;
    compare(frame);
    if (HasFatalFailure()) return;
  }
}

TEST_F(GsoDifferential, ChecksumsThatComeOutAsZero) {
  for (const bool ipv6 : {false, true}) {
    for (const bool tcp : {false, true}) {
      for (const std::uint16_t gso_size : {std::uint16_t{0}, std::uint16_t{100}}) {
        BuiltFrame frame = build({.ipv6 = ipv6, .tcp = tcp, .payload = 200, .gso_size = gso_size});
        const std::size_t field = frame.l4 + frame.offload.csum_offset;
        const std::size_t first = frame.header_length;
        test::set16(frame.bytes, first, 0);
        const Bytes segment = adapt(frame)->front();
        test::set16(frame.bytes, first, test::get16(segment, field));
        const std::size_t zero = test::get16(adapt(frame)->front(), field);
        ASSERT_TRUE(zero == 0 || zero == 0xffff) << zero;
        compare(frame);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace vswitch
