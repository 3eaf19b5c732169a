#include "ports/registry.h"

#include "ports/af_packet/af_packet_uplink.h"
#include "ports/ring/ring_port.h"
#include "ports/tap/tap_port.h"

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

std::unique_ptr<Uplink> make_uplink(const UplinkSpec& spec, PortContext& context) {
  return std::make_unique<AfPacketUplink>(spec, context);
}

}  // namespace vswitch
