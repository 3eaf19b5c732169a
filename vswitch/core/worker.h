#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "vswitch/base/clock.h"
#include "vswitch/base/fd.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/datapath.h"
#include "vswitch/core/egress.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/table.h"

namespace vswitch {

/// One thread that polls queues and runs frames to completion.
///
/// Theory of operation. Every queue is hot (polled each step) or cold (armed: its descriptor, in this worker's epoll
/// set, tells of work). A queue that stayed empty for kQuiet is armed and turns cold; so a step costs what the busy
/// queues cost, whether 2 or 4,096 are attached. While hot queues remain, the worker spins, pauses when nothing came
/// for kSpin, and looks at the descriptors every kLook; when none remains it sleeps on them. A queue whose bursts are
/// mostly dropped (a flood, garbage, a reader that never reads) is passed over for a growing number of steps, so that
/// it costs only itself.
class Worker {
 public:
  /// @param cpu to pin to, -1: any
  Worker(std::size_t index, int cpu, Idle idle, Quiescence& quiescence, const Published<const Table>& table);

  /// One turn: a burst from every hot queue. Never blocks, allocates or throws; takes no lock.
  /// @param now monotonic time; never read inside
  /// @return frames received
  std::size_t step(Nanoseconds now) noexcept;

  /// The thread: steps until stop(). Returns with nothing held.
  void run() noexcept;
  /// Any thread.
  void stop() noexcept;
  /// Any thread: makes a sleeping worker take a step.
  void wake() noexcept;

  /// Control thread: lets the worker wait for a queue of `port`. Throws Error.
  void watch(PortId port, const Queue& queue);
  void unwatch(const Queue& queue) noexcept;

  [[nodiscard]] const WorkerCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] int cpu() const noexcept { return cpu_; }

 private:
  static constexpr Nanoseconds kSpin = 10 * kMicrosecond;
  static constexpr Nanoseconds kQuiet = 50 * kMicrosecond;
  static constexpr Nanoseconds kLook = 20 * kMicrosecond;
  static constexpr std::uint8_t kMaxPenalty = 64;  // steps
  static constexpr std::uint64_t kWakeMark = ~std::uint64_t{0};

  std::size_t forward(PollState& state, Nanoseconds now) noexcept;
  template <auto decide_half>
  std::size_t stage_burst(PortId ingress, const PortEntry& from, PortCounters& counters) noexcept;
  void judge(PollState& state, std::size_t received, std::size_t dropped) noexcept;
  void cool(std::size_t hot_index) noexcept;
  /// Takes events of cold queues. @param timeout_ms 0: only look; -1: sleep
  void look(int timeout_ms) noexcept;
  void sleep() noexcept;

  const std::size_t index_;
  const int cpu_;
  const Idle idle_;
  Quiescence& quiescence_;
  const Published<const Table>& published_;
  Fd epoll_;
  Fd wake_;
  std::atomic<bool> stop_{false};
  const Table* table_ = nullptr;  ///< in use if its serial is serial_; else perhaps freed
  std::uint64_t serial_ = 0;
  PollPlan* plan_ = nullptr;
  WorkerCounters counters_;
  Burst burst_;
  Egress egress_;
};

}  // namespace vswitch
