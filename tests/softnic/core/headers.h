#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace softnic {

using Bytes = std::span<const std::uint8_t>;

inline std::uint16_t load_be16(const std::uint8_t* at) noexcept {
  return static_cast<std::uint16_t>(at[0] << 8 | at[1]);
}
inline void store_be16(std::uint8_t* at, std::uint16_t value) noexcept {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}
inline std::uint32_t load_be32(const std::uint8_t* at) noexcept {
  return static_cast<std::uint32_t>(load_be16(at)) << 16 | load_be16(at + 2);
}
inline void store_be32(std::uint8_t* at, std::uint32_t value) noexcept {
  store_be16(at, static_cast<std::uint16_t>(value >> 16));
  store_be16(at + 2, static_cast<std::uint16_t>(value));
}

/// Where the headers of an Ethernet frame begin, in bytes from its start; 0 = the frame has no such header, or it is
/// cut short. At most one VLAN tag (0x8100 or 0x88a8) is looked behind; only the first kind is told, matched and
/// stripped, as NICs of the modelled kind do with C-VLAN tags.
struct Headers {
  std::uint16_t ether_type = 0;  ///< behind the tag, host order
  std::uint16_t tci = 0;         ///< of a tag of type 0x8100, host order; 0 without one
  bool tagged = false;           ///< by such a tag
  bool ipv4 = false;
  bool ipv6 = false;
  bool fragment = false;      ///< of IPv4 or IPv6; then there is no l4
  std::uint8_t protocol = 0;  ///< of the IPv4 header, or of the last IPv6 extension header
  std::uint16_t l3 = 0;
  std::uint16_t l4 = 0;       ///< TCP or UDP header; present in full
  std::uint16_t payload = 0;  ///< behind the TCP or UDP header
  std::uint16_t l3_end = 0;   ///< end of the IP datagram as its own length says, never behind the frame's end

  [[nodiscard]] bool tcp() const noexcept { return l4 != 0 && protocol == 6; }
  [[nodiscard]] bool udp() const noexcept { return l4 != 0 && protocol == 17; }
};

/// Reads no byte behind `frame`; any bytes are fine. A frame longer than 65535 bytes is judged by its first 65535.
[[nodiscard]] Headers parse(Bytes frame) noexcept;

}  // namespace softnic
