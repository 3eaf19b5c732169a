#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/checksum_words.h"
#include "vswitch/net/wire.h"

// The Internet checksum (RFC 1071). Sums are kept unfolded in 64 bits and in the byte order of memory: RFC 1071 section
// 2(B) shows that the order does not matter as long as the result is stored the way the words were loaded. All
// functions are pure but for what checksum_copy() writes; any thread.

namespace vswitch {

/// Long messages go through the vector unit (checksum_kernels.h); for shorter ones, such as headers, the way there
/// costs more than it saves.
inline constexpr std::size_t kShortChecksumBytes = 64;
/// checksum_add() and checksum_copy() of any length, by the fastest kernel that this CPU has.
[[nodiscard]] std::uint64_t checksum_add_long(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept;
[[nodiscard]] std::uint64_t checksum_copy_long(std::uint64_t sum, std::byte* to, const std::byte* from,
                                               std::size_t length) noexcept;

/// `sum` plus the 16-bit words of `bytes`; an odd last byte counts as if a zero followed. Chunks of one message may be
/// added one by one if all but the last have an even length; checksum_shift() is for the others. Never overflows for
/// less than 2^32 bytes in all.
[[nodiscard]] inline std::uint64_t checksum_add(std::uint64_t sum, std::span<const std::byte> bytes) noexcept {
  if (bytes.size() >= kShortChecksumBytes) return checksum_add_long(sum, bytes.data(), bytes.size());
  WordSum words;
  add_words(words, bytes.data(), bytes.size());
  return sum + words.total();
}

/// Copies `from` to `to`, which do not overlap, and returns checksum_add(sum, ...) of the bytes that it wrote. Every
/// byte of `from` is loaded once: the sum is that of the copy, also when the owner of `from` writes to it meanwhile.
/// @param to has room for as many bytes as `from` has; nothing else is written
[[nodiscard]] inline std::uint64_t checksum_copy(std::uint64_t sum, std::byte* to,
                                                 std::span<const std::byte> from) noexcept {
  if (from.size() >= kShortChecksumBytes) return checksum_copy_long(sum, to, from.data(), from.size());
  WordSum words;
  copy_words(words, to, from.data(), from.size());
  return sum + words.total();
}

/// `sum` in 16 bits, not complemented, in memory order: what a NEEDS_CSUM frame carries in its checksum field.
[[nodiscard]] constexpr std::uint16_t checksum_fold(std::uint64_t sum) noexcept { return fold_to_word(sum); }

/// What the sum of a chunk, begun with 0, contributes to that of its message when the chunk starts at an odd offset
/// there: the sum with its bytes swapped (RFC 1071 section 2(B)). Below 2^16.
[[nodiscard]] constexpr std::uint64_t checksum_shift(std::uint64_t sum) noexcept { return sum_at(1, sum); }

/// The finished checksum, in memory order, as it comes out: IPv4 headers.
[[nodiscard]] constexpr std::uint16_t checksum_complement(std::uint64_t sum) noexcept {
  return static_cast<std::uint16_t>(~checksum_fold(sum));
}
/// The finished checksum with 0 written as 0xffff, its other spelling: 0 says "no checksum" in UDP (RFC 768).
[[nodiscard]] constexpr std::uint16_t checksum_finish(std::uint64_t sum) noexcept {
  const std::uint16_t checksum = checksum_complement(sum);
  return checksum == 0 ? std::uint16_t{0xffff} : checksum;
}

/// The finished checksum of a message in which one 16-bit word, at an even offset, changes from `before` to `after`;
/// all in memory order. RFC 1624 equation 3. Zero comes out as 0, as checksum_complement() spells it for every message
/// that is not all zeros (in UDP the caller has to respell it); as 0xffff only when nothing but 0xffff, 0xffff and 0
/// went in.
[[nodiscard]] constexpr std::uint16_t checksum_replace(std::uint16_t checksum, std::uint16_t before,
                                                       std::uint16_t after) noexcept {
  return checksum_complement((std::uint64_t{0xffff} - checksum) + (std::uint64_t{0xffff} - before) + after);
}

/// The words of a length or a protocol number in a pseudo-header.
[[nodiscard]] constexpr std::uint64_t checksum_word(std::uint32_t value) noexcept { return swap_to_wire(value); }

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
