#pragma once
#include <cstdint>
#include <functional>

#include "vswitch/base/clock.h"

namespace vswitch {

/// What the control thread waits on, as ports see it: descriptors and timers. Implemented by daemon/reactor.h over
/// io_uring. Control thread only; callbacks run on it, one at a time, and may watch and unwatch anything, themselves
/// included.
class Reactor {
 public:
  using Handle = std::uint64_t;  ///< never 0, never reused
  virtual ~Reactor() = default;

  /// Calls `readable` whenever `fd` has input, an error or a hang-up (level-triggered), until unwatch().
  virtual Handle watch(int fd, std::function<void()> readable) = 0;
  /// Calls `expired` once, `delay` from now.
  virtual Handle after(Nanoseconds delay, std::function<void()> expired) = 0;
  /// Ends a watch or a timer; its callback will not run again. Unknown handles are ignored. Call before closing the fd.
  virtual void cancel(Handle handle) noexcept = 0;
};

}  // namespace vswitch
