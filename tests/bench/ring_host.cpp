#include "tests/bench/ring_host.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/wire.h"

namespace vswitch::bench {
namespace {

constexpr int kPatienceMs = 5000;
constexpr Nanoseconds kAskAgain = 100 * kMillisecond;
constexpr std::size_t kMostIpBytes = 65535;

constexpr std::size_t kArpBytes = kEthernetBytes + 28;
constexpr std::uint16_t kArpRequest = 1;
constexpr std::uint16_t kArpReply = 2;
constexpr std::size_t kOperationAt = kEthernetBytes + 6;
constexpr std::size_t kSenderMacAt = kEthernetBytes + 8;
constexpr std::size_t kSenderAt = kEthernetBytes + 14;
constexpr std::size_t kTargetMacAt = kEthernetBytes + 18;
constexpr std::size_t kTargetAt = kEthernetBytes + 24;
constexpr Mac kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

constexpr std::uint32_t kFeatures = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4;

std::uint32_t ipv4_of(const vswitch_port_info& info) {
  for (std::uint32_t i = 0; i < info.address_count; ++i) {
    if (info.addresses[i].length == 4) {
      std::uint32_t address;
      std::memcpy(&address, info.addresses[i].bytes, sizeof(address));
      return address;
    }
  }
  throw Error(0, "find an IPv4 address of", info.name, "give the port one (`ips`)");
}

}  // namespace

RingHost::RingHost(const Settings& settings)
    : port_(attach_to(settings.socket, settings.offloads ? kFeatures : 0, kPatienceMs)),
      offloads_(settings.offloads),
      drop_each_(settings.drop_each) {
  vswitch_port_info info;
  vswitch_info(port_.get(), &info);
  if (offloads_ && info.features != kFeatures) throw Error(0, "get offloads at", settings.socket);
  mtu_ = info.mtu;
  std::memcpy(self_.mac.bytes.data(), info.mac, sizeof(info.mac));
  self_.address = ipv4_of(info);
}

std::size_t RingHost::most_payload(std::uint16_t mss) const noexcept {
  if (!offloads_) return mss;
  const std::size_t segments = (kMostIpBytes - kIpBytes - kTcpBytes) / mss;
  return std::min<std::size_t>(segments, VSWITCH_RING_MAX_SEGMENTS) * mss;
}

std::size_t RingHost::send(const Endpoint& to, std::uint16_t mss, std::span<const Outgoing> segments) noexcept {
  std::array<vswitch_frame, kBurst> frames;
  const std::size_t wanted = std::min<std::size_t>(segments.size(), kBurst);
  for (std::size_t i = 0; i < wanted; ++i)
    frames[i].length = static_cast<std::uint32_t>(kMostHeaders + segments[i].payload.size());
  const std::uint32_t room = vswitch_tx_reserve(port_.get(), 0, frames.data(), static_cast<std::uint32_t>(wanted));
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < room; ++i) {
    const auto& [header, payload] = segments[i];
    if (is_lost(payload.size())) continue;
    // What follows a lost one goes into its place, which is no smaller.
    write_segment(frames[count], self_, to, header, payload, offloads_ ? mss : std::uint16_t{0});
    ++count;
  }
  vswitch_tx_commit(port_.get(), 0, frames.data(), count);
  return room;
}

bool RingHost::arrives(const vswitch_frame& frame, const Segment& segment) noexcept {
  if (segment.to.address != self_.address || segment.to.port != self_.port) return false;
  if (is_lost(segment.payload.size())) return false;
  if (checksum_is_right(frame)) return true;
  ++bad_checksums_;
  return false;
}

bool RingHost::is_lost(std::size_t payload) noexcept {
  if (drop_each_ == 0 || payload == 0 || ++with_payload_ % drop_each_ != 0) return false;
  ++dropped_;
  return true;
}

Mac RingHost::resolve(std::uint32_t address) {
  const Nanoseconds deadline = monotonic_now() + kPatienceMs * kMillisecond;
  Nanoseconds ask_at = 0;
  while (answered_.address != address) {
    const Nanoseconds now = monotonic_now();
    if (now > deadline) throw Error(ETIMEDOUT, "resolve", "the peer's address");
    if (now >= ask_at) {
      send_arp(kArpRequest, kBroadcast, address);
      ask_at = now + kAskAgain;
    }
    if (receive([](const Segment&) {}) == 0) wait(1);
  }
  return answered_.mac;
}

void RingHost::take_other(const vswitch_frame& frame) noexcept {
  const auto* data = static_cast<const std::byte*>(frame.data);
  if (frame.length < kArpBytes || load_be16(data + kEthernetBytes - 2) != kEtherArp) return;
  if (load_raw<std::uint32_t>(data + kTargetAt) != self_.address) return;
  Endpoint sender;
  std::memcpy(sender.mac.bytes.data(), data + kSenderMacAt, sender.mac.bytes.size());
  sender.address = load_raw<std::uint32_t>(data + kSenderAt);
  const std::uint16_t operation = load_be16(data + kOperationAt);
  if (operation == kArpReply) answered_ = sender;
  if (operation == kArpRequest) send_arp(kArpReply, sender.mac, sender.address);
}

void RingHost::send_arp(std::uint16_t operation, const Mac& to, std::uint32_t address) noexcept {
  vswitch_frame frame{};
  frame.length = kArpBytes;
  if (vswitch_tx_reserve(port_.get(), 0, &frame, 1) == 0) return;  // who asked asks again
  auto* const data = static_cast<std::byte*>(frame.data);
  std::memcpy(data, to.bytes.data(), to.bytes.size());
  std::memcpy(data + 6, self_.mac.bytes.data(), self_.mac.bytes.size());
  store_be16(data + kEthernetBytes - 2, kEtherArp);
  store_be16(data + kEthernetBytes, 1);  // Ethernet
  store_be16(data + kEthernetBytes + 2, kEtherIpv4);
  store_be16(data + kEthernetBytes + 4, 6 << 8 | 4);  // lengths of their addresses
  store_be16(data + kOperationAt, operation);
  std::memcpy(data + kSenderMacAt, self_.mac.bytes.data(), self_.mac.bytes.size());
  store_raw(data + kSenderAt, self_.address);
  std::memcpy(data + kTargetMacAt, to.bytes.data(), to.bytes.size());
  store_raw(data + kTargetAt, address);
  vswitch_tx_commit(port_.get(), 0, &frame, 1);
}

}  // namespace vswitch::bench
