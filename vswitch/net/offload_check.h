#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/offload.h"

// What a port does with the offload header of every frame it receives, before anybody else sees it:
//   if (check_offload(offload, header, length) != OffloadFault::none) drop it;
//   offload = sanitize(offload, header, length, from);
// (vswitch/core/intake.h does both.)
// All functions are pure but for the header that sanitize() may complete; any thread.

namespace vswitch {

/// Segments that one GSO frame may ask for: bounds what a frame of 64 KiB and a gso_size of 1 can cost.
inline constexpr std::uint32_t kMaxSegments = 128;

/// Who wrote an offload header.
enum class OffloadOrigin : std::uint8_t {
  tenant,  ///< may lie
  kernel,  ///< an uplink's kernel: its DATA_VALID is true
};

/// What is wrong with an offload header. Each has a drop reason of its own (vswitch/core/drop.h).
enum class OffloadFault : std::uint8_t {
  none,
  headers,         ///< the headers that it speaks of are incomplete or not in `header`
  checksum_range,  ///< the checksum starts before the IP header's end or ends behind the frame
  checksum_place,  ///< what it covers has no checksum there: ARP, a fragment, another field of the protocol
  gso_type,        ///< unknown, or not what the frame is
  gso_checksum,    ///< the checksum of a GSO frame is not its transport's
  gso_length,      ///< the frame is too long for IP, or its IP header speaks of more than is there
  gso_size,        ///< zero, or segments that IP cannot describe
  gso_segments,    ///< asks for more than kMaxSegments
};

[[nodiscard]] OffloadFault check_unfinished(const Offload& offload, std::span<const std::byte> header,
                                            std::uint32_t frame_length) noexcept;

[[nodiscard]] Offload sanitize_unfinished(const Offload& offload, std::span<std::byte> header,
                                          std::uint32_t frame_length) noexcept;

/// Whether an untrusted offload header agrees with its frame, so that nothing which acts on it later reads or writes
/// outside the frame, or outside the part of it that nobody judges. Rules: virtio 1.2 section 5.1.6.2, and
///  - a checksum starts behind all L2 and IP headers and ends inside the frame; ARP and IP fragments have none; in TCP,
///    UDP and ICMP its field is where the protocol has it (else it could rewrite what anti-spoofing has judged);
///  - a GSO frame is TCP over the IP version its type says, or UDP; its headers are complete, in `header`, at most two
///    VLAN tags and eight IPv6 extension headers long; its IP length is not more than what is there; its checksum is
///    its transport's; it makes at most kMaxSegments segments that IP can describe. UFO is not offered, so not valid.
/// GSO without NEEDS_CSUM is accepted, as the kernel does: receivers that merge segments hand out such frames.
/// @param header private copy of the first bytes of the frame; at least 14, or the frame is not valid
/// @return none: it does
[[nodiscard]] inline OffloadFault check_offload(const Offload& offload, std::span<const std::byte> header,
                                                std::uint32_t frame_length) noexcept {
  constexpr std::size_t kEthernet = 14;
  if (header.size() < kEthernet || header.size() > frame_length) return OffloadFault::headers;
  if (offload.is_finished()) return OffloadFault::none;
  return check_unfinished(offload, header, frame_length);
}
[[nodiscard]] inline bool offload_is_valid(const Offload& offload, std::span<const std::byte> header,
                                           std::uint32_t frame_length) noexcept {
  return check_offload(offload, header, frame_length) == OffloadFault::none;
}

/// What the switch makes of a valid header: unknown flags are gone, and DATA_VALID from a tenant; fields that mean
/// nothing are 0; kGsoEcn says whether CWR is set, whatever the sender said; GSO frames have NEEDS_CSUM; GSO with no
/// more payload than gso_size is not GSO. The result is valid, and sanitize() of it is itself.
/// @param header as in check_offload(), which found no fault; the checksum field of a GSO frame that came without
///   NEEDS_CSUM is set to its pseudo-header sum, nothing else is written
[[nodiscard]] inline Offload sanitize(const Offload& offload, std::span<std::byte> header, std::uint32_t frame_length,
                                      OffloadOrigin origin) noexcept {
  if (!offload.is_finished()) return sanitize_unfinished(offload, header, frame_length);
  Offload clean;
  if (origin == OffloadOrigin::kernel) clean.flags = offload.flags & Offload::kDataValid;
  return clean;
}

/// hdr_len of struct virtio_net_hdr for a sanitized offload: end of the transport header of a GSO frame, else 0 (a hint
/// that readers must not need).
/// @param header the frame's private header copy
[[nodiscard]] std::uint16_t offload_header_length(const Offload& offload, std::span<const std::byte> header) noexcept;

/// Length of the longest Ethernet frame, without FCS, that will be on the wire for this frame: what an MTU bounds.
/// @param offload sanitized
[[nodiscard]] inline std::uint32_t wire_length(const Offload& offload, std::span<const std::byte> header,
                                               std::uint32_t frame_length) noexcept {
  if (!offload.is_gso()) return frame_length;
  return std::uint32_t{offload_header_length(offload, header)} + offload.gso_size;
}

}  // namespace vswitch
