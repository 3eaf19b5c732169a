#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace vswitch::bench {

/// The bytes of a test stream: byte number n is always the same. They repeat after a prime number of bytes, which no
/// length of a segment divides: a segment that is missing, doubled or out of place shows.
class Pattern {
 public:
  static constexpr std::size_t kMostBytes = 256 * 1024;  ///< of one look

  Pattern() : bytes_(kPeriod + kMostBytes) {
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < kPeriod; ++i)
      bytes_[i] = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    for (std::size_t i = kPeriod; i < bytes_.size(); ++i) bytes_[i] = bytes_[i - kPeriod];
  }

  /// `count` bytes, at most kMostBytes, from byte number `offset` on.
  [[nodiscard]] std::span<const std::byte> at(std::uint64_t offset, std::size_t count) const noexcept {
    return std::span(bytes_).subspan(offset % kPeriod, count);
  }
  [[nodiscard]] bool matches(std::uint64_t offset, std::span<const std::byte> bytes) const noexcept {
    return std::memcmp(at(offset, bytes.size()).data(), bytes.data(), bytes.size()) == 0;
  }

 private:
  static constexpr std::size_t kPeriod = 65521;

  std::vector<std::byte> bytes_;
};

}  // namespace vswitch::bench
