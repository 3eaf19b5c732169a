#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "vswitch/base/memory.h"
#include "vswitch/core/frame.h"
#include "vswitch/net/offload.h"

namespace vswitch {

/// Merges TCP frames that follow each other into GSO frames, for a destination that takes those: software GRO. One per
/// worker, used by it only.
///
/// Theory of operation. It sees the frames that one burst brings for one destination, and holds none beyond it: nothing
/// waits, as nothing waits in a NAPI poll of the kernel. A frame starts a flow; the next one of the same flow joins if
/// the kernel would let it (tcp_gro_receive, inet_gro_receive, ipv6_gro_receive): the same headers but for what a
/// segmenter would write (lengths, ID, sequence number, checksums, PSH, FIN), the next sequence number, no more payload
/// than the first, a valid checksum. A shorter frame, or one with PSH or FIN, joins as the last. What may not join ends
/// the flow, so the order within a flow stays. The merged frame takes the place of its first one, and cutting it again
/// gives the frames it was made of (but for IPv4 IDs that do not count up, which the kernel takes when DF is set: they
/// mean nothing then, RFC 6864). Payload is copied into private memory, where the checksum is verified: in the sender's
/// memory it could change after that.
class Coalescer {
 public:
  /// Throws Error (no memory).
  Coalescer();

  /// Merges what can be merged. Merged frames live until the next call.
  /// @param frames replaced by those to be sent instead, in order, from the start
  /// @param caps what the destination takes
  /// @return how many there are now
  [[nodiscard]] std::size_t merge(std::span<const Frame*> frames, OffloadCaps caps) noexcept;

 private:
  static constexpr std::size_t kOpen = 8;                   ///< flows that frames can join at a time
  static constexpr std::size_t kMerged = kBurstFrames / 2;  ///< a merged frame has at least two
  /// Where one merged frame's payload lies, behind room for its headers. Not a power of two: regions share no cache
  /// set.
  static constexpr std::size_t kRegionBytes = kMaxFrameBytes + std::size_t{33} * 64;

  /// Where a TCP frame has what.
  struct Segment {
    std::uint16_t l3 = 0;
    std::uint16_t l4 = 0;
    std::uint16_t header_length = 0;
    bool ipv4 = false;
    bool mergeable = false;  ///< alone, it has nothing against being merged
    std::uint32_t payload = 0;
  };
  struct Flow {
    std::size_t at = 0;  ///< of the first frame, in the list
    const Frame* first = nullptr;
    Segment segment;               ///< of the first frame
    std::byte* payload = nullptr;  ///< private copy; nullptr: nothing joined yet
    std::uint32_t bytes = 0;       ///< of payload
    std::uint16_t frames = 0;
    std::byte last_flags{};  ///< PSH and FIN of the last frame
    bool same_id = false;    ///< IPv4: all IDs are equal; else each is one more than the one before
  };
  struct Memory {
    std::array<Frame, kMerged> frames;
    alignas(64) std::array<std::array<std::byte, kHeaderBytes>, kMerged> headers;
  };

  [[nodiscard]] static Segment look_at(const Frame& frame, OffloadCaps caps) noexcept;
  [[nodiscard]] static bool is_plain_ip(const Frame& frame, const Segment& segment) noexcept;
  [[nodiscard]] static bool same_flow(const Flow& flow, const Frame& frame, const Segment& segment) noexcept;
  [[nodiscard]] static bool may_join(const Flow& flow, const Frame& frame, const Segment& segment) noexcept;
  [[nodiscard]] static bool same_ip(const Flow& flow, const Frame& frame) noexcept;
  [[nodiscard]] static bool copy_verified(std::byte* to, const Frame& frame, const Segment& segment) noexcept;

  void offer(std::span<const Frame*> frames, std::size_t i, const Segment& segment, OffloadCaps caps) noexcept;
  [[nodiscard]] bool join(Flow& flow, const Frame& frame, const Segment& segment) noexcept;
  void open(std::span<const Frame*> frames, std::size_t i, const Segment& segment, OffloadCaps caps) noexcept;
  void close(std::span<const Frame*> frames, std::size_t which) noexcept;
  [[nodiscard]] const Frame& merged_frame(const Flow& flow) noexcept;

  Mapping regions_;
  std::unique_ptr<Memory> memory_;
  std::array<Flow, kOpen> open_{};  ///< oldest first
  std::size_t open_count_ = 0;
  std::size_t used_regions_ = 0;
  std::size_t used_frames_ = 0;
};

}  // namespace vswitch
