#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "ports/tap/tap_port.h"
#include "ports/tap/vnet_header.h"
#include "tests/ports/test_reactor.h"
#include "tests/unit/test_netns.h"
#include "vswitch/core/vlan.h"
#include "vswitch/net/wire.h"

// What tests of TAP ports share: specs, a forwarder, TCP transfers, packet sockets.

namespace vswitch::test {

inline constexpr std::uint16_t kTcpPort = 5201;

inline Mac mac_of(int n) { return {{2, 0, 0, 0, 0, static_cast<std::uint8_t>(n)}}; }

struct Workers {
  explicit Workers(std::size_t count)
      : quiescence(count), context{.reactor = reactor, .quiescence = quiescence, .workers = count, .scratch = {}} {
    context.changed = [this] { ++changes; };
    for (std::size_t w = 0; w < count; ++w) context.scratch.push_back(Mapping::anonymous(kScratchBytes));
  }
  TestReactor reactor;
  Quiescence quiescence;
  PortContext context;
  int changes = 0;
};

inline PortSpec spec_of(const TestNetns& netns, int n) {
  PortSpec spec;
  spec.tenant = "tenant" + std::to_string(n);
  spec.name = "web";
  spec.mac = mac_of(n);
  spec.mtu = 1500;
  spec.ips = {IpPrefix::parse("198.18.0." + std::to_string(n) + "/24").value(),
              IpPrefix::parse("fd00:5::" + std::to_string(n) + "/64").value()};
  spec.attach = TapAttachSpec{.netns = netns.path(), .name = "t0", .routes = {}};
  return spec;
}
inline TapAttachSpec& tap_of(PortSpec& spec) { return std::get<TapAttachSpec>(spec.attach); }

/// What a forwarder saw pass.
struct Passed {
  std::atomic<std::size_t> gso{0}, udp_gso{0}, partial{0}, refused{0};
  std::array<std::atomic<std::size_t>, 2> by_worker{};  ///< frames
};

/// Moves frames between the queues of two ports, one thread a worker (at most two), until it is destroyed.
class Forwarder {
 public:
  Forwarder(Port& a, Port& b, std::size_t workers) {
    for (std::size_t w = 0; w < workers; ++w)
      threads_.emplace_back([this, &a, &b, w] { run(a.queue(w), b.queue(w), passed.by_worker[w]); });
  }
  ~Forwarder() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  Passed passed;

