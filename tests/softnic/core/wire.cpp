#include "tests/softnic/core/wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "tests/softnic/core/offload.h"

namespace softnic {
namespace {

constexpr std::size_t kAddresses = 12;
constexpr std::size_t kTagBytes = 4;
constexpr std::size_t kMostSuperBytes = 66560;  ///< 64 KiB of IP datagram, Ethernet header and tags
constexpr int kReceiveBufferBytes = 4 << 20;    ///< the kernel doubles it
constexpr int kSendTries = 4;
constexpr int kReceiveTries = 64;  ///< frames that may turn out useless before one receive() gives up

/// struct virtio_net_hdr in the host's byte order (packet(7)); <linux/virtio_net.h> is no C++.
struct VnetHeader {
  std::uint8_t flags;
  std::uint8_t gso_type;
  std::uint16_t header_bytes;
  std::uint16_t gso_size;
  std::uint16_t csum_start;
  std::uint16_t csum_offset;
};
static_assert(sizeof(VnetHeader) == 10);
constexpr std::uint8_t kNeedsChecksum = 1;
constexpr std::uint8_t kGsoNone = 0, kGsoTcpV4 = 1, kGsoTcpV6 = 4, kGsoUdpL4 = 5, kGsoEcn = 0x80;

class Fd {
 public:
  explicit Fd(int fd) noexcept : fd_{fd} {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

/// @return `result` of a system call. @throws std::system_error if it failed.
int checked(int result, const std::string& netdev, const char* step) {
  if (result >= 0) return result;
  throw std::system_error(errno, std::generic_category(), "softnic: netdev '" + netdev + "': " + step);
}

ifreq request_for(const std::string& netdev) {
  ifreq request{};
  const bool fits = !netdev.empty() && netdev.size() < sizeof(request.ifr_name);
  errno = netdev.empty() ? EINVAL : ENAMETOOLONG;
  checked(fits ? 0 : -1, netdev, "name");
  std::copy(netdev.begin(), netdev.end(), request.ifr_name);
  return request;
}

template <class T>
void set_option(const Fd& socket, int option, const T& value, const std::string& netdev, const char* step) {
  checked(::setsockopt(socket.get(), SOL_PACKET, option, &value, sizeof(value)), netdev, step);
}

/// ETHTOOL_GLINK rather than IFF_RUNNING, which the kernel lets lag behind by up to a second (linkwatch).
bool has_link(const Fd& socket, ifreq request) noexcept {
  ethtool_value link{};
  link.cmd = ETHTOOL_GLINK;
  request.ifr_data = reinterpret_cast<char*>(&link);
  return ::ioctl(socket.get(), SIOCETHTOOL, &request) == 0 && link.data != 0;
}

/// Cuts one UDP super-frame (UDP_SEGMENT of udp(7)) into datagrams; the sister of Segmenter.
class Datagrams {
 public:
  Datagrams(Bytes header, Bytes payload, std::size_t size) noexcept : header_{header}, payload_{payload}, size_{size} {}

  [[nodiscard]] std::size_t next(std::span<std::uint8_t> out) noexcept {
    const Bytes piece = payload_.subspan(done_, std::min(size_, payload_.size() - done_));
    const std::size_t length = header_.size() + piece.size();
    if (piece.empty() || length > out.size()) return 0;
    std::copy(header_.begin(), header_.end(), out.begin());
    std::copy(piece.begin(), piece.end(), out.begin() + static_cast<std::ptrdiff_t>(header_.size()));
    finish(out.first(length));
    done_ += piece.size();
    ++index_;
    return length;
  }

 private:
  void finish(std::span<std::uint8_t> frame) const noexcept {
    const Headers old = parse(frame);  // its lengths are still those of the super-frame; the offsets are right
    std::uint8_t* const ip = &frame[old.l3];
    const std::size_t ip_bytes = frame.size() - old.l3;
    if (old.ipv4) {
      store_be16(ip + 2, static_cast<std::uint16_t>(ip_bytes));
      store_be16(ip + 4, static_cast<std::uint16_t>(load_be16(ip + 4) + index_));
    } else {
      store_be16(ip + 4, static_cast<std::uint16_t>(ip_bytes - 40));
    }
    store_be16(&frame[old.l4 + 4u], static_cast<std::uint16_t>(frame.size() - old.l4));
    const Headers headers = parse(frame);
    insert_l3_checksum(frame, headers);
    insert_l4_checksum(frame, headers);
  }

  Bytes header_;
  Bytes payload_;
  std::size_t size_;
  std::size_t done_ = 0;
  std::uint16_t index_ = 0;
};

/// As Headers::l3_end, but right for frames of more than 65535 bytes too.
std::size_t datagram_end(Bytes frame, const Headers& headers) noexcept {
  const std::size_t at = headers.l3;
  const std::size_t bytes = headers.ipv4 ? load_be16(&frame[at + 2]) : 40u + load_be16(&frame[at + 4]);
  return std::min(at + bytes, frame.size());
}

/// Does what the sender's kernel left to the NIC (CHECKSUM_PARTIAL). @return false if the place is outside the frame.
bool finish_checksum(std::span<std::uint8_t> frame, const VnetHeader& vnet) noexcept {
  const std::size_t field = std::size_t{vnet.csum_start} + vnet.csum_offset;
  if (field + 2 > frame.size()) return false;
  const std::uint16_t checksum = fold(sum_words(frame.subspan(vnet.csum_start)));
  store_be16(&frame[field], checksum == 0 ? 0xffff : checksum);  // RFC 768; the same value for all other protocols
  return true;
}

struct Tag {
  bool present = false;
  std::uint16_t tpid = ETH_P_8021Q;
  std::uint16_t tci = 0;
  [[nodiscard]] std::size_t bytes() const noexcept { return present ? kTagBytes : 0; }
};

/// The outermost tag, which the kernel took out of the frame (PACKET_AUXDATA of packet(7)).
Tag tag_of(msghdr& message) noexcept {
  for (cmsghdr* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level != SOL_PACKET || at->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata aux;
    std::memcpy(&aux, CMSG_DATA(at), sizeof(aux));
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) return {};
    const bool typed = (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    return {true, typed ? aux.tp_vlan_tpid : std::uint16_t{ETH_P_8021Q}, aux.tp_vlan_tci};
  }
  return {};
}

/// Frames that the kernel refuses for what they are (EMSGSIZE, EINVAL) are Sent::full as well: see send().
Sent verdict_of_errno() noexcept {
  const bool gone = errno == ENETDOWN || errno == ENXIO || errno == ENODEV || errno == EIO || errno == EBADFD;
  return gone ? Sent::down : Sent::full;
}

class Wire final : public FrameEnd {
 public:
  explicit Wire(const std::string& netdev)
      : netdev_{request_for(netdev)},
        // Protocol 0: deaf until it is bound, so that no frame of another netdev gets in.
        socket_{checked(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), netdev, "packet socket")},
        pending_{checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), netdev, "eventfd")},
        readable_{checked(::epoll_create1(EPOLL_CLOEXEC), netdev, "epoll")},
        super_(kMostSuperBytes),
        out_(kMostFrameBytes) {
    ifreq request = netdev_;
    checked(::ioctl(socket_.get(), SIOCGIFINDEX, &request), netdev, "find");
    set_option(socket_, PACKET_IGNORE_OUTGOING, 1, netdev, "PACKET_IGNORE_OUTGOING");
    set_option(socket_, PACKET_AUXDATA, 1, netdev, "PACKET_AUXDATA");
    set_option(socket_, PACKET_VNET_HDR, 1, netdev, "PACKET_VNET_HDR");
    enlarge_buffer();
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = request.ifr_ifindex;
    checked(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), netdev, "bind");
    packet_mreq membership{};
    membership.mr_ifindex = request.ifr_ifindex;
    membership.mr_type = PACKET_MR_PROMISC;
    set_option(socket_, PACKET_ADD_MEMBERSHIP, membership, netdev, "promiscuous mode");
    epoll_event event{};
    event.events = EPOLLIN;
    for (const Fd* source : {&socket_, &pending_})
      checked(::epoll_ctl(readable_.get(), EPOLL_CTL_ADD, source->get(), &event), netdev, "epoll_ctl");
  }

