#include "vswitch/net/gso.h"

#include <algorithm>
#include <cstring>

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

Segmenter::Segmenter(std::span<const std::byte> header, std::span<const std::byte> rest, const Offload& offload,
                     Checksum checksum) noexcept
    : checksum_(checksum) {
  const std::size_t length = header.size() + rest.size();
  if (length > UINT32_MAX || !offload.is_gso() || !offload.needs_checksum()) return;
  if (!offload_is_valid(offload, header, static_cast<std::uint32_t>(length))) return;
  const auto parsed = Headers::parse(header);
  if (!parsed || !(parsed->is_tcp() || parsed->is_udp())) return;
  const std::size_t payload = length - parsed->header_length();
  headers_ = header.first(parsed->header_length());
  head_ = header.subspan(parsed->header_length());
  tail_ = rest;
  gso_size_ = offload.gso_size;
  segments_ = static_cast<std::uint32_t>((payload + gso_size_ - 1) / gso_size_);
  l3_ = parsed->l3_offset();
  l4_ = parsed->l4_offset();
  checksum_field_ = static_cast<std::uint16_t>(offload.csum_start + offload.csum_offset);
  ipv4_ = parsed->is_ipv4();
  tcp_ = parsed->is_tcp();
  if (ipv4_) ipv4_sum_ = constant_ipv4_sum(header.subspan(l3_, l4_ - std::size_t{l3_}));
  // Adding the complement takes the length that the sender summed away again: for UDP that is the header's.
  const std::uint32_t summed = tcp_ ? static_cast<std::uint32_t>(length - l4_) : load_be16(&header[l4_ + kUdpLength]);
  pseudo_sum_ = load_raw<std::uint16_t>(&header[checksum_field_]) + checksum_word(~summed);
}

std::size_t Segmenter::next_length() const noexcept {
  if (index_ == segments_) return 0;
  return headers_.size() + std::min<std::size_t>(gso_size_, head_.size() + tail_.size());
}

std::size_t Segmenter::next(std::span<std::byte> out) noexcept {
  const std::size_t length = next_length();
  if (length == 0 || out.size() < length) return 0;
  const auto segment = out.first(length);
  std::memcpy(segment.data(), headers_.data(), headers_.size());
  copy_payload(segment.data() + headers_.size(), length - headers_.size());
  write_ip(segment);
  if (tcp_) {
    write_tcp(segment);
  } else {
    write_udp(segment);
  }
  ++index_;
  return length;
}

void Segmenter::copy_payload(std::byte* to, std::size_t length) noexcept {
  const std::size_t from_head = std::min(length, head_.size());
  std::copy_n(head_.begin(), from_head, to);
  std::copy_n(tail_.begin(), length - from_head, to + from_head);
  head_ = head_.subspan(from_head);
  tail_ = tail_.subspan(length - from_head);
}

void Segmenter::write_ip(std::span<std::byte> segment) const noexcept {
  std::byte* ip = &segment[l3_];
  const auto length = static_cast<std::uint16_t>(segment.size() - l3_);
  if (!ipv4_) {
    store_be16(ip + kIpv6PayloadLength, static_cast<std::uint16_t>(length - kIpv6HeaderBytes));
    return;
  }
  store_be16(ip + kIpv4TotalLength, length);
  store_be16(ip + kIpv4Id, static_cast<std::uint16_t>(load_be16(ip + kIpv4Id) + index_));
  const std::uint64_t changed =
      std::uint64_t{load_raw<std::uint16_t>(ip + kIpv4TotalLength)} + load_raw<std::uint16_t>(ip + kIpv4Id);
  store_raw(ip + kIpv4Checksum, checksum_complement(ipv4_sum_ + changed));
}

std::uint16_t Segmenter::start_checksum(std::span<std::byte> segment) const noexcept {
  const auto length = static_cast<std::uint32_t>(segment.size() - l4_);
  store_raw(&segment[checksum_field_], checksum_fold(pseudo_sum_ + checksum_word(length)));
  if (checksum_ == Checksum::leave) return load_raw<std::uint16_t>(&segment[checksum_field_]);
  return checksum_complement(checksum_add(0, segment.subspan(l4_)));
}

void Segmenter::write_tcp(std::span<std::byte> segment) const noexcept {
  std::byte* tcp = &segment[l4_];
  store_be32(tcp + kTcpSequence, load_be32(tcp + kTcpSequence) + index_ * gso_size_);
  unsigned cleared = 0;
  if (index_ != 0) cleared |= kTcpCwr;
  if (!is_last()) cleared |= kTcpFin | kTcpPsh;
  tcp[kTcpFlags] &= ~static_cast<std::byte>(cleared);
  // The kernel does not respell 0 here (it does in UDP); both spellings verify.
  store_raw(&segment[checksum_field_], start_checksum(segment));
}

void Segmenter::write_udp(std::span<std::byte> segment) const noexcept {
  store_be16(&segment[l4_ + kUdpLength], static_cast<std::uint16_t>(segment.size() - l4_));
  const std::uint16_t checksum = start_checksum(segment);
  const bool respell = checksum == 0 && checksum_ == Checksum::finish;
  store_raw<std::uint16_t>(&segment[checksum_field_], respell ? 0xffff : checksum);
}

}  // namespace vswitch
