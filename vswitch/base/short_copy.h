#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

// Copies of at most two cache lines, inlined: a call of memcpy() costs more than they do.

namespace vswitch {

namespace detail {

/// 16 bytes as one register, wherever they lie.
using Move [[gnu::vector_size(16), gnu::aligned(1), gnu::may_alias]] = std::int64_t;
inline constexpr std::size_t kMove = sizeof(Move);
inline Move load(const std::byte* from) noexcept { return *reinterpret_cast<const Move*>(from); }
inline void store(std::byte* to, Move value) noexcept { *reinterpret_cast<Move*>(to) = value; }

}  // namespace detail

inline constexpr std::size_t kCopyLine = 64;

/// Exactly one cache line's worth of bytes.
inline void copy_line(std::byte* to, const std::byte* from) noexcept {
  for (std::size_t at = 0; at < kCopyLine; at += detail::kMove) detail::store(to + at, detail::load(from + at));
}

/// Exactly `bytes` (at most kCopyLine) bytes, by four moves that may overlap; nothing behind them is read or written.
inline void copy_up_to_line(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  using namespace detail;
  if (bytes < 2 * kMove) {
    std::memcpy(to, from, bytes);
    return;
  }
  const Move first = load(from);
  const Move second = load(from + kMove);
  const Move second_last = load(from + bytes - 2 * kMove);
  const Move last = load(from + bytes - kMove);
  store(to, first);
  store(to + kMove, second);
  store(to + bytes - 2 * kMove, second_last);
  store(to + bytes - kMove, last);
}

/// Exactly `bytes` (at most two lines) bytes.
inline void copy_up_to_two_lines(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  if (bytes <= kCopyLine) {
    copy_up_to_line(to, from, bytes);
    return;
  }
  copy_line(to, from);
  // Overlapping what was just copied is cheaper than a copy of the odd rest.
  copy_up_to_line(to + bytes - kCopyLine, from + bytes - kCopyLine, kCopyLine);
}

}  // namespace vswitch
