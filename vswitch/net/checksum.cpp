#include "vswitch/net/checksum.h"

#include <algorithm>
#include <array>

#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::size_t kWord = sizeof(std::uint64_t);
constexpr std::uint64_t kLow = 0xffff'ffffU;

}  // namespace

std::uint64_t checksum_add(std::uint64_t sum, std::span<const std::byte> bytes) noexcept {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  // Halves of 32 bits in 64-bit sums leave no carry to look after; several sums keep the additions independent.
  std::uint64_t even = 0;
  std::uint64_t odd = 0;
  for (; left >= 4 * kWord; left -= 4 * kWord, at += 4 * kWord) {
    const auto a = load_raw<std::uint64_t>(at);
    const auto b = load_raw<std::uint64_t>(at + kWord);
    const auto c = load_raw<std::uint64_t>(at + 2 * kWord);
    const auto d = load_raw<std::uint64_t>(at + 3 * kWord);
    even += (a & kLow) + (b & kLow) + (c & kLow) + (d & kLow);
    odd += (a >> 32) + (b >> 32) + (c >> 32) + (d >> 32);
  }
  for (; left >= kWord; left -= kWord, at += kWord) {
    const auto word = load_raw<std::uint64_t>(at);
    even += word & kLow;
    odd += word >> 32;
  }
  // Whole loads, not a copy of `left` bytes: what was just stored in pieces is slow to load as one.
  if ((left & 4) != 0) {
    even += load_raw<std::uint32_t>(at);
    at += 4;
  }
  if ((left & 2) != 0) {
    odd += load_raw<std::uint16_t>(at);
    at += 2;
  }
  if ((left & 1) != 0) {
    std::array<std::byte, 2> last{*at, std::byte{0}};
    even += load_raw<std::uint16_t>(last.data());
  }
  // Folded once: whatever the caller adds next starts from less than 2^34.
  const std::uint64_t total = (even & kLow) + (even >> 32) + (odd & kLow) + (odd >> 32);
  return sum + total;
}

std::uint16_t checksum_fold(std::uint64_t sum) noexcept {
  sum = (sum & kLow) + (sum >> 32);
  sum = (sum & kLow) + (sum >> 32);
  sum = (sum & 0xffffU) + (sum >> 16);
  sum = (sum & 0xffffU) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

std::uint64_t checksum_copy(std::uint64_t sum, std::byte* to, std::span<const std::byte> from) noexcept {
  std::copy(from.begin(), from.end(), to);
  return checksum_add(sum, {to, from.size()});
}
std::uint64_t checksum_shift(std::uint64_t sum) noexcept { return __builtin_bswap16(checksum_fold(sum)); }

std::uint64_t checksum_word(std::uint32_t value) noexcept { return swap_to_wire(value); }

std::uint64_t pseudo_sum_v4(const std::byte* addresses, std::uint8_t protocol, std::uint32_t length) noexcept {
  return checksum_add(checksum_word(protocol) + checksum_word(length), {addresses, 8});
}

std::uint64_t pseudo_sum_v6(const std::byte* addresses, std::uint8_t protocol, std::uint32_t length) noexcept {
  return checksum_add(checksum_word(protocol) + checksum_word(length), {addresses, 32});
}

}  // namespace vswitch
