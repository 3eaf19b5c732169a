#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/net/offload.h"

// What a port does with the offload header of every frame it receives, before anybody else sees it:
//   if (!offload_is_valid(offload, header, length)) drop as bad_offload;
//   offload = sanitize(offload, header, length, from);
// All functions are pure but for the header that sanitize() may complete; any thread.

namespace vswitch {

/// Segments that one GSO frame may ask for: bounds what a frame of 64 KiB and a gso_size of 1 can cost.
inline constexpr std::uint32_t kMaxSegments = 128;

/// Who wrote an offload header.
enum class OffloadOrigin : std::uint8_t {
  tenant,  ///< may lie
  kernel,  ///< an uplink's kernel: its DATA_VALID is true
};

[[nodiscard]] bool unfinished_offload_is_valid(const Offload& offload, std::span<const std::byte> header,
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
[[nodiscard]] inline bool offload_is_valid(const Offload& offload, std::span<const std::byte> header,
                                           std::uint32_t frame_length) noexcept {
  constexpr std::size_t kEthernet = 14;
  if (header.size() < kEthernet || header.size() > frame_length) return false;
  if (!offload.needs_checksum() && !offload.is_gso()) return true;
  return unfinished_offload_is_valid(offload, header, frame_length);
}

/// What the switch makes of a valid header: unknown flags are gone, and DATA_VALID from a tenant; fields that mean
/// nothing are 0; kGsoEcn says whether CWR is set, whatever the sender said; GSO frames have NEEDS_CSUM; GSO with no
/// more payload than gso_size is not GSO. The result is valid, and sanitize() of it is itself.
/// @param header as in offload_is_valid(), which returned true; the checksum field of a GSO frame that came without
///   NEEDS_CSUM is set to its pseudo-header sum, nothing else is written
[[nodiscard]] Offload sanitize(const Offload& offload, std::span<std::byte> header, std::uint32_t frame_length,
                               OffloadOrigin origin) noexcept;

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
