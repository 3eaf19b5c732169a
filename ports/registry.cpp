#include "ports/registry.h"

#include "ports/af_packet/af_packet_uplink.h"
#include "ports/ring/ring_port.h"
#include "ports/tap/tap_port.h"
#include "ports/verbs/device.h"
#include "ports/verbs/verbs_uplink.h"

namespace vswitch {
namespace {

struct MakePort {
  const PortSpec& spec;
  PortContext& context;
  std::unique_ptr<Port> operator()(const RingAttachSpec& /*attach*/) const {
    return std::make_unique<RingPort>(spec, context);
  }
  std::unique_ptr<Port> operator()(const TapAttachSpec& /*attach*/) const {
    return std::make_unique<TapPort>(spec, context);
  }
};

}  // namespace

std::unique_ptr<Port> make_port(const PortSpec& spec, PortContext& context) {
  return std::visit(MakePort{spec, context}, spec.attach);
}

// "auto" tries the fastest first; what was refused, and the remedy, stands in the status of what was taken.
std::unique_ptr<Uplink> make_uplink(const UplinkSpec& spec, PortContext& context) {
  if (spec.driver == UplinkDriver::af_packet) return std::make_unique<AfPacketUplink>(spec, context);
  if (spec.driver == UplinkDriver::verbs) return std::make_unique<VerbsUplink>(spec, context);
  const std::string refused = verbs::why_not(spec.netdev);
  if (refused.empty()) return std::make_unique<VerbsUplink>(spec, context);
  return std::make_unique<AfPacketUplink>(spec, context, "not verbs: " + refused);
}

}  // namespace vswitch