  /// An epoll: of the socket, and of an eventfd while a super-frame is not used up, which the socket cannot know.
  [[nodiscard]] int fd() const noexcept override { return readable_.get(); }

  [[nodiscard]] Bytes receive() override {
    for (int i = 0; i < kReceiveTries; ++i) {
      if (const Bytes segment = next_segment(); !segment.empty()) return segment;
      VnetHeader vnet{};
      const ssize_t got = read_frame(vnet);
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {};
      if (got < 0) {  // EINVAL: a super-frame of a kind that struct virtio_net_hdr cannot say; ENETDOWN: no frame
        lost_ += errno == EINVAL ? 1 : 0;
        continue;
      }
      if (const Bytes frame = judge(static_cast<std::size_t>(got), vnet); !frame.empty()) return frame;
    }
    return {};
  }

  /// What the kernel refuses is Sent::full, now and whenever it is tried again: frames below 14 bytes, and those that
  /// are longer than the MTU + 14, or + 18 where the tag is 802.1Q (not 802.1ad: the kernel grants it no extra bytes).
  [[nodiscard]] Sent send(Bytes frame) override {
    VnetHeader vnet{};
    iovec parts[] = {{&vnet, sizeof(vnet)}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    for (int i = 0; i < kSendTries; ++i) {
      if (::sendmsg(socket_.get(), &message, MSG_DONTWAIT) >= 0) return Sent::yes;
      // ENETDOWN may be the report of a time that is over (SO_ERROR of packet(7)): the next try tells.
      if (errno != ENOBUFS && errno != ENETDOWN && errno != EINTR) break;
    }
    return verdict_of_errno();
  }

  [[nodiscard]] std::uint64_t lost() noexcept override {
    tpacket_stats stats{};  // reading resets them
    socklen_t size = sizeof(stats);
    if (::getsockopt(socket_.get(), SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0) lost_ += stats.tp_drops;
    return std::exchange(lost_, 0);
  }

  [[nodiscard]] bool carrier() const noexcept override { return has_link(socket_, netdev_); }

 private:
  /// As large as allowed: without CAP_NET_ADMIN it is what net.core.rmem_max says, and more is lost; no failure.
  void enlarge_buffer() noexcept {
    const int bytes = kReceiveBufferBytes;
    if (::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  }

  /// Reads into `super_` and sets `tag_`. @return bytes of the frame, which may be more than fit; -1 with errno.
  ssize_t read_frame(VnetHeader& vnet) noexcept {
    iovec parts[] = {{&vnet, sizeof(vnet)}, {super_.data(), super_.size()}};
    alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(sizeof(tpacket_auxdata))> control{};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0) return got;
    tag_ = tag_of(message);
    return std::max<ssize_t>(got - static_cast<ssize_t>(sizeof(vnet)), 0);
  }

  /// The frame in `super_`, finished; or its first segment; or nothing, and it is counted.
  Bytes judge(std::size_t length, const VnetHeader& vnet) noexcept {
    if (length >= ETH_HLEN && length <= super_.size()) {
      if (vnet.gso_type != kGsoNone) {
        if (start_cut(Bytes{super_}.first(length), vnet)) return next_segment();
      } else if (length + tag_.bytes() <= kMostFrameBytes) {
        const bool partial = (vnet.flags & kNeedsChecksum) != 0;
        if (!partial || finish_checksum(std::span{super_}.first(length), vnet)) return put_tag_back(super_, length);
      }
    }
    ++lost_;
    return {};
  }

  /// The tag is put into the segments, not here: so one in the frame below it hides no header from parse().
  bool start_cut(Bytes frame, const VnetHeader& vnet) noexcept {
    const Headers headers = parse(frame);
    if (headers.l4 == 0 || vnet.gso_size == 0) return false;
    const std::size_t end = datagram_end(frame, headers);
    if (end <= headers.payload) return false;
    const Bytes header = frame.first(headers.payload);
    const Bytes payload = frame.subspan(header.size(), end - header.size());
    if (header.size() + std::min<std::size_t>(vnet.gso_size, payload.size()) + tag_.bytes() > kMostFrameBytes)
      return false;
    const int type = vnet.gso_type & ~kGsoEcn;
    if ((type == kGsoTcpV4 || type == kGsoTcpV6) && headers.tcp()) {
      const Segmenter segmenter{header, payload, vnet.gso_size};
      if (!segmenter.valid()) return false;
      cut_ = segmenter;
    } else if (type == kGsoUdpL4 && headers.udp()) {
      cut_ = Datagrams{header, payload, vnet.gso_size};
    } else {
      return false;
    }
    ::eventfd_write(pending_.get(), 1);
    return true;
  }

  Bytes next_segment() noexcept {
    std::size_t length = 0;
    const auto room = std::span{out_}.first(out_.size() - tag_.bytes());
    if (auto* segmenter = std::get_if<Segmenter>(&cut_))
      length = segmenter->next(room);
    else if (auto* datagrams = std::get_if<Datagrams>(&cut_))
      length = datagrams->next(room);
    else
      return {};
    if (length != 0) return put_tag_back(out_, length);
    cut_ = std::monostate{};
    eventfd_t ignored = 0;
    ::eventfd_read(pending_.get(), &ignored);
    return {};
  }

  Bytes put_tag_back(std::span<std::uint8_t> buffer, std::size_t length) const noexcept {
    if (!tag_.present) return buffer.first(length);
    length = insert_vlan(buffer, length, tag_.tci);
    store_be16(&buffer[kAddresses], tag_.tpid);
    return buffer.first(length);
  }

  ifreq netdev_;
  Fd socket_;
  Fd pending_;
  Fd readable_;
  std::vector<std::uint8_t> super_;  ///< what the socket gave
  std::vector<std::uint8_t> out_;    ///< a segment of it
  std::variant<std::monostate, Segmenter, Datagrams> cut_;
  Tag tag_;
  std::uint64_t lost_ = 0;
};

/// Netlink instead of /sys or /proc: a socket stays in the namespace of its netdev, whatever the thread does.
class DropCounter {
 public:
  explicit DropCounter(const std::string& netdev)
      : socket_{checked(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), netdev, "netlink socket")} {}

  void watch(int ifindex) noexcept { ifindex_ = ifindex; }

  /// Frames that the stack could not give to the TAP since the last call. The kernel answers before send() returns.
  [[nodiscard]] std::uint64_t take() noexcept {
    struct {
      nlmsghdr header;
      if_stats_msg body;
    } request{};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = RTM_GETSTATS;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.body.ifindex = static_cast<std::uint32_t>(ifindex_);
    request.body.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64);
    if (::send(socket_.get(), &request, sizeof(request), 0) < 0) return 0;
    struct {
      nlmsghdr header;
      if_stats_msg body;
      std::array<std::uint8_t, 1024> attributes;
    } reply{};
    const ssize_t got = ::recv(socket_.get(), &reply, sizeof(reply), MSG_DONTWAIT);
    const std::size_t head = offsetof(decltype(reply), attributes);
    if (got < static_cast<ssize_t>(head) || reply.header.nlmsg_type != RTM_NEWSTATS) return 0;
    return take_from(Bytes{reply.attributes}.first(static_cast<std::size_t>(got) - head));
  }

