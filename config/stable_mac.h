#pragma once
#include <string_view>

#include "vswitch/net/mac.h"

namespace vswitch {

/// The MAC address of a port that was given none: locally administered, unicast; the same for the same name on the same
/// machine at any time, unrelated on other machines. Throws Error when the machine has no identity (machine-id(5)).
[[nodiscard]] Mac stable_mac(std::string_view port_name);

}  // namespace vswitch
