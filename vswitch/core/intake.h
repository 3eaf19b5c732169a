#pragma once
#include <span>

#include "vswitch/core/frame.h"
#include "vswitch/core/port.h"
#include "vswitch/net/offload_check.h"

namespace vswitch {

/// What every queue does with the offload header that came with a frame: checks it against the frame and makes it the
/// frame's own, or counts why not. The frame's header copy and length must be set; tags that the port takes out of the
/// bytes or puts into them come after this.
/// @return false: the frame must not be lent
[[nodiscard]] inline bool take_offload(Frame& frame, const Offload& claimed, OffloadOrigin origin,
                                       PortCounters& counters) noexcept {
  const std::span<std::byte> header(frame.header, frame.header_bytes);
  if (const OffloadFault fault = check_offload(claimed, header, frame.length); fault != OffloadFault::none) {
    counters.drop(drop_of(fault));
    return false;
  }
  frame.offload = sanitize(claimed, header, frame.length, origin);
  return true;
}

}  // namespace vswitch