 private:
  std::uint64_t take_from(Bytes attributes) noexcept {
    constexpr std::size_t kDropped = offsetof(rtnl_link_stats64, tx_dropped);
    nlattr attribute{};
    while (attributes.size() >= sizeof(attribute) + kDropped + sizeof(std::uint64_t)) {
      std::memcpy(&attribute, attributes.data(), sizeof(attribute));
      if (attribute.nla_type == IFLA_STATS_LINK_64) {
        std::uint64_t now = 0;
        std::memcpy(&now, &attributes[sizeof(attribute) + kDropped], sizeof(now));
        return now - std::exchange(seen_, now);
      }
      const std::size_t step = NLA_ALIGN(std::max<std::size_t>(attribute.nla_len, sizeof(attribute)));
      attributes = attributes.subspan(std::min(step, attributes.size()));
    }
    return 0;
  }

  Fd socket_;
  int ifindex_ = 0;
  std::uint64_t seen_ = 0;
};

class KernelNetdev final : public FrameEnd {
 public:
  KernelNetdev(const std::string& netdev, std::span<const std::uint8_t, 6> mac, unsigned mtu)
      : netdev_{request_for(netdev)},
        control_{checked(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), netdev, "control socket")},
        drops_{netdev},
        tap_{checked(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), netdev, "open /dev/net/tun")},
        frame_(kMostFrameBytes + 1) {
    ifreq request = netdev_;
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL);
    checked(::ioctl(tap_.get(), TUNSETIFF, &request), netdev, "create TAP");
    request = netdev_;
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(request.ifr_hwaddr.sa_data, mac.data(), mac.size());
    checked(::ioctl(control_.get(), SIOCSIFHWADDR, &request), netdev, "set MAC address");
    request = netdev_;
    request.ifr_mtu = static_cast<int>(mtu);
    checked(::ioctl(control_.get(), SIOCSIFMTU, &request), netdev, "set MTU");
    request = netdev_;
    checked(::ioctl(control_.get(), SIOCGIFINDEX, &request), netdev, "find");
    drops_.watch(request.ifr_ifindex);
    request = netdev_;
    checked(::ioctl(control_.get(), SIOCGIFFLAGS, &request), netdev, "get flags");
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    checked(::ioctl(control_.get(), SIOCSIFFLAGS, &request), netdev, "set up");
  }

  [[nodiscard]] int fd() const noexcept override { return tap_.get(); }

  [[nodiscard]] Bytes receive() override {
    for (int i = 0; i < kReceiveTries; ++i) {
      const ssize_t got = ::read(tap_.get(), frame_.data(), frame_.size());
      if (got <= 0) return {};
      const auto length = static_cast<std::size_t>(got);
      if (length <= kMostFrameBytes) return Bytes{frame_}.first(length);
      ++lost_;  // it filled the byte that is there for this only
    }
    return {};
  }

  /// What the kernel refuses (frames below 14 bytes) is Sent::full, now and whenever it is tried again.
  [[nodiscard]] Sent send(Bytes frame) override {
    for (int i = 0; i < kSendTries; ++i) {
      if (::write(tap_.get(), frame.data(), frame.size()) >= 0) return Sent::yes;
      if (errno != ENOBUFS && errno != EINTR) break;
    }
    return verdict_of_errno();
  }

  [[nodiscard]] std::uint64_t lost() noexcept override { return std::exchange(lost_, 0) + drops_.take(); }

  [[nodiscard]] bool carrier() const noexcept override { return has_link(control_, netdev_); }

 private:
  ifreq netdev_;
  Fd control_;
  DropCounter drops_;
  Fd tap_;
  std::vector<std::uint8_t> frame_;
  std::uint64_t lost_ = 0;
};

}  // namespace

std::unique_ptr<FrameEnd> open_wire(const std::string& name) { return std::make_unique<Wire>(name); }

std::unique_ptr<FrameEnd> open_kernel_netdev(const std::string& name, std::span<const std::uint8_t, 6> mac,
                                             unsigned mtu) {
  return std::make_unique<KernelNetdev>(name, mac, mtu);
}

}  // namespace softnic
