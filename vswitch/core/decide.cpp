#include "vswitch/core/decide.h"

#include "vswitch/core/vlan.h"

// Theory of operation. A tenant's frame is judged as the kernel judges what a macvlan child transmits
// (macvlan_queue_xmit), a wire frame as what the lower device receives (macvlan_handle_frame); the delivery matrix was
// measured on the kernel and tests/kernel/ compares both. What we do better than the kernel: the key holds the VLAN, a
// tenant's source MAC must be its own, and `private` also refuses what an outside switch sends back (unicast included).

namespace vswitch {
namespace {

using detail::kSourceMacOffset;

Verdict drop(Drop reason) noexcept { return {.drop = reason}; }

Verdict multicast_from_wire(const Domain& domain, PortId sender, const Table& table) noexcept {
  if (sender == kNoPort) return {.rule = Rule::wire_multicast, .group = domain.listeners};
  switch (table.port(sender).mode) {
    case Mode::private_:
    case Mode::passthru:
    case Mode::source:
      return {.rule = Rule::reflected_to_sender, .port = sender};
    case Mode::vepa:
      return {.rule = Rule::reflected_from_vepa, .group = domain.bridge_vepa, .exclude = sender};
    case Mode::bridge:
      return {.rule = Rule::reflected_from_bridge, .group = domain.vepa};
  }
  return drop(Drop::reflected);
}

Verdict unicast_from_wire(const Domain& domain, DomainId id, const Frame& frame, const Table& table) noexcept {
  if (domain.passthru != kNoPort) return {.rule = Rule::from_wire_passthru, .port = domain.passthru};
  const PortId to = table.find(id, mac_bits(frame.header));
  if (to == kNoPort || table.port(to).mode == Mode::source) return drop(Drop::unknown_destination);
  if (domain.has_private) {
    const PortId sender = table.find(id, mac_bits(frame.header + kSourceMacOffset));
    const bool between_tenants = sender != kNoPort && sender != to;
    if (between_tenants && (table.port(to).mode == Mode::private_ || table.port(sender).mode == Mode::private_)) {
      return drop(Drop::isolated);
    }
  }
  return {.rule = Rule::from_wire, .port = to};
}

}  // namespace

bool detail::names_vlan(const Frame& frame) noexcept {
  constexpr std::size_t kTagEnd = kMacPairBytes + kVlanTagBytes;
  const auto word = [&](std::size_t at) {
    return std::to_integer<unsigned>(frame.header[at]) << 8 | std::to_integer<unsigned>(frame.header[at + 1]);
  };
  const unsigned type = word(kMacPairBytes);
  if (type != 0x8100 && type != 0x88a8) return false;
  return frame.header_bytes < kTagEnd || (word(kEthernetHeaderBytes) & kVlanIdMask) != 0;
}

Verdict detail::from_wire_any(const Domain& domain, DomainId id, const Frame& frame, const Table& table) noexcept {
  const std::uint64_t source = mac_bits(frame.header + kSourceMacOffset);
  SourceMatch match;
  if (domain.has_sources) match = table.sources(id, source);
  if (match.consumed) return {.rule = Rule::from_wire_sources, .sources = match.ports};

  Verdict verdict = detail::is_multicast(frame) ? multicast_from_wire(domain, table.find(id, source), table)
                                                : unicast_from_wire(domain, id, frame, table);
  verdict.sources = match.ports;
  const bool nobody = verdict.port == kNoPort && verdict.group == 0;
  if (nobody && verdict.sources != 0) {
    verdict.drop = Drop::none;
    verdict.rule = Rule::from_wire_sources;
  } else if (nobody && verdict.drop == Drop::none) {
    verdict.drop = verdict.rule == Rule::reflected_from_bridge || verdict.rule == Rule::reflected_from_vepa
                       ? Drop::reflected
                       : Drop::unknown_destination;
  }
  return verdict;
}

std::string_view explain(Rule rule) noexcept {
  switch (rule) {
    case Rule::none:
      return "no rule applies";
    case Rule::to_sibling:
      return "mode bridge: the destination is another bridge port of the same uplink and VLAN";
    case Rule::to_wire:
      return "the mode, or an unknown destination, sends it to the wire";
    case Rule::flood_and_wire:
      return "mode bridge: multicast goes to all other bridge ports and to the wire";
    case Rule::multicast_to_wire:
      return "this mode sends multicast to the wire only";
    case Rule::from_wire:
      return "the destination MAC is the port's";
    case Rule::from_wire_passthru:
      return "a passthru port gets everything from the wire";
    case Rule::from_wire_sources:
      return "mode source: the port lists the source MAC";
    case Rule::wire_multicast:
      return "multicast from outside goes to every port but source-mode ones";
    case Rule::reflected_to_sender:
      return "multicast of a private, passthru or source port that came back goes to that port only";
    case Rule::reflected_from_bridge:
      return "multicast of a bridge port that came back goes to vepa ports only";
    case Rule::reflected_from_vepa:
      return "multicast of a vepa port that came back goes to the other vepa and bridge ports";
  }
  return "?";
}

}  // namespace vswitch
