#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace vswitch {

/// Every way to lose a frame: the same list in counters, `vswitchctl stats`, `vswitchctl trace` and the man page.
enum class Drop : std::uint8_t {
  none,
  malformed,
  bad_descriptor,
  bad_offload,
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
    {"bad_offload", false, "The offload header contradicts the frame (checksum or segment offsets, type, size)."},
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

}  // namespace vswitch
