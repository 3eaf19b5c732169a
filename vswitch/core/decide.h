#pragma once
#include <cstdint>
#include <string_view>

#include "vswitch/core/drop.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/table.h"

namespace vswitch {

/// Which line of the delivery matrix decided; `vswitchctl trace` prints it.
enum class Rule : std::uint8_t {
  none,
  to_sibling,
  to_wire,
  flood_and_wire,
  multicast_to_wire,
  from_wire,
  from_wire_passthru,
  from_wire_sources,
  wire_multicast,
  reflected_to_sender,
  reflected_from_bridge,
  reflected_from_vepa,
};
/// One sentence for people.
[[nodiscard]] std::string_view explain(Rule rule) noexcept;

/// Where a frame goes: to `port`, to all of `group` but `exclude`, and to all of `sources`; or nowhere, because of
/// `drop`.
struct Verdict {
  Drop drop = Drop::none;
  Rule rule = Rule::none;
  PortId port = kNoPort;
  GroupId group = 0;
  PortId exclude = kNoPort;
  GroupId sources = 0;

  [[nodiscard]] bool is_unicast() const noexcept { return group == 0 && sources == 0; }
};

namespace detail {

inline constexpr std::size_t kSourceMacOffset = 6;

[[nodiscard]] inline bool is_multicast(const Frame& frame) noexcept {
  return (frame.header[0] & std::byte{1}) != std::byte{0};
}

/// A tag with a VLAN of its own; a priority tag (VID 0) belongs to the port's VLAN.
[[nodiscard]] bool names_vlan(const Frame& frame) noexcept;

/// An uplink's frame, in all its variety.
[[nodiscard]] Verdict from_wire_any(const Domain& domain, DomainId id, const Frame& frame, const Table& table) noexcept;

/// An uplink's frame. Inlined as from_tenant(), for what most frames are.
[[nodiscard, gnu::always_inline]] inline Verdict from_wire(PortId ingress, const PortEntry& from, const Frame& frame,
                                                           const Table& table) noexcept {
  const DomainId id = frame.vlan_id() == 0 ? from.domain : table.wire_domain(ingress, frame.vlan_id());
  const Domain& domain = table.domain(id);
  if (domain.by_address && !is_multicast(frame)) [[likely]] {
    if (const PortId to = table.find(id, mac_bits(frame.header)); to != kNoPort)
      return {.rule = Rule::from_wire, .port = to};
    return {.drop = Drop::unknown_destination};
  }
  return from_wire_any(domain, id, frame, table);
}

/// A tenant's frame. Inlined into the worker's loop: a verdict passed through memory costs more than the decision.
[[nodiscard, gnu::always_inline]] inline Verdict from_tenant(PortId ingress, const PortEntry& from, const Frame& frame,
                                                             const Table& table) noexcept {
  const std::uint64_t source = mac_bits(frame.header + kSourceMacOffset);
  if (from.check_source && source != from.mac && table.find(from.domain, source) != ingress) {
    return {.drop = Drop::spoofed_mac};
  }
  if (from.access && names_vlan(frame)) return {.drop = Drop::vlan_not_allowed};
  const bool multicast = is_multicast(frame);
  if (from.mode != Mode::bridge) {
    return {.rule = multicast ? Rule::multicast_to_wire : Rule::to_wire, .port = from.uplink};
  }
  if (multicast) {
    return {.rule = Rule::flood_and_wire,
            .port = from.uplink,
            .group = table.domain(from.domain).bridge,
            .exclude = ingress};
  }
  const PortId sibling = table.find(from.domain, mac_bits(frame.header));
  if (sibling != kNoPort && table.port(sibling).mode == Mode::bridge)
    return {.rule = Rule::to_sibling, .port = sibling};
  return {.rule = Rule::to_wire, .port = from.uplink};
}

}  // namespace detail

/// The forwarding decision: pure, no side effect, reads only the frame's private header copy. Implements the kernel
/// macvlan delivery matrix with the differences listed in core/README.md. `frame.header_bytes` must be at least 14.
[[nodiscard]] inline Verdict decide(PortId ingress, const Frame& frame, const Table& table) noexcept {
  const PortEntry& from = table.port(ingress);
  return from.is_uplink ? detail::from_wire(ingress, from, frame, table)
                        : detail::from_tenant(ingress, from, frame, table);
}

}  // namespace vswitch
