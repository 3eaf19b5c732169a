#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "vswitch/core/frame.h"

// VLAN tags at tenant ports: an access port's frames carry their VLAN beside the bytes, a transparent port's inside
// them.

namespace vswitch {

inline constexpr std::size_t kMacPairBytes = 12;
inline constexpr std::uint16_t kVlanIdMask = 0x0fff;

/// Bytes of an 802.1Q tag with that TCI, wire order.
[[nodiscard]] inline std::array<std::byte, kVlanTagBytes> vlan_tag(std::uint16_t tci) noexcept {
  return {std::byte{0x81}, std::byte{0x00}, static_cast<std::byte>(tci >> 8), static_cast<std::byte>(tci & 0xff)};
}

/// An access port lends `frame`: gives it the port's VLAN, and takes a priority tag (VID 0) out of the bytes, keeping
/// its priority. A tag with a VLAN of its own stays where it is; decide() refuses such frames.
inline void enter_access_vlan(Frame& frame, std::uint16_t vlan) noexcept {
  frame.vlan = vlan;
  constexpr std::size_t kTagged = kMacPairBytes + kVlanTagBytes;
  if (frame.header_bytes < kTagged + 2) return;
  std::byte* tag = frame.header + kMacPairBytes;
  if (tag[0] != std::byte{0x81} || tag[1] != std::byte{0x00}) return;
  const auto tci =
      static_cast<std::uint16_t>(std::to_integer<unsigned>(tag[2]) << 8 | std::to_integer<unsigned>(tag[3]));
  if ((tci & kVlanIdMask) != 0) return;
  frame.vlan = static_cast<std::uint16_t>((tci & ~kVlanIdMask) | vlan);
  std::memmove(tag, tag + kVlanTagBytes, frame.header_bytes - kTagged);
  frame.header_bytes = static_cast<std::uint16_t>(frame.header_bytes - kVlanTagBytes);
  frame.length -= static_cast<std::uint32_t>(kVlanTagBytes);
  frame.data += kVlanTagBytes;
  if (frame.offload.needs_checksum()) {
    frame.offload.csum_start = static_cast<std::uint16_t>(frame.offload.csum_start - kVlanTagBytes);
  }
}

/// The offload of a frame into which a tag is inserted.
[[nodiscard]] inline Offload with_tag(Offload offload) noexcept {
  if (offload.needs_checksum()) offload.csum_start = static_cast<std::uint16_t>(offload.csum_start + kVlanTagBytes);
  return offload;
}

}  // namespace vswitch
