#include "vswitch/net/offload_check.h"

#include <optional>

#include "vswitch/net/checksum.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::uint16_t kTcpChecksum = 16;
constexpr std::uint16_t kUdpChecksum = 6;
constexpr std::uint16_t kIcmpChecksum = 2;
constexpr std::size_t kTcpDataOffset = 12;
constexpr std::size_t kTcpFlags = 13;
constexpr std::uint8_t kTcpCwr = 0x80;
constexpr std::uint32_t kMaxIpBytes = 65'535;

/// Where a protocol keeps its checksum, from its header's start; nullopt: not known here.
std::optional<std::uint16_t> checksum_field(std::uint8_t protocol) noexcept {
  switch (protocol) {
    case kProtocolTcp:
      return kTcpChecksum;
    case kProtocolUdp:
      return kUdpChecksum;
    case kProtocolIcmp:
    case kProtocolIcmpv6:
      return kIcmpChecksum;
    default:
      return std::nullopt;
  }
}

OffloadFault check_checksum(const Offload& offload, const Headers& headers, std::uint32_t frame_length) noexcept {
  constexpr std::uint32_t kFieldBytes = 2;
  const std::uint32_t end = std::uint32_t{offload.csum_start} + offload.csum_offset + kFieldBytes;
  if (end > frame_length || offload.csum_start < headers.l3_offset()) return OffloadFault::checksum_range;
  const std::uint16_t ethertype = headers.ethertype();
  if (ethertype == kEtherArp) return OffloadFault::checksum_place;
  if (ethertype != kEtherIpv4 && ethertype != kEtherIpv6) return OffloadFault::none;
  if (!headers.is_ip()) return OffloadFault::headers;
  if (headers.is_fragment()) return OffloadFault::checksum_place;
  if (offload.csum_start < headers.l4_offset()) return OffloadFault::checksum_range;
  if (!headers.reaches_l4()) return OffloadFault::none;
  // Further in lies the checksum of a tunnelled packet; ICMP carries none.
  const std::optional<std::uint16_t> field = checksum_field(headers.protocol());
  const bool tunnelled = offload.csum_start > headers.l4_offset();
  const bool right = tunnelled ? field != kIcmpChecksum : field.value_or(offload.csum_offset) == offload.csum_offset;
  return right ? OffloadFault::none : OffloadFault::checksum_place;
}

/// Bytes that the IP header says there are from its start; for IPv6 without the fixed header.
std::uint32_t declared_ip_length(const Headers& headers, std::span<const std::byte> header) noexcept {
  constexpr std::size_t kIpv4TotalLength = 2;
  constexpr std::size_t kIpv6PayloadLength = 4;
  return load_be16(&header[headers.l3_offset() + (headers.is_ipv4() ? kIpv4TotalLength : kIpv6PayloadLength)]);
}

OffloadFault check_gso_type(std::uint8_t gso_kind, const Headers& headers) noexcept {
  const bool ipv4 = headers.ethertype() == kEtherIpv4;
  const bool ipv6 = headers.ethertype() == kEtherIpv6;
  const bool tcp = (gso_kind == Offload::kGsoTcp4 && ipv4) || (gso_kind == Offload::kGsoTcp6 && ipv6);
  const bool udp = gso_kind == Offload::kGsoUdpL4 && (ipv4 || ipv6);
  if (!tcp && !udp) return OffloadFault::gso_type;
  if (!headers.is_ip() || !headers.reaches_l4()) return OffloadFault::headers;
  if (headers.is_fragment() || headers.protocol() != (tcp ? kProtocolTcp : kProtocolUdp)) return OffloadFault::gso_type;
  return headers.is_tcp() || headers.is_udp() ? OffloadFault::none : OffloadFault::headers;
}

