#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/softnic/core/headers.h"

/// What a NIC does to frames besides carrying them. Plain and slow on purpose: it shares no code with what it tests.
namespace softnic {

/// RFC 1071: one's-complement sum of `bytes` (an odd last byte is padded with zero), added to `sum`, not folded.
[[nodiscard]] std::uint64_t sum_words(Bytes bytes, std::uint64_t sum = 0) noexcept;
/// The 16-bit checksum that belongs to `sum`: folded and inverted.
[[nodiscard]] std::uint16_t fold(std::uint64_t sum) noexcept;

/// Writes the IPv4 header checksum of `frame`; nothing where there is no IPv4 header.
void insert_l3_checksum(std::span<std::uint8_t> frame, const Headers& headers) noexcept;
/// Writes the TCP or UDP checksum over pseudo header and datagram (UDP: 0 becomes 0xffff, RFC 768); nothing for other
/// protocols and for fragments.
void insert_l4_checksum(std::span<std::uint8_t> frame, const Headers& headers) noexcept;

struct ChecksumResult {
  bool l3_ok = false;  ///< IPv4 header checksum is right; true for IPv6, which has none
  bool l4_ok = false;  ///< TCP or UDP checksum is right; UDP over IPv4 without checksum (0) counts as right
};
/// Both are false where there is no such header, and for l4 of fragments and truncated datagrams.
[[nodiscard]] ChecksumResult verify(Bytes frame, const Headers& headers) noexcept;

/// Cuts one TCP frame into frames of at most `mss` payload bytes, as a NIC does for a send work request of kind TSO:
/// each gets the headers, its own IPv4 total length and identification (counting up) or IPv6 payload length, its own
/// sequence number; FIN and PSH stay on the last only, CWR on the first only; checksums L3 and L4 are inserted.
class Segmenter {
 public:
  /// `header` (headers up to and with TCP) and `payload` must outlive it. `mss` > 0.
  Segmenter(Bytes header, Bytes payload, std::size_t mss) noexcept;
  /// False where `header` is not exactly the headers of a TCP frame, or mss is 0: such a request is a local QP error.
  [[nodiscard]] bool valid() const noexcept { return valid_; }
  /// Writes the next frame to the start of `out`. @return its bytes, 0 after the last one or when `out` is too small.
  /// A frame without payload gives one frame.
  [[nodiscard]] std::size_t next(std::span<std::uint8_t> out) noexcept;

 private:
  Bytes header_;
  Bytes payload_;
  std::size_t mss_;
  Headers headers_;
  std::size_t done_ = 0;
  std::uint16_t index_ = 0;
  bool finished_ = false;
  bool valid_ = false;
};

/// Toeplitz hash of `input` with `key` (40 bytes for up to 36 of input), as in Microsoft's RSS specification.
[[nodiscard]] std::uint32_t toeplitz(Bytes key, Bytes input) noexcept;

/// Inserts an 802.1Q tag behind the MAC addresses: `frame` holds `length` bytes and has room for 4 more.
/// @return the new length.
std::size_t insert_vlan(std::span<std::uint8_t> frame, std::size_t length, std::uint16_t tci) noexcept;
/// Removes the outermost tag of `frame`, which must have one. @return the new length.
std::size_t strip_vlan(std::span<std::uint8_t> frame) noexcept;

}  // namespace softnic
