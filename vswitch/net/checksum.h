#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

// The Internet checksum (RFC 1071). Sums are kept unfolded in 64 bits and in the byte order of memory: RFC 1071 section
// 2(B) shows that the order does not matter as long as the result is stored the way the words were loaded. All
// functions are pure; any thread.

namespace vswitch {

/// `sum` plus the 16-bit words of `bytes`; an odd last byte counts as if a zero followed. Chunks of one message may be
/// added one by one if all but the last have an even length. Never overflows for less than 2^32 bytes in all.
[[nodiscard]] std::uint64_t checksum_add(std::uint64_t sum, std::span<const std::byte> bytes) noexcept;

/// Copies and sums in one pass: the sum is of what was stored at `to`, whatever happens to `from` meanwhile.
[[nodiscard]] std::uint64_t checksum_copy(std::uint64_t sum, std::byte* to, std::span<const std::byte> from) noexcept;
/// The sum of a chunk that starts at an odd byte of its message.
[[nodiscard]] std::uint64_t checksum_shift(std::uint64_t sum) noexcept;

/// A finished checksum after one 16-bit word under it has changed (RFC 1624 equation 3). All in memory order.
[[nodiscard]] inline std::uint16_t checksum_replace(std::uint16_t checksum, std::uint16_t before,
                                                    std::uint16_t after) noexcept;

/// `sum` in 16 bits, not complemented, in memory order: what a NEEDS_CSUM frame carries in its checksum field.
[[nodiscard]] std::uint16_t checksum_fold(std::uint64_t sum) noexcept;

/// The finished checksum, in memory order, as it comes out: IPv4 headers.
[[nodiscard]] inline std::uint16_t checksum_complement(std::uint64_t sum) noexcept {
  return static_cast<std::uint16_t>(~checksum_fold(sum));
}
/// The finished checksum with 0 written as 0xffff, its other spelling: 0 says "no checksum" in UDP (RFC 768).
[[nodiscard]] inline std::uint16_t checksum_finish(std::uint64_t sum) noexcept {
  const std::uint16_t checksum = checksum_complement(sum);
  return checksum == 0 ? std::uint16_t{0xffff} : checksum;
}

inline std::uint16_t checksum_replace(std::uint16_t checksum, std::uint16_t before, std::uint16_t after) noexcept {
  return checksum_complement(std::uint64_t{static_cast<std::uint16_t>(~checksum)} +
                             static_cast<std::uint16_t>(~before) + after);
}

/// The words of a length or a protocol number in a pseudo-header.
[[nodiscard]] std::uint64_t checksum_word(std::uint32_t value) noexcept;

/// The pseudo-header of RFC 9293 section 3.1 and RFC 768.
/// @param addresses source and destination, 8 bytes, as in the IPv4 header
/// @param length bytes of transport header and payload
[[nodiscard]] std::uint64_t pseudo_sum_v4(const std::byte* addresses, std::uint8_t protocol,
                                          std::uint32_t length) noexcept;
/// The pseudo-header of RFC 8200 section 8.1.
/// @param addresses source and destination, 32 bytes, as in the IPv6 header
[[nodiscard]] std::uint64_t pseudo_sum_v6(const std::byte* addresses, std::uint8_t protocol,
                                          std::uint32_t length) noexcept;

}  // namespace vswitch
