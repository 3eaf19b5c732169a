#include "tests/softnic/core/offload.h"

#include <algorithm>
#include <array>

namespace softnic {
namespace {

constexpr std::size_t kMacs = 12;
constexpr std::size_t kEthernet = 14;
constexpr std::size_t kTag = 4;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kUdp = 8;
constexpr std::size_t kMostHeader = 256;      // of a TSO request; Ethernet, tag, IPv4 and TCP need at most 138
constexpr std::size_t kLongestFrame = 65535;  // what Headers can describe

constexpr std::uint8_t kFinPsh = 0x01 | 0x08;
constexpr std::uint8_t kCwr = 0x80;

/// Bytes of the IPv4 header, 0 where it does not fit: the memory may have changed since it was parsed.
std::size_t ipv4_header_length(Bytes frame, const Headers& headers) noexcept {
  if (!headers.ipv4 || headers.l3_end > frame.size()) return 0;
  const std::size_t length = std::size_t{4} * (frame[headers.l3] & 0xf);
  return length >= kIpv4 && headers.l3 + length <= headers.l3_end ? length : 0;
}

/// Bytes of the TCP segment or UDP datagram, 0 where there is none or not all of it is in `frame`. What lies behind the
/// UDP length inside the IP datagram is not part of it (RFC 768), nor is padding behind the IP datagram.
std::size_t l4_length(Bytes frame, const Headers& headers) noexcept {
  if ((!headers.tcp() && !headers.udp()) || headers.l3_end > frame.size()) return 0;
  const std::uint8_t* const l3 = &frame[headers.l3];
  const std::size_t datagram = headers.ipv4 ? load_be16(l3 + 2) : kIpv6 + load_be16(l3 + 4);
  if (headers.l3 + datagram != headers.l3_end) return 0;
  const std::size_t room = std::size_t{headers.l3_end} - headers.l4;
  if (headers.tcp()) return room;
  const std::size_t length = load_be16(&frame[headers.l4 + std::size_t{4}]);
  return length >= kUdp && length <= room ? length : 0;
}

/// Sum over pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) and `length` bytes of TCP or UDP. The
/// destination is always that of the IP header: NICs do not look for a final one in a routing header.
std::uint64_t sum_l4(Bytes frame, const Headers& headers, std::size_t length) noexcept {
  const Bytes addresses =
      headers.ipv4 ? frame.subspan(headers.l3 + std::size_t{12}, 8) : frame.subspan(headers.l3 + std::size_t{8}, 32);
  return sum_words(frame.subspan(headers.l4, length), sum_words(addresses, headers.protocol + length));
}

/// Makes the length field of the IP header say that the datagram ends with `frame`.
void write_l3_length(std::span<std::uint8_t> frame, const Headers& headers) noexcept {
  if (frame.size() < kEthernet) return;
  const bool behind_a_tag = load_be16(&frame[kEthernet - 2]) != headers.ether_type;
  const std::size_t at = behind_a_tag ? kEthernet + kTag : kEthernet;
  if (headers.ether_type == 0x0800 && frame.size() >= at + kIpv4) {
    store_be16(&frame[at + 2], static_cast<std::uint16_t>(frame.size() - at));
  } else if (headers.ether_type == 0x86dd && frame.size() >= at + kIpv6) {
    store_be16(&frame[at + 4], static_cast<std::uint16_t>(frame.size() - at - kIpv6));
  }
}

/// Parses a TSO header as if the datagram ended with it: the length in it may be 0, that of the whole payload, or
/// anything else, since NICs ignore it; parse() does not.
Headers parse_tso_header(Bytes header) noexcept {
  std::array<std::uint8_t, kMostHeader> copy{};
  if (header.size() > copy.size()) return {};
  std::copy(header.begin(), header.end(), copy.begin());
  const std::span<std::uint8_t> own = std::span{copy}.first(header.size());
  write_l3_length(own, parse(own));
  return parse(own);
}

/// Bit `index` of `bytes`, counted from the most significant one of the first byte; false behind the end.
bool bit(Bytes bytes, std::size_t index) noexcept {
  return index / 8 < bytes.size() && (bytes[index / 8] >> (7 - index % 8) & 1) != 0;
}

}  // namespace

std::uint64_t sum_words(Bytes bytes, std::uint64_t sum) noexcept {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? std::uint64_t{bytes[i]} << 8 : bytes[i];
  return sum;
}

std::uint16_t fold(std::uint64_t sum) noexcept {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

void insert_l3_checksum(std::span<std::uint8_t> frame, const Headers& headers) noexcept {
  const std::size_t length = ipv4_header_length(frame, headers);
  if (length == 0) return;
  const std::span<std::uint8_t> header = frame.subspan(headers.l3, length);
  store_be16(&header[10], 0);
  store_be16(&header[10], fold(sum_words(header)));
}

void insert_l4_checksum(std::span<std::uint8_t> frame, const Headers& headers) noexcept {
  const std::size_t length = l4_length(frame, headers);
  if (length == 0) return;
  std::uint8_t* const field = &frame[headers.l4 + std::size_t{headers.udp() ? 6u : 16u}];
  store_be16(field, 0);
  const std::uint16_t sum = fold(sum_l4(frame, headers, length));
  store_be16(field, headers.udp() && sum == 0 ? std::uint16_t{0xffff} : sum);
}

ChecksumResult verify(Bytes frame, const Headers& headers) noexcept {
  ChecksumResult result;
  const std::size_t l3 = ipv4_header_length(frame, headers);
  result.l3_ok = headers.ipv6 || (l3 != 0 && fold(sum_words(frame.subspan(headers.l3, l3))) == 0);
  const std::size_t l4 = l4_length(frame, headers);
  if (l4 == 0) return result;
  if (headers.udp() && load_be16(&frame[headers.l4 + std::size_t{6}]) == 0) {
    result.l4_ok = headers.ipv4;  // IPv6 has no UDP without checksum, RFC 8200 section 8.1
  } else {
    result.l4_ok = fold(sum_l4(frame, headers, l4)) == 0;
  }
  return result;
}

Segmenter::Segmenter(Bytes header, Bytes payload, std::size_t mss) noexcept
    : header_{header}, payload_{payload}, mss_{mss}, headers_{parse_tso_header(header)} {
  valid_ = mss != 0 && headers_.tcp() && headers_.payload == header.size();
  // No IP length field, and no Headers, describes a longer frame.
  if (valid_) mss_ = std::min(mss, kLongestFrame - header.size());
}

std::size_t Segmenter::next(std::span<std::uint8_t> out) noexcept {
  if (!valid_ || finished_) return 0;
  const Bytes chunk = payload_.subspan(done_, std::min(mss_, payload_.size() - done_));
  const std::size_t length = header_.size() + chunk.size();
  if (out.size() < length) return 0;
  const std::span<std::uint8_t> frame = out.first(length);
  std::copy(header_.begin(), header_.end(), frame.begin());
  std::copy(chunk.begin(), chunk.end(), frame.begin() + static_cast<std::ptrdiff_t>(header_.size()));

  Headers headers = headers_;
  headers.l3_end = static_cast<std::uint16_t>(length);
  write_l3_length(frame, headers);
  if (headers.ipv4) {
    std::uint8_t* const id = &frame[headers.l3 + std::size_t{4}];
    store_be16(id, static_cast<std::uint16_t>(load_be16(id) + index_));
  }
  std::uint8_t* const tcp = &frame[headers.l4];
  store_be32(tcp + 4, load_be32(tcp + 4) + static_cast<std::uint32_t>(done_));
  // The first frame is the one at offset 0: the index wraps in long requests.
  if (done_ != 0) tcp[13] = static_cast<std::uint8_t>(tcp[13] & ~kCwr);
  finished_ = done_ + chunk.size() == payload_.size();
  if (!finished_) tcp[13] = static_cast<std::uint8_t>(tcp[13] & ~kFinPsh);
  insert_l3_checksum(frame, headers);
  insert_l4_checksum(frame, headers);
  done_ += chunk.size();
  ++index_;
  return length;
}

std::uint32_t toeplitz(Bytes key, Bytes input) noexcept {
  std::uint32_t hash = 0;
  for (std::size_t at = 0; at < input.size() * 8; ++at) {
    if (!bit(input, at)) continue;
    for (std::size_t i = 0; i < 32; ++i) hash ^= std::uint32_t{bit(key, at + i)} << (31 - i);
  }
  return hash;
}

std::size_t insert_vlan(std::span<std::uint8_t> frame, std::size_t length, std::uint16_t tci) noexcept {
  if (length < kEthernet || length > frame.size() || frame.size() - length < kTag) return length;
  const auto rest = frame.begin() + static_cast<std::ptrdiff_t>(kMacs);
  const auto end = frame.begin() + static_cast<std::ptrdiff_t>(length);
  std::copy_backward(rest, end, end + static_cast<std::ptrdiff_t>(kTag));
  store_be16(&frame[kMacs], 0x8100);
  store_be16(&frame[kMacs + 2], tci);
  return length + kTag;
}

std::size_t strip_vlan(std::span<std::uint8_t> frame) noexcept {
  const std::uint16_t type = frame.size() < kEthernet + kTag ? 0 : load_be16(&frame[kMacs]);
  if (type != 0x8100 && type != 0x88a8) return frame.size();
  const auto tag = frame.begin() + static_cast<std::ptrdiff_t>(kMacs);
  std::copy(tag + static_cast<std::ptrdiff_t>(kTag), frame.end(), tag);
  return frame.size() - kTag;
}

}  // namespace softnic
