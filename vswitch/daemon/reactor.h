#pragma once
#include <liburing.h>

#include <unordered_map>
#include <vector>

#include "vswitch/core/reactor.h"

namespace vswitch {

/// The control thread's event loop over one io_uring.
///
/// Theory of operation: every watch is a one-shot poll request that is armed again after its callback. Arming asks the
/// kernel whether the descriptor is ready now, which is what makes the watch level-triggered (a multishot poll reports
/// edges); it costs no system call of its own, because the request travels with the next wait. cancel() is
/// synchronous: a pending poll holds a reference to its file, and a port that closes a TAP or a socket expects it to be
/// gone.
///
/// Made, run and destroyed on one thread.
class UringReactor final : public Reactor {
 public:
  /// Throws Error: io_uring not permitted here, or a kernel before 6.0.
  UringReactor();
  UringReactor(const UringReactor&) = delete;
  UringReactor& operator=(const UringReactor&) = delete;
  ~UringReactor() override;

  /// Throws Error when `fd` is not open.
  Handle watch(int fd, std::function<void()> readable) override;
  /// As watch(), for room to write.
  Handle watch_writable(int fd, std::function<void()> writable);
  Handle after(Nanoseconds delay, std::function<void()> expired) override;
  void cancel(Handle handle) noexcept override;

  /// Runs callbacks until stop(). What a callback throws comes out of here, with the loop in order: run() may be called
  /// again.
  void run();
  /// Makes run() return after the callback that calls it.
  void stop() noexcept { stopping_ = true; }

 private:
  struct Waiting {
    int fd = -1;  ///< -1: a timer
    unsigned events = 0;
    __kernel_timespec delay{};
    bool armed = false;  ///< the kernel has the request
    std::function<void()> callback;
  };
  class Rearm;

  Handle add(Waiting waiting);
  Handle watch_events(int fd, unsigned events, std::function<void()> callback);
  void arm_all();
  void dispatch(Handle handle, int result);

  io_uring ring_{};
  Handle last_ = 0;
  bool stopping_ = false;
  std::unordered_map<Handle, Waiting> waiting_;
  std::vector<Handle> to_arm_;  ///< new or dispatched; may name handles that are gone
};

}  // namespace vswitch
