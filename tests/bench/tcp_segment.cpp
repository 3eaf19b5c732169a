#include "tests/bench/tcp_segment.h"

#include <cstring>

#include "vswitch/net/checksum.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/wire.h"

namespace vswitch::bench {
namespace {

constexpr std::size_t kIpAt = kEthernetBytes;
constexpr std::size_t kAddressesAt = kIpAt + 12;
constexpr std::size_t kTcpAt = kIpAt + kIpBytes;
constexpr std::size_t kChecksumAt = kTcpAt + 16;
constexpr std::uint16_t kDontFragment = 0x4000;
constexpr std::uint8_t kHops = 64;

constexpr std::uint8_t kOptionEnd = 0;
constexpr std::uint8_t kOptionNone = 1;
constexpr std::uint8_t kOptionMss = 2;
constexpr std::uint8_t kOptionWindowShift = 3;

std::span<const std::byte> bytes_of(const vswitch_frame& frame) noexcept {
  return {static_cast<const std::byte*>(frame.data), frame.length};
}

void read_options(std::span<const std::byte> options, TcpHeader& header) noexcept {
  while (!options.empty()) {
    const std::uint8_t kind = load_u8(options.data());
    if (kind == kOptionEnd) return;
    if (kind == kOptionNone) {
      options = options.subspan(1);
      continue;
    }
    const std::size_t length = options.size() < 2 ? 0 : load_u8(&options[1]);
    if (length < 2 || length > options.size()) return;
    if (kind == kOptionMss && length == 4) header.mss = load_be16(&options[2]);
    if (kind == kOptionWindowShift && length == 3) header.window_shift = load_u8(&options[2]);
    options = options.subspan(length);
  }
}

/// @return bytes written, a multiple of 4
std::size_t write_options(std::byte* to, const TcpHeader& header) noexcept {
  std::size_t length = 0;
  if (header.mss != 0) {
    store_be16(to, kOptionMss << 8 | 4);
    store_be16(to + 2, header.mss);
    length += 4;
  }
  if (header.window_shift >= 0) {
    store_be16(to + length, kOptionNone << 8 | kOptionWindowShift);
    store_be16(to + length + 2, static_cast<std::uint16_t>(3 << 8 | header.window_shift));
    length += 4;
  }
  return length;
}

void write_ip(std::byte* frame, const Endpoint& from, const Endpoint& to, std::size_t length) noexcept {
  std::memcpy(frame, to.mac.bytes.data(), to.mac.bytes.size());
  std::memcpy(frame + to.mac.bytes.size(), from.mac.bytes.data(), from.mac.bytes.size());
  store_be16(frame + kIpAt - 2, kEtherIpv4);
  std::byte* const ip = frame + kIpAt;
  store_be16(ip, 0x4500);
  store_be16(ip + 2, static_cast<std::uint16_t>(length));
  store_be16(ip + 4, 0);  // the identification means nothing when fragments are forbidden (RFC 6864)
  store_be16(ip + 6, kDontFragment);
  store_be16(ip + 8, kHops << 8 | kProtocolTcp);
  store_be16(ip + 10, 0);
  store_raw(ip + 12, from.address);
  store_raw(ip + 16, to.address);
  store_raw(ip + 10, checksum_complement(checksum_add(0, {ip, kIpBytes})));
}

/// @return where it ends
std::size_t write_tcp(std::byte* frame, const Endpoint& from, const Endpoint& to, const TcpHeader& header) noexcept {
  std::byte* const tcp = frame + kTcpAt;
  const std::size_t bytes = kTcpBytes + write_options(tcp + kTcpBytes, header);
  store_be16(tcp, from.port);
  store_be16(tcp + 2, to.port);
  store_be32(tcp + 4, header.sequence);
  store_be32(tcp + 8, header.acknowledgment);
  store_be16(tcp + 12, static_cast<std::uint16_t>(bytes / 4 << 12 | header.flags));
  store_be16(tcp + 14, header.window);
  store_be32(tcp + 16, 0);  // checksum, urgent pointer
  return kTcpAt + bytes;
}

}  // namespace

std::optional<Segment> read_segment(const vswitch_frame& frame) noexcept {
  const std::span<const std::byte> bytes = bytes_of(frame);
  if (bytes.size() < kSegmentHeaders || load_be16(&bytes[kIpAt - 2]) != kEtherIpv4) return std::nullopt;
  if (load_u8(&bytes[kIpAt]) != 0x45 || load_u8(&bytes[kIpAt + 9]) != kProtocolTcp) return std::nullopt;
  const std::size_t end = kIpAt + load_be16(&bytes[kIpAt + 2]);
  const std::byte* const tcp = &bytes[kTcpAt];
  const std::size_t payload = kTcpAt + std::size_t{load_u8(tcp + 12)} / 16 * 4;
  if (payload < kSegmentHeaders || payload > end || end > bytes.size()) return std::nullopt;

  Segment found;
  std::memcpy(found.to.mac.bytes.data(), bytes.data(), found.to.mac.bytes.size());
  std::memcpy(found.from.mac.bytes.data(), &bytes[6], found.from.mac.bytes.size());
  found.from.address = load_raw<std::uint32_t>(&bytes[kAddressesAt]);
  found.to.address = load_raw<std::uint32_t>(&bytes[kAddressesAt + 4]);
  found.from.port = load_be16(tcp);
  found.to.port = load_be16(tcp + 2);
  found.header.sequence = load_be32(tcp + 4);
  found.header.acknowledgment = load_be32(tcp + 8);
  found.header.flags = load_u8(tcp + 13);
  found.header.window = load_be16(tcp + 14);
  if ((found.header.flags & kSyn) != 0) read_options(bytes.first(payload).subspan(kSegmentHeaders), found.header);
  found.payload = bytes.first(end).subspan(payload);
  return found;
}

bool checksum_is_right(const vswitch_frame& frame) noexcept {
  if (vswitch_frame_checksum(&frame) != VSWITCH_CHECKSUM_UNKNOWN) return true;
  const std::span<const std::byte> bytes = bytes_of(frame);
  const std::size_t length = load_be16(&bytes[kIpAt + 2]) - kIpBytes;
  const std::uint64_t pseudo = pseudo_sum_v4(&bytes[kAddressesAt], kProtocolTcp, static_cast<std::uint32_t>(length));
  return checksum_fold(checksum_add(pseudo, bytes.subspan(kTcpAt, length))) == 0xffff;
}

void write_segment(vswitch_frame& frame, const Endpoint& from, const Endpoint& to, const TcpHeader& header,
                   std::span<const std::byte> payload, std::uint16_t segment_bytes) noexcept {
  auto* const data = static_cast<std::byte*>(frame.data);
  const std::size_t headers = write_tcp(data, from, to, header);
  write_ip(data, from, to, headers - kIpAt + payload.size());
  frame.length = static_cast<std::uint32_t>(headers + payload.size());
  if (segment_bytes != 0) {
    std::memcpy(data + headers, payload.data(), payload.size());
    (void)vswitch_frame_segment(&frame, segment_bytes);  // fails only for headers that it cannot read
    return;
  }
  std::uint64_t sum =
      pseudo_sum_v4(data + kAddressesAt, kProtocolTcp, static_cast<std::uint32_t>(frame.length - kTcpAt));
  sum = checksum_copy(sum, data + headers, payload);
  store_raw(data + kChecksumAt, checksum_complement(checksum_add(sum, {data + kTcpAt, headers - kTcpAt})));
}

}  // namespace vswitch::bench