OffloadFault check_gso(const Offload& offload, const Headers& headers, std::span<const std::byte> header,
                       std::uint32_t frame_length) noexcept {
  const OffloadFault wrong_type = check_gso_type(offload.gso_kind(), headers);
  if (wrong_type != OffloadFault::none) return wrong_type;
  if (offload.needs_checksum() &&
      (offload.csum_start != headers.l4_offset() || offload.csum_offset != checksum_field(headers.protocol()))) {
    return OffloadFault::gso_checksum;
  }
  const std::uint32_t ip_start = headers.l3_offset() + (headers.is_ipv6() ? std::uint32_t{kIpv6HeaderBytes} : 0);
  const std::uint32_t ip_bytes = frame_length - ip_start;
  if (ip_bytes > kMaxIpBytes || declared_ip_length(headers, header) > ip_bytes) return OffloadFault::gso_length;
  const std::uint32_t header_bytes = headers.header_length() - ip_start;
  if (offload.gso_size == 0 || header_bytes + offload.gso_size > kMaxIpBytes) return OffloadFault::gso_size;
  const std::uint32_t payload = frame_length - headers.header_length();
  return payload <= kMaxSegments * offload.gso_size ? OffloadFault::none : OffloadFault::gso_segments;
}

/// Makes a GSO frame without NEEDS_CSUM one that has it.
void add_checksum_request(Offload& offload, const Headers& headers, std::span<std::byte> header,
                          std::uint32_t frame_length) noexcept {
  constexpr std::size_t kIpv4Addresses = 12;
  constexpr std::size_t kIpv6Addresses = 8;
  const std::byte* ip = &header[headers.l3_offset()];
  const std::uint32_t length = frame_length - headers.l4_offset();
  const std::uint64_t sum = headers.is_ipv4() ? pseudo_sum_v4(ip + kIpv4Addresses, headers.protocol(), length)
                                              : pseudo_sum_v6(ip + kIpv6Addresses, headers.protocol(), length);
  offload.flags |= Offload::kNeedsChecksum;
  offload.csum_start = headers.l4_offset();
  offload.csum_offset = headers.is_tcp() ? kTcpChecksum : kUdpChecksum;
  store_raw(&header[std::size_t{offload.csum_start} + offload.csum_offset], checksum_fold(sum));
}

}  // namespace

OffloadFault check_unfinished(const Offload& offload, std::span<const std::byte> header,
                              std::uint32_t frame_length) noexcept {
  const auto headers = Headers::parse(header);
  if (!headers) return OffloadFault::headers;
  if (offload.is_gso()) {
    const OffloadFault fault = check_gso(offload, *headers, header, frame_length);
    if (fault != OffloadFault::none) return fault;
  }
  return offload.needs_checksum() ? check_checksum(offload, *headers, frame_length) : OffloadFault::none;
}

Offload sanitize_unfinished(const Offload& offload, std::span<std::byte> header, std::uint32_t frame_length) noexcept {
  Offload clean;
  if (offload.needs_checksum()) {
    clean.flags = Offload::kNeedsChecksum;
    clean.csum_start = offload.csum_start;
    clean.csum_offset = offload.csum_offset;
  }
  if (!offload.is_gso()) return clean;
  const auto headers = Headers::parse(header);
  if (!headers || !(headers->is_tcp() || headers->is_udp())) return clean;  // was not valid
  if (!clean.needs_checksum()) add_checksum_request(clean, *headers, header, frame_length);
  if (frame_length - headers->header_length() <= offload.gso_size) return clean;
  clean.gso_type = offload.gso_kind();
  clean.gso_size = offload.gso_size;
  const bool cwr = headers->is_tcp() && (load_u8(&header[headers->l4_offset() + kTcpFlags]) & kTcpCwr) != 0;
  if (cwr) clean.gso_type |= Offload::kGsoEcn;
  return clean;
}

std::uint16_t offload_header_length(const Offload& offload, std::span<const std::byte> header) noexcept {
  if (!offload.is_gso()) return 0;
  if (offload.gso_kind() == Offload::kGsoUdpL4) {
    return static_cast<std::uint16_t>(offload.csum_start + kUdpHeaderBytes);
  }
  const std::size_t at = offload.csum_start + kTcpDataOffset;
  if (at >= header.size()) return 0;
  return static_cast<std::uint16_t>(offload.csum_start + (load_u8(&header[at]) >> 4) * 4);
}

}  // namespace vswitch
