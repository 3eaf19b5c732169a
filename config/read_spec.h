#pragma once
#include <nlohmann/json_fwd.hpp>

#include "config/problems.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// Turns a configuration into plain values, defaults filled in. What no schema can express about a single port is added
/// to `problems`. Keys in which `problems` already has something are left out, so that the rest can be checked too.
[[nodiscard]] SwitchSpec read_spec(const nlohmann::json& root, Problems& problems);

}  // namespace vswitch
