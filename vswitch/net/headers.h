#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vswitch {

inline constexpr std::uint16_t kEtherIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherArp = 0x0806;
inline constexpr std::uint16_t kEtherVlan = 0x8100;  ///< IEEE 802.1Q C-tag
inline constexpr std::uint16_t kEtherQinq = 0x88a8;  ///< IEEE 802.1Q S-tag (802.1ad)
inline constexpr std::uint16_t kEtherIpv6 = 0x86dd;

inline constexpr std::uint8_t kProtocolIcmp = 1;
inline constexpr std::uint8_t kProtocolTcp = 6;
inline constexpr std::uint8_t kProtocolUdp = 17;
inline constexpr std::uint8_t kProtocolIcmpv6 = 58;

inline constexpr std::uint16_t kIpv6HeaderBytes = 40;
inline constexpr std::uint16_t kUdpHeaderBytes = 8;

/// Where the headers of an Ethernet frame are. parse() reads nothing beyond the bytes it is given and keeps no pointer:
/// give it a private copy, or what it found may no longer be there.
///
/// Guarantee: parse() succeeded => everything before l3_offset() lies in those bytes; is_ip() => everything before
/// l4_offset() too, and l3_offset() + 20 (IPv4) or + 40 (IPv6) of it; is_tcp() or is_udp() => everything before
/// header_length() too. All offsets are bytes from the start of the frame.
class Headers {
 public:
  /// nullopt when the bytes do not hold an Ethernet header and the tags it announces. Up to two VLAN tags are passed
  /// over; a third one is an ethertype like others. What is wrong further up only makes is_ip() or is_tcp() false.
  [[nodiscard]] static std::optional<Headers> parse(std::span<const std::byte> frame) noexcept;

  [[nodiscard]] std::uint8_t vlan_tags() const noexcept { return vlan_tags_; }
  /// Behind the tags, host order.
  [[nodiscard]] std::uint16_t ethertype() const noexcept { return ethertype_; }
  [[nodiscard]] std::uint16_t l3_offset() const noexcept { return l3_offset_; }

  [[nodiscard]] bool is_ipv4() const noexcept { return version_ == 4; }
  [[nodiscard]] bool is_ipv6() const noexcept { return version_ == 6; }
  [[nodiscard]] bool is_ip() const noexcept { return version_ != 0; }

  /// End of the IP header and of the extension headers in the bytes given. Only if is_ip().
  [[nodiscard]] std::uint16_t l4_offset() const noexcept { return l4_offset_; }
  /// What starts at l4_offset(): an IP protocol number; IPv6 extension headers other than hop-by-hop, routing,
  /// destination options and fragment count as one. Only if is_ip().
  [[nodiscard]] std::uint8_t protocol() const noexcept { return protocol_; }
  /// Part of an IP datagram, or an IPv6 frame with a fragment header of any kind. Only if is_ip().
  [[nodiscard]] bool is_fragment() const noexcept { return fragment_; }
  /// The chain of IPv6 extension headers ends in the bytes given. False: protocol() says nothing. Only if is_ip().
  [[nodiscard]] bool reaches_l4() const noexcept { return reaches_l4_; }

  /// A complete TCP or UDP header is there, and it is the first fragment or the whole of its datagram.
  [[nodiscard]] bool is_tcp() const noexcept { return header_length_ != 0 && protocol_ == kProtocolTcp; }
  [[nodiscard]] bool is_udp() const noexcept { return header_length_ != 0 && protocol_ == kProtocolUdp; }
  /// End of the TCP or UDP header, options included. Only if is_tcp() or is_udp().
  [[nodiscard]] std::uint16_t header_length() const noexcept { return header_length_; }

 private:
  Headers() noexcept = default;
  void parse_ipv4(std::span<const std::byte> frame) noexcept;
  void parse_ipv6(std::span<const std::byte> frame) noexcept;
  void parse_transport(std::span<const std::byte> frame) noexcept;

  std::uint16_t ethertype_ = 0;
  std::uint16_t l3_offset_ = 0;
  std::uint16_t l4_offset_ = 0;
  std::uint16_t header_length_ = 0;
  std::uint8_t vlan_tags_ = 0;
  std::uint8_t version_ = 0;
  std::uint8_t protocol_ = 0;
  bool fragment_ = false;
  bool later_fragment_ = false;
  bool reaches_l4_ = false;
};

}  // namespace vswitch