 private:
  void run(Queue& a, Queue& b, std::atomic<std::size_t>& frames) {
    Burst burst;
    while (!stop_) {
      std::array<pollfd, 2> waiting{{{a.wait_fd(), POLLIN, 0}, {b.wait_fd(), POLLIN, 0}}};
      ::poll(waiting.data(), waiting.size(), 5);
      while (const std::size_t moved = move(a, b, burst) + move(b, a, burst)) frames += moved;
    }
  }
  std::size_t move(Queue& from, Queue& to, Burst& burst) {
    burst.clear();
    const std::size_t seen = from.receive(burst);
    std::array<const Frame*, kBurstFrames> frames{};
    for (std::size_t i = 0; i < burst.size(); ++i) {
      const Offload& offload = burst[i].offload;
      passed.gso += offload.gso_kind() == Offload::kGsoTcp4 || offload.gso_kind() == Offload::kGsoTcp6;
      passed.udp_gso += offload.gso_kind() == Offload::kGsoUdpL4;
      passed.partial += offload.needs_checksum();
      frames[i] = &burst[i];
    }
    const std::size_t taken = to.transmit(std::span(frames.data(), burst.size()));
    passed.refused += burst.size() - taken;
    from.release(burst);
    return seen;
  }
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

inline sockaddr_storage address_of(const std::string& text, std::uint16_t port) {
  const IpAddress ip = IpAddress::parse(text).value();
  sockaddr_storage storage{};
  if (ip.is_v6()) {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::copy_n(ip.bytes.begin(), 16, v6.sin6_addr.s6_addr);
  } else {
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, ip.bytes.data(), 4);
  }
  return storage;
}
inline sockaddr* raw(sockaddr_storage& storage) { return reinterpret_cast<sockaddr*>(&storage); }

inline void set_timeout(const Fd& fd, int seconds) {
  const timeval limit{seconds, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

/// Sends `bytes` by TCP from one namespace to `to` in the other. @return bytes that arrived as sent
inline std::size_t tcp_transfer(const TestNetns& from, const TestNetns& at, const std::string& to, std::size_t bytes) {
  sockaddr_storage address = address_of(to, kTcpPort);
  const Fd listener = at.socket(address.ss_family, SOCK_STREAM);
  const int on = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(listener.get(), raw(address), sizeof(address)) != 0 || ::listen(listener.get(), 1) != 0) return 0;
  const Fd client = from.socket(address.ss_family, SOCK_STREAM);
  set_timeout(client, 20);
  std::thread sender([&] {
    if (::connect(client.get(), raw(address), sizeof(address)) != 0) return;
    std::vector<std::uint8_t> block(1 << 18);
    for (std::size_t sent = 0; sent < bytes;) {
      for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::uint8_t>((sent + i) * 31 >> 3);
      const ssize_t n = ::send(client.get(), block.data(), std::min(block.size(), bytes - sent), MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    ::shutdown(client.get(), SHUT_WR);
  });
  std::size_t good = 0;
  pollfd waiting{listener.get(), POLLIN, 0};
  if (::poll(&waiting, 1, 10'000) == 1) {
    const Fd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_timeout(server, 20);
    std::vector<std::uint8_t> block(1 << 18);
    for (ssize_t n = 0; (n = ::recv(server.get(), block.data(), block.size(), 0)) > 0;) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        if (block[i] != static_cast<std::uint8_t>(good * 31 >> 3)) n = 0;
        ++good;
      }
    }
  }
  ::shutdown(client.get(), SHUT_RDWR);
  sender.join();
  return good;
}

/// TCP and UDP checksum errors that the namespace's kernel counted.
inline std::size_t checksum_errors(const TestNetns& netns) {
  std::size_t errors = 0;
  for (const char* file : {"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"}) {
    std::istringstream lines(netns.read(file));
    std::vector<std::string> names;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::vector<std::string> row{std::istream_iterator<std::string>(words), {}};
      if (row.size() == 2 && row[0].find("InCsumErrors") != std::string::npos) errors += std::stoul(row[1]);
      for (std::size_t i = 1; i < row.size() && names.size() == row.size() && names[0] == row[0]; ++i) {
        if (names[i] == "InCsumErrors") errors += std::stoul(row[i]);
      }
      names = row;
    }
  }
  return errors;
}

/// A packet socket on t0 of a namespace, as a hostile tenant would open it, with the 10-byte virtio-net header.
class PacketSocket {
 public:
  explicit PacketSocket(const TestNetns& netns) : fd_(netns.socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL))) {
    const int on = 1;
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
    EXPECT_EQ(::setsockopt(fd_.get(), SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    netns.run([&] { address.sll_ifindex = static_cast<int>(::if_nametoindex("t0")); });
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    set_timeout(fd_, 2);
  }
  bool send(const VnetHeader& vnet, std::span<const std::byte> frame) {
    std::vector<std::byte> message(kVnetHeaderBytes + frame.size());
    store_raw(message.data(), vnet);
    std::copy(frame.begin(), frame.end(), message.begin() + kVnetHeaderBytes);
    return ::send(fd_.get(), message.data(), message.size(), 0) == static_cast<ssize_t>(message.size());
  }
  struct Received {
    VnetHeader vnet;
    std::vector<std::byte> frame;
    int vlan = -1;  ///< TCI, -1 without a tag
  };
  /// The next frame with that ethertype; an empty one after two seconds.
  Received receive(std::uint16_t ethertype) {
    std::vector<std::byte> message(70'000);
    alignas(cmsghdr) std::array<char, 256> control;
    for (;;) {
      iovec part{message.data(), message.size()};
      msghdr header{};
      header.msg_iov = &part;
      header.msg_iovlen = 1;
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      const ssize_t got = ::recvmsg(fd_.get(), &header, 0);
      if (got < static_cast<ssize_t>(kVnetHeaderBytes + kEthernetHeaderBytes)) return {};
      if (load_be16(&message[kVnetHeaderBytes + kMacPairBytes]) != ethertype) continue;
      Received result{load_raw<VnetHeader>(message.data()),
                      {message.begin() + kVnetHeaderBytes, message.begin() + got}};
      for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        const auto aux = load_raw<tpacket_auxdata>(reinterpret_cast<const std::byte*>(CMSG_DATA(c)));
        if (c->cmsg_type == PACKET_AUXDATA && (aux.tp_status & TP_STATUS_VLAN_VALID) != 0)
          result.vlan = aux.tp_vlan_tci;
      }
      return result;
    }
  }

 private:
  Fd fd_;
};

inline constexpr std::uint16_t kTestType = 0x88b5;  // IEEE 802 local experimental
/// An Ethernet frame to `to` from `from`; `type` may be several words (a tag and a type).
inline std::vector<std::byte> ethernet(const Mac& to, const Mac& from, std::initializer_list<std::uint16_t> type,
                                       std::size_t payload) {
  std::vector<std::byte> frame(kMacPairBytes + type.size() * 2 + payload);
  std::memcpy(frame.data(), to.bytes.data(), 6);
  std::memcpy(frame.data() + 6, from.bytes.data(), 6);
  std::size_t at = kMacPairBytes;
  for (const std::uint16_t word : type) store_be16(&frame[std::exchange(at, at + 2)], word);
  for (std::size_t i = 0; i < payload; ++i) frame[at + i] = static_cast<std::byte>(i * 7);
  return frame;
}

/// An IPv4 UDP frame from 198.18.0.1 to 198.18.0.2, checksum left to be computed from the given field value.
inline std::vector<std::byte> udp_frame(std::initializer_list<std::uint16_t> type, std::size_t payload) {
  std::vector<std::byte> frame = ethernet(mac_of(2), mac_of(1), type, 28 + payload);
  std::byte* ip = frame.data() + frame.size() - payload - 28;
  std::memset(ip, 0, 28);
  ip[0] = std::byte{0x45};
  store_be16(ip + 2, static_cast<std::uint16_t>(28 + payload));
  ip[8] = std::byte{64};
  ip[9] = std::byte{17};
  store_be32(ip + 12, 0xc612'0001);
  store_be32(ip + 16, 0xc612'0002);
  store_be16(ip + 20, 1000);
  store_be16(ip + 22, 2000);
  store_be16(ip + 24, static_cast<std::uint16_t>(8 + payload));
  return frame;
}

/// A frame as another port would lend it.
struct LentFrame {
  explicit LentFrame(std::vector<std::byte> content) : bytes(std::move(content)) {
    std::copy_n(bytes.begin(), std::min(bytes.size(), kHeaderBytes), header.begin());
    frame.data = bytes.data();
    frame.header = header.data();
    frame.length = static_cast<std::uint32_t>(bytes.size());
    frame.header_bytes = static_cast<std::uint16_t>(std::min(bytes.size(), kHeaderBytes));
  }
  std::vector<std::byte> bytes;
  std::array<std::byte, kHeaderBytes> header{};
  Frame frame;
};
inline std::size_t transmit(Queue& queue, std::initializer_list<const Frame*> frames) {
  return queue.transmit(std::span(frames.begin(), frames.size()));
}

/// Receives until a frame of that ethertype is lent (the tenant's kernel sends some of its own), for two seconds.
inline const Frame* receive_type(Queue& queue, Burst& burst, std::uint16_t ethertype) {
  const Nanoseconds end = monotonic_now() + 2 * kSecond;
  while (monotonic_now() < end) {
    burst.clear(1);
    if (queue.receive(burst) == 0) ::usleep(1000);
    if (!burst.empty() && load_be16(burst[0].header + kMacPairBytes) == ethertype) return &burst[0];
  }
  return nullptr;
}
inline bool wait_for_drop(Queue& queue, Drop reason) {
  Burst burst;
  const Nanoseconds end = monotonic_now() + 2 * kSecond;
  const Counter& count = queue.counters().drops[static_cast<std::size_t>(reason)];
  while (count.read() == 0 && monotonic_now() < end) {
    burst.clear();
    if (queue.receive(burst) == 0) ::usleep(1000);
  }
  return count.read() == 1;
}

}  // namespace vswitch::test
