#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "ports/loop/loop_pipe.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/port.h"

namespace vswitch {

/// A queue whose far side is the calling program. The near side (Queue) belongs to a worker; the far side (inject,
/// sent, drop_sent) to one other thread, or to the same.
class LoopQueue final : public Queue {
 public:
  /// Throws Error (memory, descriptors).
  explicit LoopQueue(PortCounters& counters);

  // The far side.
  /// Makes a frame arrive. Checks nothing: what a hostile tenant sends can be injected.
  /// @return false if the queue is full
  bool inject(std::span<const std::byte> bytes, std::uint16_t vlan = 0, const Offload& offload = {}) noexcept;
  /// Frames that were transmitted and not yet dropped by drop_sent().
  [[nodiscard]] std::size_t sent_count() const noexcept { return outgoing_.size(); }
  /// The i-th oldest of them; valid until drop_sent() covers it.
  [[nodiscard]] LoopFrame sent(std::size_t i) const noexcept { return outgoing_.peek(i); }
  void drop_sent(std::size_t frames) noexcept { outgoing_.pop(frames); }

  // What a test may demand and ask; near side's thread.
  /// From now on transmit() takes `room` more frames, then refuses with `reason`.
  void limit(std::size_t room, Drop reason = Drop::dest_full) noexcept;
  void unlimit() noexcept { limit(std::numeric_limits<std::size_t>::max()); }
  /// Frames lent and not yet given back.
  [[nodiscard]] std::size_t held() const noexcept { return held_; }
  /// Frames given back since the queue was made.
  [[nodiscard]] std::uint64_t released() const noexcept { return released_; }

  [[nodiscard]] std::size_t receive(Burst& out) noexcept override;
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames) noexcept override;
  void release(Burst& lent) noexcept override;
  [[nodiscard]] int wait_fd() const noexcept override { return event_.get(); }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] Drop refusal() const noexcept override { return refusal_; }

 private:
  LoopPipe incoming_;
  LoopPipe outgoing_;
  Fd event_;
  std::atomic<bool> armed_{false};
  std::size_t held_ = 0;   ///< frames that release() gives back
  std::size_t taken_ = 0;  ///< held_ plus refused frames among them: what leaves `incoming_` then
  std::uint64_t released_ = 0;
  std::size_t room_ = std::numeric_limits<std::size_t>::max();
  Drop limit_reason_ = Drop::dest_full;
  Drop refusal_ = Drop::dest_full;
};

/// A port and an uplink without a device. Control thread only, but its queues.
class LoopPort final : public Uplink {
 public:
  /// @param workers queues it makes
  /// @param host_mac the address that steer() protects
  explicit LoopPort(std::size_t workers = 1, Mac host_mac = {}, std::uint32_t mtu = 1500);

  void start() override;
  void stop() noexcept override;
  void permit(OffloadCaps offloads) override;
  [[nodiscard]] LoopQueue& queue(std::size_t w) override { return *queues_[w]; }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return counters_[w]; }
  [[nodiscard]] PortStatus status() const override;
  void steer(const Steering& wanted) override;
  [[nodiscard]] Mac host_mac() const override { return host_mac_; }

  /// What the last successful steer() asked for.
  [[nodiscard]] const Steering& steering() const noexcept { return steering_; }
  void set_link(bool up) noexcept { link_ = up; }

 private:
  Mac host_mac_;
  std::uint32_t mtu_;
  bool link_ = true;
  OffloadCaps permitted_ = OffloadCaps::all();
  Steering steering_;
  std::vector<PortCounters> counters_;
  std::vector<std::unique_ptr<LoopQueue>> queues_;
};

}  // namespace vswitch
