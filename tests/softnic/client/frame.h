#pragma once

#include <array>
#include <cstdint>
#include <vector>

/// Frames to send, and what is asked of those that arrive.
namespace softnic_client {

using Frame = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;
using Ipv4 = std::array<std::uint8_t, 4>;

inline constexpr Ipv4 kHostIp = {198, 18, 0, 1};  ///< of lan0, the kernel's netdev
inline constexpr Ipv4 kWireIp = {198, 18, 0, 2};  ///< of w0, the far end of the cable
inline constexpr Mac kWireMac = {2, 0x50, 0, 0, 2, 2};
inline constexpr std::size_t kUdpHeaders = 14 + 20 + 8;
inline constexpr std::size_t kTcpHeaders = 14 + 20 + 20;

/// A unicast address that nobody has. Equal for equal numbers.
[[nodiscard]] Mac mac(std::uint16_t number);
/// A multicast address.
[[nodiscard]] Mac group(std::uint16_t number);

/// A frame of the local experimental EtherType whose bytes behind the header are all `fill`.
[[nodiscard]] Frame plain(const Mac& to, std::uint8_t fill = 0, std::size_t bytes = 100);
/// The same with a VLAN tag.
[[nodiscard]] Frame tagged(Frame frame, std::uint16_t tci);

struct Flow {
  Ipv4 source = kHostIp;
  Ipv4 destination = kWireIp;
  std::uint16_t source_port = 1000;
  std::uint16_t destination_port = 2000;
};
/// A UDP datagram in IPv4 with right checksums.
[[nodiscard]] Frame udp(const Mac& to, const Flow& flow, const Frame& payload);
/// Ethernet, IPv4 and TCP headers as a TSO request wants them: checksums and lengths are left to the NIC.
[[nodiscard]] Frame tso_header(const Mac& to, const Flow& flow, std::uint32_t sequence);

[[nodiscard]] std::uint16_t word(const Frame& frame, std::size_t at);
void set_word(Frame& frame, std::size_t at, std::uint16_t value);
/// Whether both checksums of an untagged frame of UDP or TCP in IPv4 (without options) are right.
[[nodiscard]] bool checksums_right(const Frame& frame);

}  // namespace softnic_client
