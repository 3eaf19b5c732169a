#pragma once
#include <compare>
#include <cstdint>
#include <string>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"
#include "vswitch/core/port.h"
#include "vswitch/net/mac.h"

/// The rules that a NIC steers by. Theory of operation in README.md: "The steering layout".
namespace vswitch::verbs {

/// One flow rule. Lower kinds are asked first.
struct FlowRule {
  enum class Kind : std::uint8_t {
    source_to_tenant,  ///< from `source`, to `mac`: a tenant both in mode source and addressed; taken once
    tenant_vlan,       ///< to `mac` in `vlan`
    tenant,            ///< to `mac`, whatever the tag
    source,            ///< unicast from `source`; others get it as well
    multicast,         ///< every group address; the kernel and others get it as well
    everything,        ///< all frames; others get them as well
  };
  Kind kind = Kind::tenant;
  std::uint16_t vlan = 0;
  Mac mac{};
  Mac source{};
  auto operator<=>(const FlowRule&) const = default;

  /// The frame belongs to the tenants alone: the kernel does not get it.
  [[nodiscard]] bool traps() const noexcept { return kind <= Kind::tenant; }
  [[nodiscard]] std::string to_string() const;
};

/// Makes the rule for a queue pair. Throws Error with what to do about it.
/// @param shared the pair serves several tenants; such rules are asked after those of a tenant's own pair, so that a
///   tenant moves from one to the other without a frame lost or doubled: the new rule comes first, then the old one
///   goes
[[nodiscard]] Verbs<ibv_flow> create_flow(const Device& device, ibv_qp* qp, const FlowRule& rule, bool shared);

}  // namespace vswitch::verbs
