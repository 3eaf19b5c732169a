#pragma once
#include <vswitch/vswitch.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vswitch/net/mac.h"

// Numbered frames and what becomes of them.

namespace vswitch::bench {

inline constexpr std::uint32_t kBurst = 64;
inline constexpr std::uint32_t kLeastSize = 64;
inline constexpr std::uint32_t kMostSize = 9216;
inline constexpr std::size_t kNumberAt = 16;  ///< the frame's 64-bit number, host order

/// MAC address `which` of port `port`, both below 65,536: 02:00, port, which. The configuration of a benchmark gives
/// each port address 0 as `mac` and the rest as `macs`.
[[nodiscard]] Mac mac_of(std::uint32_t port, std::uint32_t which) noexcept;

/// Writes numbered frames from port to port: number n goes from MAC n to MAC n, modulo how many there are.
class FrameWriter {
 public:
  /// @param macs a power of two
  FrameWriter(std::uint32_t from_port, std::uint32_t to_port, std::uint32_t macs, std::uint32_t size);

  /// Fills reserved frames with the next numbers.
  void write(const vswitch_frame* frames, std::uint32_t count) noexcept {
    const std::byte* const bytes = bytes_.data();  // locals: the stores below could alias members
    const std::uint32_t size = size_;
    const std::uint64_t mac_mask = mac_mask_;
    const std::uint64_t first = next_;
    for (std::uint32_t i = 0; i < count; ++i) {
      auto* const to = static_cast<std::byte*>(frames[i].data);
      const std::uint64_t number = first + i;
      if (size == kLeastSize) {
        std::memcpy(to, bytes, kLeastSize);  // a constant length: no call
      } else {
        std::memcpy(to, bytes, size);
      }
      std::memcpy(to + kNumberAt, &number, sizeof(number));
      if (mac_mask != 0) address(to, number & mac_mask);
    }
    next_ = first + count;
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint64_t written() const noexcept { return next_; }
  /// Looks at the length and every byte but the number's.
  [[nodiscard]] bool is_right(const vswitch_frame& frame) const noexcept;
  /// By its source address. Others may send to the reader too: multicast, say.
  [[nodiscard]] bool is_source_of(const vswitch_frame& frame) const noexcept;

 private:
  /// The last two bytes of both addresses, big-endian.
  static void address(std::byte* frame, std::uint64_t mac) noexcept {
    const std::uint16_t which = __builtin_bswap16(static_cast<std::uint16_t>(mac));
    std::memcpy(frame + 4, &which, sizeof(which));
    std::memcpy(frame + 10, &which, sizeof(which));
  }

  std::vector<std::byte> bytes_;
  std::uint32_t size_;
  std::uint64_t mac_mask_;
  std::uint64_t next_ = 0;
};

/// What a reader found. Lost frames show as gaps in the numbers.
struct Findings {
  std::uint64_t received = 0;
  std::uint64_t lost = 0;
  std::uint64_t reordered = 0;  ///< or doubled
  std::uint64_t wrong = 0;      ///< another length, or other bytes than were sent
};

/// Counts every frame of its source by the number, and looks at every byte of the first one of each burst.
class FrameReader {
 public:
  explicit FrameReader(const FrameWriter& source) noexcept : source_(source) {}

  /// @return how many of these are of its source
  std::uint32_t look(const vswitch_frame* frames, std::uint32_t count) noexcept {
    const std::uint32_t size = source_.size();
    std::uint64_t next = next_;
    std::uint32_t own = count;
    for (std::uint32_t i = 0; i < count; ++i) {
      std::uint64_t number;
      std::memcpy(&number, static_cast<const std::byte*>(frames[i].data) + kNumberAt, sizeof(number));
      if (number != next || frames[i].length != size) [[unlikely]] {
        if (!note(frames[i], number, next)) {
          --own;
          continue;
        }
      }
      next = number + 1;
    }
    if (count != 0 && source_.is_source_of(frames[0]) && !source_.is_right(frames[0])) [[unlikely]]
      ++findings_.wrong;
    next_ = next;
    findings_.received += own;
    return own;
  }
  [[nodiscard]] const Findings& findings() const noexcept { return findings_; }

 private:
  /// An unexpected frame. @return true if it is of the source
  bool note(const vswitch_frame& frame, std::uint64_t number, std::uint64_t expected) noexcept;

  const FrameWriter& source_;
  std::uint64_t next_ = 0;
  Findings findings_;
};

}  // namespace vswitch::bench
