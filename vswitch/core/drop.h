#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "vswitch/net/offload_check.h"

namespace vswitch {

/// Every way to lose a frame: the same list in counters, `vswitchctl stats`, `vswitchctl trace` and the man page.
enum class Drop : std::uint8_t {
  none,
  malformed,
  bad_descriptor,
  bad_offload_headers,
  bad_checksum_range,
  bad_checksum_place,
  bad_gso_type,
  bad_gso_checksum,
  bad_gso_length,
  bad_gso_size,
  bad_gso_segments,
  ring_corrupt,
  spoofed_mac,
  vlan_not_allowed,
  isolated,
  reflected,
  unknown_destination,
  too_long,
  offload_unsupported,
  dest_full,
  dest_detached,
  dest_error,
  count_,
};
inline constexpr std::size_t kDropReasons = static_cast<std::size_t>(Drop::count_);

struct DropText {
  std::string_view name;         ///< as printed and as in JSON
  bool at_egress;                ///< counted on the port the frame was for; else on the port it came from
  std::string_view explanation;  ///< one sentence for people
};

inline constexpr std::array<DropText, kDropReasons> kDropTexts{{
    {"none", false, "The frame was not dropped."},
    {"malformed", false, "Shorter than an Ethernet header, or its headers do not fit into it."},
    {"bad_descriptor", false, "A ring descriptor pointed outside the tenant's arena or had an impossible length."},
    {"bad_offload_headers", false, "An offload header speaks of headers that the frame does not have complete."},
    {"bad_checksum_range", false, "The checksum to be computed starts within the IP header or ends behind the frame."},
    {"bad_checksum_place", false, "The checksum to be computed is not where the frame's protocol has one."},
    {"bad_gso_type", false, "The segmentation type is unknown or not what the frame is."},
    {"bad_gso_checksum", false, "The checksum of a frame to be segmented is not its transport's."},
    {"bad_gso_length", false,
     "A frame to be segmented is too long for IP, or its IP header claims more than is there."},
    {"bad_gso_size", false, "The segment size is zero or more than IP can describe."},
    {"bad_gso_segments", false, "A frame asks to be cut into more than 128 segments."},
    {"ring_corrupt", false, "A ring index moved further than the ring is long; what it covered was skipped."},
    {"spoofed_mac", false, "The source MAC is not one of the port's, and the port is not trusted."},
    {"vlan_not_allowed", false, "A tagged frame from an access port."},
    {"isolated", false,
     "A private port's frame came back from the wire for another tenant, or another tenant's for it."},
    {"reflected", false, "A tenant's own multicast frame came back from the wire."},
    {"unknown_destination", false, "A frame from the wire that no port's rule matches; the host keeps it."},
    {"too_long", true, "Longer than the destination port's MTU allows."},
    {"offload_unsupported", true, "The destination takes no such unfinished frame and software cannot finish it."},
    {"dest_full", true, "The destination had no room; nobody waits for it."},
    {"dest_detached", true, "No tenant is attached to the destination port, or its link is down."},
    {"dest_error", true, "The destination's device refused the frame."},
}};

[[nodiscard]] constexpr const DropText& text_of(Drop drop) noexcept {
  return kDropTexts[static_cast<std::size_t>(drop)];
}

/// The reason to drop a frame with such an offload header; `fault` is not none.
[[nodiscard]] constexpr Drop drop_of(OffloadFault fault) noexcept {
  constexpr auto kFirst = static_cast<unsigned>(Drop::bad_offload_headers);
  return static_cast<Drop>(kFirst + static_cast<unsigned>(fault) - static_cast<unsigned>(OffloadFault::headers));
}
static_assert(drop_of(OffloadFault::headers) == Drop::bad_offload_headers);
static_assert(drop_of(OffloadFault::checksum_place) == Drop::bad_checksum_place);
static_assert(drop_of(OffloadFault::gso_segments) == Drop::bad_gso_segments);
static_assert(kMaxSegments == 128, "stands in the text above");

}  // namespace vswitch
