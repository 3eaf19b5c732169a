#pragma once
#include <nlohmann/json_fwd.hpp>

#include "config/problems.h"

namespace vswitch {

/// Adds a problem for every part of `value` that does not fit `schema` (draft 7).
void check_schema(const nlohmann::json& schema, const nlohmann::json& value, Problems& problems);

}  // namespace vswitch
