#pragma once
#include <memory>

#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// Makes (does not start) the port that `spec.attach` asks for. `spec.mtu` must be filled in.
std::unique_ptr<Port> make_port(const PortSpec& spec, PortContext& context);

/// Makes (does not start) the uplink port that `spec.driver` asks for.
std::unique_ptr<Uplink> make_uplink(const UplinkSpec& spec, PortContext& context);

}  // namespace vswitch
