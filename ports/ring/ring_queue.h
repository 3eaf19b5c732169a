#pragma once
#include "ports/ring/attachment.h"
#include "vswitch/base/fd.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/port.h"

namespace vswitch {

/// One worker's end of a ring port: polls some of the tenant's TX rings, fills this worker's RX ring of every queue
/// pair. Without an attached client it is silent and refuses.
class RingQueue final : public Queue {
 public:
  /// @param vlan access VLAN, 0: the port's tags are inside its frames. Throws Error.
  RingQueue(std::size_t worker, std::uint16_t vlan, PortCounters& counters);

  std::size_t receive(Burst& out) noexcept override;
  std::size_t transmit(std::span<const Frame* const> frames) noexcept override;
  void release(Burst& lent) noexcept override;
  [[nodiscard]] int wait_fd() const noexcept override { return doorbell_.get(); }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] Drop refusal() const noexcept override { return refusal_; }

  /// Control thread: another attachment, or nullptr. The old one may be freed after Quiescence::wait().
  void attach(Attachment* attachment) noexcept { attachment_.replace(attachment); }

 private:
  std::size_t transmit_spread(WorkerRings& rings, std::span<const Frame* const> frames) noexcept;

  const std::size_t worker_;
  const std::uint16_t vlan_;
  Fd doorbell_;  ///< the tenant writes it when a TX ring is armed
  Published<Attachment> attachment_;
  WorkerRings* polled_ = nullptr;  ///< between receive() and release()
  std::size_t turn_ = 0;           ///< TX ring polled first
  Drop refusal_ = Drop::dest_detached;
};

}  // namespace vswitch
