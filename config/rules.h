#pragma once
#include "config/problems.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// Adds a problem for each way in which ports and uplinks do not go together. A port without a MAC address or uplink
/// (it has a problem already) takes no part in what is about those.
void check_rules(const SwitchSpec& spec, Problems& problems);

}  // namespace vswitch
