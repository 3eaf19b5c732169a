#include "ports/af_packet/packet_socket.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "ports/af_packet/vnet_header.h"
#include "vswitch/base/error.h"
#include "vswitch/net/offload.h"

namespace vswitch::af_packet {
namespace {

/// Frames too long for the ring wait in the socket's queue: about 200 GSO frames.
constexpr int kReceiveBytes = 16 << 20;
/// What may wait in the netdev's queues for us; beyond it we refuse (dest_full). About 16 ms at 1 Gbit/s.
constexpr int kSendBytes = 2 << 20;
constexpr int kFanoutIgnoreOutgoing = 0x4000;  // PACKET_FANOUT_FLAG_IGNORE_OUTGOING, Linux 6.2; ignored before

template <class T>
bool set(const Fd& socket, int level, int option, const T& value) noexcept {
  return ::setsockopt(socket.get(), level, option, &value, sizeof(value)) == 0;
}

sockaddr_ll address_of(int netdev_index, std::uint16_t protocol) noexcept {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = netdev_index;
  return address;
}

/// The limit of the system binds only who lacks CAP_NET_ADMIN; then as much as it allows.
void size_buffer(const Fd& socket, int forced, int plain, int bytes) noexcept {
  if (!set(socket, SOL_SOCKET, forced, bytes)) set(socket, SOL_SOCKET, plain, bytes);
}

}  // namespace

Fd open_packet_socket(const std::string& netdev) {
  Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    throw_errno("open a packet socket for netdev", netdev,
                errno == EPERM ? "vswitchd needs the capability CAP_NET_RAW: run it as root or by its systemd unit"
                : errno == EAFNOSUPPORT ? "this kernel has no packet sockets (CONFIG_PACKET)"
                                        : "");
  }
  const std::array<sock_filter, 1> nothing{{{BPF_RET | BPF_K, 0, 0, 0}}};
  attach_filter(socket, nothing);
  if (!set(socket, SOL_PACKET, PACKET_VNET_HDR, 1)) {
    throw_errno("ask for offload headers (PACKET_VNET_HDR) on netdev", netdev);
  }
  if (!set(socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)) {
    throw_errno("ignore what the host sends (PACKET_IGNORE_OUTGOING) on netdev", netdev,
                "this needs Linux 4.20 or newer");
  }
  size_buffer(socket, SO_RCVBUFFORCE, SO_RCVBUF, kReceiveBytes);
  size_buffer(socket, SO_SNDBUFFORCE, SO_SNDBUF, kSendBytes);
  return socket;
}

void bind_packet_socket(const Fd& socket, int netdev_index, const std::string& netdev) {
  const sockaddr_ll address = address_of(netdev_index, ETH_P_ALL);
  // bind(2) reports a netdev that is down, but binds all the same: frames come when it is set up.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno != ENETDOWN) {
    throw_errno("bind a packet socket to netdev", netdev, errno == ENODEV ? "it vanished just now" : "");
  }
}

void attach_filter(const Fd& socket, std::span<const sock_filter> program) {
  sock_fprog argument{};
  argument.len = static_cast<unsigned short>(program.size());
  argument.filter = const_cast<sock_filter*>(program.data());  // the kernel reads only
  if (!set(socket, SOL_SOCKET, SO_ATTACH_FILTER, argument)) {
    throw_errno("attach", "a filter of " + std::to_string(program.size()) + " instructions",
                errno == ENOMEM ? "raise the sysctl net.core.optmem_max" : "");
  }
}

void join_fanout(const Fd& socket, const std::string& netdev, std::optional<std::uint16_t>& group) {
  const int mode = PACKET_FANOUT_HASH | kFanoutIgnoreOutgoing | (group ? 0 : PACKET_FANOUT_FLAG_UNIQUEID);
  const int argument = static_cast<int>(static_cast<unsigned>(mode) << 16 | group.value_or(0));
  if (!set(socket, SOL_PACKET, PACKET_FANOUT, argument)) {
    throw_errno("share the frames between workers on netdev", netdev,
                "set the netdev up first (`ip link set " + netdev + " up`), or use one worker");
  }
  int made = 0;
  socklen_t size = sizeof(made);
  if (::getsockopt(socket.get(), SOL_PACKET, PACKET_FANOUT, &made, &size) != 0) {
    throw_errno("ask for the fanout group on netdev", netdev);
  }
  group = static_cast<std::uint16_t>(made & 0xffff);
}

bool kernel_takes_udp_gso() noexcept {
  const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  const sockaddr_ll address = address_of(static_cast<int>(::if_nametoindex("lo")), 0);
  if (!socket.valid() || address.sll_ifindex == 0 || !set(socket, SOL_PACKET, PACKET_VNET_HDR, 1)) return false;
  // Ethernet (from and to an address of nobody), IPv4 and UDP with 16 bytes to be sent in two segments to discard(9).
  std::array<std::uint8_t, 58> frame{0x02, 0, 0,   0,  0, 1,  0x02, 0, 0, 0,  0, 2, 0x08, 0x00,  // Ethernet
                                     0x45, 0, 0,   44, 0, 0,  0,    0, 1, 17, 0, 0, 127,  0,
                                     0,    1, 127, 0,  0, 1,             // IPv4
                                     0,    9, 0,   9,  0, 24, 0,    0};  // UDP
  VnetHeader header;
  header.flags = Offload::kNeedsChecksum;
  header.gso_type = Offload::kGsoUdpL4;
  header.hdr_len = 42;
  header.gso_size = 8;
  header.csum_start = 34;
  header.csum_offset = 6;
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {frame.data(), frame.size()}}};
  msghdr message{};
  message.msg_name = const_cast<sockaddr_ll*>(&address);
  message.msg_namelen = sizeof(address);
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  return ::sendmsg(socket.get(), &message, MSG_DONTWAIT) > 0;
}

}  // namespace vswitch::af_packet
