#pragma once
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "vswitch/base/memory.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/arena.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/reactor.h"

namespace vswitch {

/// Where queues of one worker that read from descriptors put the frames they lend. Shared by all of them: a burst is
/// given back before the worker polls its next queue. Holds a burst of MTU-sized frames, or two of 64 KiB: what was
/// read is to be copied out from the level-2 cache (DECISIONS.md).
inline constexpr std::size_t kScratchBytes = std::size_t{192} << 10;

/// What every port is given to live with. Owned by the daemon (or a test), outlives all ports.
struct PortContext {
  Reactor& reactor;
  Quiescence& quiescence;
  std::size_t workers;           ///< queues per port
  std::vector<Mapping> scratch;  ///< one per worker, kScratchBytes each
  std::size_t next_worker = 0;   ///< a port with fewer receive rings than workers takes from here, and steps on
  std::function<void()> changed = [] {};  ///< a port calls it when its status() changed (link, peer)
  /// A port says what an operator should find in the log: "uplink lan: ...". Control thread.
  std::function<void(const std::string&)> report = [](const std::string& /*what*/) {};
  Arenas arenas{};  ///< tenants' memory that uplinks' devices may use
};

}  // namespace vswitch
