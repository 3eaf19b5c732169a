#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/offload.h"

namespace vswitch {

/// Bytes of a frame that are copied once into private memory before anything looks at them: two VLAN tags, IPv6 and the
/// longest TCP header fit.
inline constexpr std::size_t kHeaderBytes = 128;
/// Frames handled together.
inline constexpr std::size_t kBurstFrames = 64;
inline constexpr std::size_t kEthernetHeaderBytes = 14;
inline constexpr std::size_t kVlanTagBytes = 4;
/// The longest frame any queue lends: a 64 KiB GSO frame with its Ethernet header and two tags, rounded up.
inline constexpr std::size_t kMaxFrameBytes = 65'536 + 64;

/// What whoever copies a frame out has to complete in the copy (copy_out.h).
enum class Finish : std::uint8_t {
  none,
  checksum,        ///< the checksum that `offload` asks for; 0 is spelled 0xffff
  checksum_as_is,  ///< the same, but 0 stays 0, as in the segments that the kernel makes of TCP
};

/// Set while a queue uses the memory of a frame past transmit(), and past the release() of the queue that lent it,
/// which does not give the memory back before. Set by the worker; cleared by whoever knows that the memory is free
/// again.
using Kept = std::atomic<bool>;

/// One borrowed Ethernet frame: it lies where it arrived until its queue's release().
///
/// The first header_bytes bytes are `header` (private memory, the copy that is judged is the copy that is sent); the
/// rest is at data + header_bytes, which may be memory that a hostile tenant rewrites at any moment: copy it, never
/// judge it.
struct Frame {
  const std::byte* data =
      nullptr;                  ///< byte 0 of the frame where it lies; bytes before header_bytes must not be read here
  std::byte* header = nullptr;  ///< private; kHeaderBytes readable, header_bytes of them are the frame's
  std::uint32_t length = 0;     ///< bytes of the whole frame, without FCS, without `vlan`
  std::uint16_t header_bytes =
      0;                   ///< at most kHeaderBytes; all headers, and of a received frame min(length, kHeaderBytes)
  std::uint16_t vlan = 0;  ///< 802.1Q TCI held beside the frame (host order), 0 = none; not in header or data
  Offload offload;         ///< validated; offsets count from byte 0 of the frame as described here
  Finish finish = Finish::none;  ///< set for a destination that takes no partial checksum; receivers leave it alone
  Kept* kept = nullptr;  ///< a queue that lets a device read `data` by itself sets it; nullptr, or set: it must copy

  [[nodiscard]] std::uint16_t vlan_id() const noexcept { return vlan & 0x0fffU; }
  /// What is left to do for who receives the copy.
  [[nodiscard]] Offload left_to_do() const noexcept { return finish == Finish::none ? offload : Offload{}; }
  /// What lies behind the header copy.
  [[nodiscard]] std::span<const std::byte> rest() const noexcept {
    return {data + header_bytes, length - header_bytes};
  }
};

/// Up to kBurstFrames lent frames and the private memory their headers are in. One per worker, reused for every burst.
class Burst {
 public:
  Burst() noexcept {
    for (std::size_t i = 0; i < kBurstFrames; ++i) frames_[i].header = headers_[i].data();
  }
  Burst(const Burst&) = delete;
  Burst& operator=(const Burst&) = delete;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t room() const noexcept { return limit_ - size_; }
  /// The next free frame, its header pointer set to private memory, not to be kept; add() makes it part of the burst.
  /// Only while room() > 0.
  [[nodiscard]] Frame& next() noexcept {
    frames_[size_].kept = nullptr;
    return frames_[size_];
  }
  void add() noexcept { ++size_; }
  /// Empties the burst and bounds the next one.
  void clear(std::size_t limit = kBurstFrames) noexcept {
    size_ = 0;
    limit_ = limit;
  }
  [[nodiscard]] Frame* begin() noexcept { return frames_.data(); }
  [[nodiscard]] Frame* end() noexcept { return frames_.data() + size_; }
  [[nodiscard]] Frame& operator[](std::size_t i) noexcept { return frames_[i]; }

 private:
  std::size_t size_ = 0;
  std::size_t limit_ = kBurstFrames;
  std::array<Frame, kBurstFrames> frames_;
  alignas(64) std::array<std::array<std::byte, kHeaderBytes>, kBurstFrames> headers_;
};

}  // namespace vswitch
