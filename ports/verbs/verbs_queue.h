#pragma once
#include <atomic>
#include <cstddef>
#include <span>

#include "ports/verbs/queue_set.h"
#include "vswitch/base/fd.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/port.h"

namespace vswitch::verbs {

/// The uplink's queue for one worker: passes on to the worker's QueueSet, which comes and goes with the device.
class VerbsQueue final : public Queue {
 public:
  /// Throws Error.
  explicit VerbsQueue(PortCounters& counters);

  /// Control thread: from now on the worker uses `set`. Throws Error.
  void connect(QueueSet& set);
  /// Control thread: after Quiescence::wait() the worker uses no set any more.
  void disconnect() noexcept;
  /// Control thread: makes the worker look, whether the device asked for it or not.
  void nudge() noexcept;
  /// Any thread: an eventfd; writing 1 to it nudges.
  [[nodiscard]] int bell() const noexcept { return nudge_.get(); }
  /// Control thread. What is sent while the link is down would wait in the device for nobody.
  void set_link(bool up) noexcept { link_up_.store(up, std::memory_order_relaxed); }

  [[nodiscard]] std::size_t receive(Burst& out) noexcept override;
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames) noexcept override;
  void release(Burst& lent) noexcept override;
  void reclaim() noexcept override;
  [[nodiscard]] int wait_fd() const noexcept override { return events_.get(); }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] Drop refusal() const noexcept override { return refusal_; }

 private:
  Fd events_;  ///< an epoll: constant while completion channels come and go
  Fd nudge_;   ///< an eventfd in it
  Published<QueueSet> set_;
  std::atomic<bool> link_up_{false};
  QueueSet* polled_ = nullptr;  ///< whose frames are lent
  Drop refusal_ = Drop::dest_full;
};

}  // namespace vswitch::verbs
