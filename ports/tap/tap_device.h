#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "vswitch/base/fd.h"
#include "vswitch/net/offload.h"

namespace vswitch {

/// A TAP netdev that lives as long as its descriptors: it is not persistent, so it vanishes with the last of them,
/// however the process ends.
struct TapDevice {
  std::vector<Fd> queues;  ///< one descriptor a queue, non-blocking, with VnetHeader before every frame
  OffloadCaps offloads;    ///< unfinished frames that pass in both directions
};

/// Makes a new netdev `name` with `queues` queues (1..256) in the calling thread's network namespace; it is down.
/// @param offloads unfinished frames wanted in both directions, consistent()
/// Throws Error, also when a netdev of that name exists, which stays untouched; then nothing is left behind.
TapDevice create_tap(const std::string& name, std::size_t queues, OffloadCaps offloads);

/// Changes what the netdev's own stack may leave unfinished in frames that are read from it; anyone may look at it with
/// ethtool(8).
/// @param queue any descriptor of the netdev
/// @return those of `wanted` that this kernel has. Throws Error; then nothing has changed
OffloadCaps set_tap_offloads(int queue, const std::string& name, OffloadCaps wanted);

/// Whether the netdev of that descriptor still exists, in whatever namespace and under whatever name.
[[nodiscard]] bool tap_exists(int queue) noexcept;

}  // namespace vswitch
