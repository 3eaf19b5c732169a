#include "vswitch/net/gso.h"

#include <algorithm>
#include <cstring>

#include "vswitch/base/short_copy.h"
#include "vswitch/net/checksum.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/offload_check.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::size_t kIpv4TotalLength = 2;
constexpr std::size_t kIpv4Id = 4;
constexpr std::size_t kIpv4Checksum = 10;
constexpr std::size_t kIpv6PayloadLength = 4;
constexpr std::size_t kTcpSequence = 4;
constexpr std::size_t kTcpFlags = 13;
constexpr unsigned kTcpFin = 0x01;
constexpr unsigned kTcpPsh = 0x08;
constexpr unsigned kTcpCwr = 0x80;
constexpr std::size_t kUdpLength = 4;

/// Sum of the words of an IPv4 header that are the same in all segments.
std::uint64_t constant_ipv4_sum(std::span<const std::byte> ip) noexcept {
  std::uint64_t sum = checksum_add(0, ip.first(kIpv4TotalLength));
  sum = checksum_add(sum, ip.subspan(kIpv4Id + 2, kIpv4Checksum - kIpv4Id - 2));
  return checksum_add(sum, ip.subspan(kIpv4Checksum + 2));
}

}  // namespace

Segmenter::Segmenter(std::span<const std::byte> header, std::size_t frame_length, const Offload& offload) noexcept {
  if (frame_length > UINT32_MAX || !offload.is_gso() || !offload.needs_checksum()) return;
  if (!offload_is_valid(offload, header, static_cast<std::uint32_t>(frame_length))) return;
  const auto parsed = Headers::parse(header);
  if (!parsed || !(parsed->is_tcp() || parsed->is_udp())) return;
  header_ = header;
  header_length_ = parsed->header_length();
  payload_ = static_cast<std::uint32_t>(frame_length - header_length_);
  gso_size_ = offload.gso_size;
  segments_ = (payload_ + gso_size_ - 1) / gso_size_;
  l3_ = parsed->l3_offset();
  l4_ = parsed->l4_offset();
  checksum_field_ = static_cast<std::uint16_t>(offload.csum_start + offload.csum_offset);
  ipv4_ = parsed->is_ipv4();
  tcp_ = parsed->is_tcp();
  if (ipv4_) ipv4_sum_ = constant_ipv4_sum(header.subspan(l3_, l4_ - std::size_t{l3_}));
  // Adding the complement takes the length that the sender summed away again: for UDP that is the header's.
  const std::uint32_t summed =
      tcp_ ? static_cast<std::uint32_t>(frame_length - l4_) : load_be16(&header[l4_ + kUdpLength]);
  pseudo_sum_ = load_raw<std::uint16_t>(&header[checksum_field_]) + checksum_word(~summed);
  if (ipv4_) id_ = load_be16(&header[l3_ + kIpv4Id]);
  if (tcp_) sequence_ = load_be32(&header[l4_ + kTcpSequence]);
  full_ = lengths_of(std::uint32_t{header_length_} + gso_size_);
}

Segmenter::Segment Segmenter::next(std::span<std::byte> out) noexcept {
  if (index_ == segments_ || out.size() < header_.size()) return {};
  const bool last = index_ + 1 == segments_;
  const std::uint32_t offset = index_ * gso_size_;
  const std::uint32_t payload = last ? payload_ - offset : gso_size_;
  const std::size_t start = std::size_t{header_length_} + offset;
  const std::size_t in_header = start < header_.size() ? std::min<std::size_t>(payload, header_.size() - start) : 0;
  std::byte* const header = out.data();
  copy_up_to_two_lines(header, header_.data(), header_length_);
  if (in_header != 0) std::memcpy(header + header_length_, &header_[start], in_header);
  const std::uint32_t length = header_length_ + payload;
  const Lengths lengths = last ? lengths_of(length) : full_;

  std::byte* const ip = header + l3_;
  if (ipv4_) {
    const std::uint16_t id = swap_to_wire(static_cast<std::uint16_t>(id_ + index_));
    store_raw(ip + kIpv4TotalLength, lengths.ip);
    store_raw(ip + kIpv4Id, id);
    store_raw(ip + kIpv4Checksum, checksum_complement(lengths.ipv4_sum + id));
  } else {
    store_raw(ip + kIpv6PayloadLength, lengths.ip);
  }
  std::byte* const l4 = header + l4_;
  if (tcp_) {
    store_be32(l4 + kTcpSequence, sequence_ + offset);
    const unsigned cleared = (index_ != 0 ? kTcpCwr : 0U) | (last ? 0U : kTcpFin | kTcpPsh);
    l4[kTcpFlags] &= ~static_cast<std::byte>(cleared);
  } else {
    store_raw(l4 + kUdpLength, lengths.transport);
  }
  store_raw(header + checksum_field_, lengths.pseudo);
  ++index_;
  return {length, offset, static_cast<std::uint16_t>(header_length_ + in_header)};
}

Segmenter::Lengths Segmenter::lengths_of(std::uint32_t length) const noexcept {
  Lengths lengths;
  const std::uint32_t ip = length - l3_ - (ipv4_ ? 0U : kIpv6HeaderBytes);
  lengths.ip = swap_to_wire(static_cast<std::uint16_t>(ip));
  lengths.transport = swap_to_wire(static_cast<std::uint16_t>(length - l4_));
  lengths.ipv4_sum = ipv4_sum_ + lengths.ip;
  lengths.pseudo = checksum_fold(pseudo_sum_ + checksum_word(length - l4_));
  return lengths;
}

}  // namespace vswitch
