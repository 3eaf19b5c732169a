#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

// The one offload vocabulary: struct virtio_net_hdr semantics (virtio 1.2, section 5.1.6), host byte order. Every queue
// speaks it; a frame is fixed up at egress, once, only as far as its destination needs (core/adapt.h).

namespace vswitch {

/// What still has to be done to a frame, or was done. 8 bytes: also the offload half of a ring descriptor.
struct Offload {
  std::uint8_t flags = 0;         ///< kNeedsChecksum, kDataValid
  std::uint8_t gso_type = 0;      ///< kGsoNone .. kGsoUdpL4, plus kGsoEcn
  std::uint16_t gso_size = 0;     ///< payload bytes of each segment
  std::uint16_t csum_start = 0;   ///< from frame start, inline VLAN tags included
  std::uint16_t csum_offset = 0;  ///< of the checksum field, from csum_start

  static constexpr std::uint8_t kNeedsChecksum = 1;  ///< VIRTIO_NET_HDR_F_NEEDS_CSUM
  static constexpr std::uint8_t kDataValid = 2;      ///< VIRTIO_NET_HDR_F_DATA_VALID; towards a tenant only
  static constexpr std::uint8_t kGsoNone = 0;
  static constexpr std::uint8_t kGsoTcp4 = 1;
  static constexpr std::uint8_t kGsoTcp6 = 4;
  static constexpr std::uint8_t kGsoUdpL4 = 5;
  static constexpr std::uint8_t kGsoEcn = 0x80;

  [[nodiscard]] bool is_plain() const noexcept { return flags == 0 && gso_type == kGsoNone; }
  /// Nothing is left to be done to the frame; perhaps its checksum is known to be right.
  [[nodiscard]] bool is_finished() const noexcept { return !needs_checksum() && !is_gso(); }
  [[nodiscard]] bool needs_checksum() const noexcept { return (flags & kNeedsChecksum) != 0; }
  [[nodiscard]] bool is_gso() const noexcept { return gso_type != kGsoNone; }
  [[nodiscard]] std::uint8_t gso_kind() const noexcept { return gso_type & static_cast<std::uint8_t>(~kGsoEcn); }
  bool operator==(const Offload&) const = default;
};
static_assert(sizeof(Offload) == 8);

/// Kinds of unfinished frames: those that a queue takes on transmit, or may take. A set bit never implies another one.
struct OffloadCaps {
  bool checksum = false;  ///< NEEDS_CSUM frames
  bool tso4 = false;
  bool tso6 = false;
  bool ecn = false;  ///< GSO frames with CWR set
  bool uso = false;  ///< UDP_L4, both families

  static constexpr OffloadCaps all() noexcept { return {true, true, true, true, true}; }
  bool operator==(const OffloadCaps&) const = default;
  /// Those that are in both.
  constexpr OffloadCaps operator&(const OffloadCaps& other) const noexcept;
  /// Those that are not in `other`.
  constexpr OffloadCaps without(const OffloadCaps& other) const noexcept;
  /// What is left when GSO needs NEEDS_CSUM, and `ecn` a TCP that is segmented: the kernel's rule for its netdevs.
  constexpr OffloadCaps consistent() const noexcept;
};

/// How one of OffloadCaps is called, in tenants.json and everywhere else.
struct OffloadName {
  std::string_view name;
  bool OffloadCaps::*member;
};
inline constexpr std::array<OffloadName, 5> kOffloadNames{{{"checksum", &OffloadCaps::checksum},
                                                           {"tso4", &OffloadCaps::tso4},
                                                           {"tso6", &OffloadCaps::tso6},
                                                           {"ecn", &OffloadCaps::ecn},
                                                           {"uso", &OffloadCaps::uso}}};

constexpr OffloadCaps OffloadCaps::operator&(const OffloadCaps& other) const noexcept {
  OffloadCaps both;
  for (const OffloadName& kind : kOffloadNames) both.*kind.member = this->*kind.member && other.*kind.member;
  return both;
}

constexpr OffloadCaps OffloadCaps::without(const OffloadCaps& other) const noexcept {
  OffloadCaps rest;
  for (const OffloadName& kind : kOffloadNames) rest.*kind.member = this->*kind.member && !(other.*kind.member);
  return rest;
}

constexpr OffloadCaps OffloadCaps::consistent() const noexcept {
  if (!checksum) return {};
  OffloadCaps caps = *this;
  caps.ecn = ecn && (tso4 || tso6);
  return caps;
}

/// "checksum, tso4", or "none".
[[nodiscard]] std::string to_string(const OffloadCaps& caps);

}  // namespace vswitch
