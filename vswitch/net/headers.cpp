#include "vswitch/net/headers.h"

#include <algorithm>

#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::size_t kEthernetBytes = 14;
constexpr std::size_t kTagBytes = 4;
constexpr unsigned kMaxTags = 2;

constexpr std::size_t kIpv4MinBytes = 20;
constexpr std::uint16_t kIpv4MoreFragments = 0x2000;
constexpr std::uint16_t kIpv4FragmentOffset = 0x1fff;

constexpr std::size_t kIpv6NextHeader = 6;
constexpr std::uint8_t kIpv6HopByHop = 0;
constexpr std::uint8_t kIpv6Routing = 43;
constexpr std::uint8_t kIpv6Fragment = 44;
constexpr std::uint8_t kIpv6DestinationOptions = 60;
constexpr std::size_t kIpv6ExtensionUnit = 8;
constexpr std::uint16_t kIpv6FragmentOffset = 0xfff8;
/// RFC 8200 section 4.1 lets a packet have six of these; more is an attempt to keep parsers busy.
constexpr unsigned kMaxExtensions = 8;

constexpr std::size_t kTcpMinBytes = 20;
constexpr std::size_t kTcpDataOffset = 12;

bool is_tag(std::uint16_t ethertype) noexcept { return ethertype == kEtherVlan || ethertype == kEtherQinq; }

bool is_extension(std::uint8_t header) noexcept {
  return header == kIpv6HopByHop || header == kIpv6Routing || header == kIpv6Fragment ||
         header == kIpv6DestinationOptions;
}

}  // namespace

std::optional<Headers> Headers::parse(std::span<const std::byte> frame) noexcept {
  if (frame.size() < kEthernetBytes) return std::nullopt;
  frame = frame.first(std::min<std::size_t>(frame.size(), 0xffff));  // offsets have 16 bits
  Headers headers;
  std::size_t l3 = kEthernetBytes;
  std::uint16_t ethertype = load_be16(frame.data() + l3 - 2);
  while (is_tag(ethertype) && headers.vlan_tags_ < kMaxTags) {
    if (frame.size() < l3 + kTagBytes) return std::nullopt;
    l3 += kTagBytes;
    ++headers.vlan_tags_;
    ethertype = load_be16(frame.data() + l3 - 2);
  }
  headers.ethertype_ = ethertype;
  headers.l3_offset_ = static_cast<std::uint16_t>(l3);
  if (ethertype == kEtherIpv4) headers.parse_ipv4(frame);
  if (ethertype == kEtherIpv6) headers.parse_ipv6(frame);
  return headers;
}

void Headers::parse_ipv4(std::span<const std::byte> frame) noexcept {
  const auto ip = frame.subspan(l3_offset_);
  if (ip.size() < kIpv4MinBytes) return;
  const std::uint8_t first = load_u8(&ip[0]);
  const std::size_t length = (first & 0x0fU) * std::size_t{4};
  if (first >> 4 != 4 || length < kIpv4MinBytes || length > ip.size()) return;
  const std::uint16_t fragment = load_be16(&ip[6]);
  version_ = 4;
  fragment_ = (fragment & (kIpv4MoreFragments | kIpv4FragmentOffset)) != 0;
  later_fragment_ = (fragment & kIpv4FragmentOffset) != 0;
  protocol_ = load_u8(&ip[9]);
  l4_offset_ = static_cast<std::uint16_t>(l3_offset_ + length);
  reaches_l4_ = true;
  parse_transport(frame);
}

void Headers::parse_ipv6(std::span<const std::byte> frame) noexcept {
  const auto ip = frame.subspan(l3_offset_);
  if (ip.size() < kIpv6HeaderBytes || load_u8(&ip[0]) >> 4 != 6) return;
  version_ = 6;
  protocol_ = load_u8(&ip[kIpv6NextHeader]);
  std::size_t end = kIpv6HeaderBytes;
  for (unsigned i = 0; is_extension(protocol_); ++i) {
    const bool whole = ip.size() - end >= kIpv6ExtensionUnit;
    const bool fragment = protocol_ == kIpv6Fragment;
    // The fragment header has no length field; it is one unit long (RFC 8200 section 4.5).
    const std::size_t units = whole && !fragment ? load_u8(&ip[end + 1]) + std::size_t{1} : 1;
    if (i == kMaxExtensions || !whole || units * kIpv6ExtensionUnit > ip.size() - end) {
      l4_offset_ = static_cast<std::uint16_t>(frame.size());
      return;
    }
    if (fragment) {
      fragment_ = true;
      later_fragment_ = (load_be16(&ip[end + 2]) & kIpv6FragmentOffset) != 0;
    }
    protocol_ = load_u8(&ip[end]);
    end += units * kIpv6ExtensionUnit;
    if (later_fragment_) break;  // what follows is the middle of something
  }
  l4_offset_ = static_cast<std::uint16_t>(l3_offset_ + end);
  reaches_l4_ = true;
  parse_transport(frame);
}

void Headers::parse_transport(std::span<const std::byte> frame) noexcept {
  if (later_fragment_) return;
  const auto l4 = frame.subspan(l4_offset_);
  if (protocol_ == kProtocolUdp && l4.size() >= kUdpHeaderBytes) {
    header_length_ = static_cast<std::uint16_t>(l4_offset_ + kUdpHeaderBytes);
  }
  if (protocol_ == kProtocolTcp && l4.size() >= kTcpMinBytes) {
    const std::size_t length = (load_u8(&l4[kTcpDataOffset]) >> 4) * std::size_t{4};
    if (length < kTcpMinBytes || length > l4.size()) return;
    header_length_ = static_cast<std::uint16_t>(l4_offset_ + length);
  }
}

}  // namespace vswitch
