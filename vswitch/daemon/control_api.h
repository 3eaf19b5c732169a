#pragma once
#include <functional>

#include "vswitch/daemon/json_rpc.h"
#include "vswitch/daemon/reconcile.h"

namespace vswitch {

/// Adds the methods that vswitchctl calls: show, stats, trace, drops, reload, version.
/// @param running outlives the dispatcher
/// @param reload reads the configuration again and applies it; throws Error
void add_control_methods(RpcDispatcher& dispatcher, const Switch& running, std::function<ApplyReport()> reload);

}  // namespace vswitch
