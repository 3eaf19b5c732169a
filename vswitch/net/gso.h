#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/offload.h"

namespace vswitch {

/// Cuts a TCP or UDP GSO frame into the frames the kernel would make of it, bit by bit.
///
/// Theory of operation: only headers are made here. Each segment's headers are copied from the private header copy and
/// changed; its payload stays in the frame, for whoever copies the segment out (core/copy_out.h), so that it is copied
/// once and its checksum computed on the way. Per segment i: IPv4 total length, ID + i and header checksum, or IPv6
/// payload length; TCP sequence + i * gso_size, FIN and PSH on the last only, CWR on the first only; UDP length; in the
/// checksum field the sum of the pseudo-header, as NEEDS_CSUM has it. All else, VLAN tags, options and extension
/// headers included, is repeated as it is. The pseudo-header sum is made from the one the sender left, because only the
/// sender knows the final destination of a frame with a routing header (RFC 8200 section 8.1).
class Segmenter {
 public:
  /// One segment: its first header_bytes bytes are those written, the rest of it is the frame's bytes from
  /// offset + header_bytes on.
  struct Segment {
    std::uint32_t length = 0;  ///< of all of it; 0: there is none
    std::uint32_t offset = 0;  ///< the frame's byte that would be the segment's first, if it had no headers of its own
    std::uint16_t header_bytes = 0;
  };

  /// @param header private copy of the first bytes of the frame, all its headers included; must outlive this
  /// @param frame_length bytes of the whole frame
  /// @param offload validated and sanitized (offload_check.h); for any other there are no segments
  Segmenter(std::span<const std::byte> header, std::size_t frame_length, const Offload& offload) noexcept;

  /// Segments in all.
  [[nodiscard]] std::uint32_t segments() const noexcept { return segments_; }

  /// Writes the next segment's headers, and the payload behind them that only the private copy has, to `out`.
  /// @param out as long as `header`, or longer
  [[nodiscard]] Segment next(std::span<std::byte> out) noexcept;

 private:
  /// What a segment's length decides: the same for all but the last one. In wire order.
  struct Lengths {
    std::uint64_t ipv4_sum = 0;   ///< of the IPv4 header but for its ID
    std::uint16_t ip = 0;         ///< IPv4 total length, IPv6 payload length
    std::uint16_t transport = 0;  ///< UDP length
    std::uint16_t pseudo = 0;     ///< sum of the pseudo-header
  };
  [[nodiscard]] Lengths lengths_of(std::uint32_t length) const noexcept;

  std::span<const std::byte> header_;
  std::uint64_t ipv4_sum_ = 0;    ///< of the IPv4 header's words that do not change
  std::uint64_t pseudo_sum_ = 0;  ///< without the length
  Lengths full_;                  ///< of a segment with gso_size bytes of payload
  std::uint32_t payload_ = 0;
  std::uint32_t sequence_ = 0;
  std::uint32_t segments_ = 0;
  std::uint32_t index_ = 0;
  std::uint16_t gso_size_ = 0;
  std::uint16_t header_length_ = 0;
  std::uint16_t id_ = 0;
  std::uint16_t l3_ = 0;
  std::uint16_t l4_ = 0;
  std::uint16_t checksum_field_ = 0;  ///< from frame start
  bool ipv4_ = false;
  bool tcp_ = false;
};

}  // namespace vswitch
