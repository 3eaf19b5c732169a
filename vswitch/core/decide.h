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

/// The forwarding decision: pure, no side effect, reads only the frame's private header copy. Implements the kernel
/// macvlan delivery matrix with the differences listed in core/README.md. `frame.header_bytes` must be at least 14.
[[nodiscard]] Verdict decide(PortId ingress, const Frame& frame, const Table& table) noexcept;

}  // namespace vswitch
