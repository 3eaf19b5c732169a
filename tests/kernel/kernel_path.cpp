#include "tests/kernel/kernel_path.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "ports/af_packet/vnet_header.h"
#include "tests/ports/net_lab.h"
#include "vswitch/base/error.h"
#include "vswitch/core/frame.h"

namespace vswitch::test {
namespace {

constexpr std::size_t kAddressBytes = 12;
constexpr std::size_t kBatch = 32;  // frames received at once
constexpr std::size_t kBufferBytes = kMaxFrameBytes;
constexpr int kPatienceMs = 5000;
constexpr std::size_t kMarkerBytes = 60;
constexpr std::size_t kMarkerSerial = 14;
constexpr std::array<std::byte, 2> kMarkerType{std::byte{0x88}, std::byte{0xb6}};  // local experimental ethertype 2

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

/// The tag that the kernel took out of a received frame, as it was on the wire; empty if it took none.
std::vector<std::byte> stripped_tag(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_PACKET || part->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata data;
    std::memcpy(&data, CMSG_DATA(part), sizeof(data));
    if ((data.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
    return {static_cast<std::byte>(data.tp_vlan_tpid >> 8), static_cast<std::byte>(data.tp_vlan_tpid),
            static_cast<std::byte>(data.tp_vlan_tci >> 8), static_cast<std::byte>(data.tp_vlan_tci)};
  }
  return {};
}

}  // namespace

KernelPath::KernelPath(const Mac& sender) : sender_(sender), buffers_(kBatch * kBufferBytes) {
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &here);
  if (::sched_getaffinity(0, sizeof(cpus_before_), &cpus_before_) != 0 ||
      ::sched_setaffinity(0, sizeof(here), &here) != 0) {
    throw_errno("stay on", "one CPU");
  }
  const Namespace lab;
  lab.run([this] {
    tap_ = open_tap("tap0");
    shell(
        "ip link add veth0 mtu 65535 type veth peer name veth1 mtu 65535 && ip link add br0 type bridge"
        " && ip link set tap0 master br0 && ip link set veth0 master br0");
    for (const auto command : {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM, ETHTOOL_SSG}) ethtool_off("veth0", command);
    for (const char* name : {"veth1", "veth0", "tap0", "br0"}) shell(std::string("ip link set up dev ") + name);
    for (const char* name : {"veth0", "veth1"}) wait_for_link(name);
    capture_ = open_capture("veth1");
  });
}

KernelPath::~KernelPath() { ::sched_setaffinity(0, sizeof(cpus_before_), &cpus_before_); }

void KernelPath::put(std::span<const std::byte> frame, const Offload& offload) {
  af_packet::VnetHeader header{.flags = offload.flags,
                               .gso_type = offload.gso_type,
                               .gso_size = offload.gso_size,
                               .csum_start = offload.csum_start,
                               .csum_offset = offload.csum_offset};
  const std::array<iovec, 2> parts{{{&header, sizeof(header)}, {const_cast<std::byte*>(frame.data()), frame.size()}}};
  if (::writev(tap_.get(), parts.data(), static_cast<int>(parts.size())) < 0) throw_errno("write", "tap0");
}

std::vector<KernelPath::Bytes> KernelPath::take() {
  Bytes marker(kMarkerBytes);
  std::memcpy(marker.data() + sender_.bytes.size(), sender_.bytes.data(), sender_.bytes.size());
  marker[0] = std::byte{0x02};
  std::copy(kMarkerType.begin(), kMarkerType.end(), marker.begin() + kAddressBytes);
  ++marker_;
  std::memcpy(marker.data() + kMarkerSerial, &marker_, sizeof(marker_));
  put(marker, {});
  std::vector<Bytes> frames;
  while (frames.empty() || frames.back() != marker) {
    if (!receive(frames)) throw Error(ETIMEDOUT, "wait for", "the marker behind the last frame");
  }
  frames.pop_back();
  return frames;
}

bool KernelPath::receive(std::vector<Bytes>& frames) {
  pollfd readable{capture_.get(), POLLIN, 0};
  if (::poll(&readable, 1, kPatienceMs) != 1) return false;
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> vectors{};
  struct alignas(cmsghdr) Control {
    std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
  };
  std::array<Control, kBatch> controls;
  for (std::size_t i = 0; i < kBatch; ++i) {
    vectors[i] = {buffers_.data() + i * kBufferBytes, kBufferBytes};
    msghdr& message = messages[i].msg_hdr;
    message.msg_iov = &vectors[i];
    message.msg_iovlen = 1;
    message.msg_control = controls[i].bytes.data();
    message.msg_controllen = controls[i].bytes.size();
  }
  const int count = ::recvmmsg(capture_.get(), messages.data(), kBatch, MSG_DONTWAIT, nullptr);
  if (count < 0) throw_errno("receive from", "veth1");
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const std::byte* data = buffers_.data() + i * kBufferBytes;
    if (std::memcmp(data + sender_.bytes.size(), sender_.bytes.data(), sender_.bytes.size()) != 0) continue;
    const Bytes tag = stripped_tag(messages[i].msg_hdr);
    Bytes& frame = frames.emplace_back();
    frame.reserve(messages[i].msg_len + tag.size());
    frame.assign(data, data + kAddressBytes);
    frame.insert(frame.end(), tag.begin(), tag.end());
    frame.insert(frame.end(), data + kAddressBytes, data + messages[i].msg_len);
  }
  return true;
}

}  // namespace vswitch::test
