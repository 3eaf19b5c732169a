#pragma once
#include "vswitch/daemon/json_rpc.h"
#include "vswitch/daemon/reconcile.h"

// The switch in JSON, as `vswitchctl --json` prints it. Control thread only.

namespace vswitch {

/// What there is: {"uplinks": [...], "ports": [...], "workers": [...]}, sorted by name.
[[nodiscard]] Json describe(const Switch& running);

/// What was counted since each port was opened: {"time_ns", "ports": [...], "workers": [...]}; uplinks first.
/// @param only the port or uplink to tell about, empty: all. Throws InvalidParams when there is none of that name.
[[nodiscard]] Json count(const Switch& running, const std::string& only);

/// {"added": [...], "removed": [...], "reopened": [...], "changed": [...], "untouched": N}
[[nodiscard]] Json describe(const ApplyReport& report);

/// The offloads by name: {"checksum": true, ...}
[[nodiscard]] Json describe(OffloadCaps caps);

}  // namespace vswitch
