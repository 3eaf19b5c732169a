#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/offload.h"

namespace vswitch {

/// Cuts a TCP or UDP GSO frame into the frames the kernel would make of it, bit by bit.
///
/// Theory of operation: headers are copied from the private header copy to each segment and then changed there; payload
/// is copied once, from memory that its owner may be rewriting, and the checksum is computed over the copy, so that it
/// is right for what is sent. Per segment i: IPv4 total length, ID + i and header checksum, or IPv6 payload length; TCP
/// sequence + i * gso_size, FIN and PSH on the last only, CWR on the first only; UDP length; transport checksum. All
/// else, VLAN tags, options and extension headers included, is repeated as it is. The checksum starts from the
/// pseudo-header sum the sender left in the field, because only the sender knows the final destination of a frame with
/// a routing header (RFC 8200 section 8.1).
class Segmenter {
 public:
  enum class Checksum : std::uint8_t {
    finish,  ///< segments are finished frames
    leave,   ///< segments have NEEDS_CSUM, at the same csum_start and csum_offset
  };

  /// @param header private copy of the first bytes of the frame, all its headers included; must outlive this
  /// @param rest what lies behind `header` in the frame; read once, never judged; must outlive this
  /// @param offload validated and sanitized (offload_check.h); for any other there are no segments
  Segmenter(std::span<const std::byte> header, std::span<const std::byte> rest, const Offload& offload,
            Checksum checksum) noexcept;

  /// Segments in all.
  [[nodiscard]] std::uint32_t segments() const noexcept { return segments_; }
  /// Bytes of the next segment; 0 when there is none.
  [[nodiscard]] std::size_t next_length() const noexcept;

  /// Writes the next segment to the start of `out`.
  /// @return its bytes; 0 when there is none or `out` is shorter than next_length()
  [[nodiscard]] std::size_t next(std::span<std::byte> out) noexcept;

 private:
  void copy_payload(std::byte* to, std::size_t length) noexcept;
  void write_ip(std::span<std::byte> segment) const noexcept;
  void write_tcp(std::span<std::byte> segment) const noexcept;
  void write_udp(std::span<std::byte> segment) const noexcept;
  /// Stores the pseudo-header sum, or the sum over all of it.
  [[nodiscard]] std::uint16_t start_checksum(std::span<std::byte> segment) const noexcept;
  [[nodiscard]] bool is_last() const noexcept { return index_ + 1 == segments_; }

  std::span<const std::byte> headers_;
  std::span<const std::byte> head_;  ///< payload left in the private copy
  std::span<const std::byte> tail_;  ///< payload left behind it
  std::uint64_t ipv4_sum_ = 0;       ///< of the IPv4 header's words that do not change
  std::uint64_t pseudo_sum_ = 0;     ///< without the length
  std::uint32_t segments_ = 0;
  std::uint32_t index_ = 0;
  std::uint16_t gso_size_ = 0;
  std::uint16_t l3_ = 0;
  std::uint16_t l4_ = 0;
  std::uint16_t checksum_field_ = 0;  ///< from frame start
  bool ipv4_ = false;
  bool tcp_ = false;
  Checksum checksum_;
};

}  // namespace vswitch
