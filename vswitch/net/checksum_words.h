#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "vswitch/net/wire.h"

// The Internet checksum in words of 64 bits and less: short messages, and what is left of long ones. All of it is
// inlined into its callers; pure; any thread.

namespace vswitch {

/// A number below 2^33 that is congruent to `sum` modulo 2^16 - 1.
[[nodiscard]] constexpr std::uint64_t fold_once(std::uint64_t sum) noexcept {
  return (sum & 0xffff'ffffU) + (sum >> 32);
}

/// `sum` in 16 bits. See checksum_fold().
[[nodiscard]] constexpr std::uint16_t fold_to_word(std::uint64_t sum) noexcept {
  sum = fold_once(fold_once(sum));
  sum = (sum & 0xffffU) + (sum >> 16);
  sum = (sum & 0xffffU) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

/// What the sum of a chunk contributes when `offset` bytes precede it in its message: with its bytes swapped if that is
/// odd (RFC 1071 section 2(B)).
[[nodiscard]] constexpr std::uint64_t sum_at(std::size_t offset, std::uint64_t sum) noexcept {
  return offset % 2 == 0 ? sum : __builtin_bswap16(fold_to_word(sum));
}

/// How far `at` is from the next multiple of `alignment`, a power of two.
[[nodiscard]] inline std::size_t bytes_before_multiple(const std::byte* at, std::size_t alignment) noexcept {
  return -reinterpret_cast<std::uintptr_t>(at) & (alignment - 1);
}

/// The sum of 32-bit words that come as 64-bit ones, without a look at any carry: `all` adds 64-bit words modulo 2^64,
/// `high` their upper halves. The sum of the lower halves is all - 2^32 high, which is less than 2^64 for less than
/// 2^32 words and so is exact. Vectors of 64-bit lanes do the same, lane by lane.
struct WordSum {
  std::uint64_t all = 0;
  std::uint64_t high = 0;

  void add(std::uint64_t word) noexcept {
    all += word;
    high += word >> 32;
  }
  /// The sum as one number below 2^33: both halves of a word have the same weight modulo 2^16 - 1.
  [[nodiscard]] std::uint64_t total() const noexcept { return fold_once((all - (high << 32)) + high); }
};

/// `value` in a register, of which the compiler no longer knows where it came from. What is stored and what is summed
/// are then the same, whoever writes to the source meanwhile: nothing can be loaded a second time.
template <class T>
[[nodiscard]] inline T loaded_once(T value) noexcept {
  asm volatile("" : "+r"(value));
  return value;
}

/// An odd last byte, as the 16-bit word that it and a zero make.
[[nodiscard]] inline std::uint64_t last_word(std::uint8_t byte) noexcept {
  return std::endian::native == std::endian::little ? byte : std::uint64_t{byte} << 8;
}

/// Adds `length` bytes. Meant for short ones: eight at a time.
inline void add_words(WordSum& sum, const std::byte* from, std::size_t length) noexcept {
  for (; length >= sizeof(std::uint64_t); length -= sizeof(std::uint64_t), from += sizeof(std::uint64_t)) {
    sum.add(load_raw<std::uint64_t>(from));
  }
  // Whole loads, not a copy of `length` bytes: what was just stored in pieces is slow to load as one.
  if ((length & 4) != 0) {
    sum.all += load_raw<std::uint32_t>(from);
    from += 4;
  }
  if ((length & 2) != 0) {
    sum.all += load_raw<std::uint16_t>(from);
    from += 2;
  }
  if ((length & 1) != 0) sum.all += last_word(load_u8(from));
}

/// The T at `from` for its caller to sum; it is stored at `to`.
template <class T>
[[nodiscard]] inline T copy_word(std::byte* to, const std::byte* from) noexcept {
  const T word = loaded_once(load_raw<T>(from));
  store_raw(to, word);
  return word;
}

/// Copies `length` bytes and adds them as add_words() would.
inline void copy_words(WordSum& sum, std::byte* to, const std::byte* from, std::size_t length) noexcept {
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  for (; length >= kWord; length -= kWord, from += kWord, to += kWord) sum.add(copy_word<std::uint64_t>(to, from));
  if ((length & 4) != 0) {
    sum.all += copy_word<std::uint32_t>(to, from);
    from += 4;
    to += 4;
  }
  if ((length & 2) != 0) {
    sum.all += copy_word<std::uint16_t>(to, from);
    from += 2;
    to += 2;
  }
  if ((length & 1) != 0) sum.all += last_word(copy_word<std::uint8_t>(to, from));
}

}  // namespace vswitch
