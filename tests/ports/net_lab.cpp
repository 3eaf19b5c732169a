#include "tests/ports/net_lab.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include "ports/af_packet/vnet_header.h"
#include "tests/ports/test_frames.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

constexpr std::size_t kAddressBytes = 12;

template <class T>
void set(const Fd& socket, int level, int option, const T& value) {
  if (::setsockopt(socket.get(), level, option, &value, sizeof(value)) != 0)
    throw_errno("setsockopt", "a test's socket");
}

}  // namespace

void enter_new_namespace() {
  if (::unshare(CLONE_NEWNET) != 0) throw_errno("unshare", "the network namespace", "tests of real ports run as root");
  // Neighbour discovery would mix with what a test sends.
  shell("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set lo up");
}

Namespace::Namespace() {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      enter_new_namespace();
      fd_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
  if (!fd_.valid()) throw_errno("open", "a network namespace");
}

void Namespace::run(const std::function<void()>& body) const {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      if (::setns(fd_.get(), CLONE_NEWNET) != 0) throw_errno("enter", "a network namespace");
      body();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

std::string Namespace::path() const {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
}

void shell(const std::string& command) {
  if (const int status = std::system(command.c_str()); status != 0) throw Error(0, "run", command);
}

std::string output_of(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw_errno("run", command);
  std::string text;
  std::array<char, 4096> piece;
  while (const std::size_t got = std::fread(piece.data(), 1, piece.size(), pipe)) text.append(piece.data(), got);
  if (::pclose(pipe) != 0) throw Error(0, "run", command);
  return text;
}

void wait_for_link(const std::string& netdev) {
  shell("timeout 10 sh -c 'until ip -o link show " + netdev + " | grep -q \"state UP\"; do sleep 0.01; done'");
}

RawSocket::RawSocket(const std::string& netdev)
    : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), buffer_(kMaxFrameBytes) {
  if (!fd_.valid()) throw_errno("open", "a packet socket", "tests of real ports run as root");
  set(fd_, SOL_PACKET, PACKET_VNET_HDR, 1);
  set(fd_, SOL_PACKET, PACKET_AUXDATA, 1);
  set(fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  set(fd_, SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20);
  set(fd_, SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(netdev.c_str()));
  if (address.sll_ifindex == 0) throw_errno("find netdev", netdev);
  if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw_errno("bind to netdev", netdev);
  }
}

bool RawSocket::send(const TestFrame& frame) {
  af_packet::VnetHeader header;
  header.flags = frame.offload.flags;
  header.gso_type = frame.offload.gso_type;
  header.gso_size = frame.offload.gso_size;
  header.csum_start = frame.offload.csum_start;
  header.csum_offset = frame.offload.csum_offset;
  std::vector<std::byte> bytes = frame.bytes;
  if (frame.vlan != 0) {
    const std::array<std::uint16_t, 2> tag{htons(ETH_P_8021Q), htons(frame.vlan)};
    const auto* at = reinterpret_cast<const std::byte*>(tag.data());
    bytes.insert(bytes.begin() + kAddressBytes, at, at + sizeof(tag));
    if (frame.offload.needs_checksum()) header.csum_start = static_cast<std::uint16_t>(header.csum_start + sizeof(tag));
  }
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {bytes.data(), bytes.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  return ::sendmsg(fd_.get(), &message, 0) >= 0;
}

std::vector<TestFrame> RawSocket::read(int timeout_ms) {
  std::vector<TestFrame> frames;
  pollfd waiting{fd_.get(), POLLIN, 0};
  ::poll(&waiting, 1, timeout_ms);
  for (;;) {
    af_packet::VnetHeader header;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control;
    std::array<iovec, 2> parts{{{&header, sizeof(header)}, {buffer_.data(), buffer_.size()}}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT);
    if (got < 0) return frames;
    if (std::memcmp(buffer_.data() + kFrom.bytes.size(), kFrom.bytes.data(), kFrom.bytes.size()) != 0) continue;
    TestFrame frame;
    frame.bytes.assign(buffer_.begin(), buffer_.begin() + (got - static_cast<ssize_t>(sizeof(header))));
    frame.offload = af_packet::to_offload(header);
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_PACKET || part->cmsg_type != PACKET_AUXDATA) continue;
      tpacket_auxdata data;
      std::memcpy(&data, CMSG_DATA(part), sizeof(data));
      if ((data.tp_status & TP_STATUS_VLAN_VALID) != 0) frame.vlan = data.tp_vlan_tci;
    }
    frames.push_back(std::move(frame));
  }
}

}  // namespace vswitch::test
