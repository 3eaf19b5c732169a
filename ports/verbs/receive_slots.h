#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"
#include "vswitch/core/arena.h"

namespace vswitch::verbs {

class ReceivePair;

/// Receive buffers in the memory of one tenant, for the queue pair that receives for it alone. Which of them the tenant
/// may still be reading stands in its port's memory, and outlives pair and device.
///
/// The worker of the pair uses them while user() is set; else the control thread.
class ReceiveSlots {
 public:
  /// Control thread. @param memory valid as long as this; from a multiple of 64 bytes. Throws Error.
  ReceiveSlots(const Device& device, const ReceiveMemory& memory, std::uint32_t stride);

  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(left_.size()); }
  [[nodiscard]] std::byte* buffer(std::uint32_t slot) const noexcept {
    return memory_.bytes.data() + std::size_t{slot} * stride_;
  }
  [[nodiscard]] Kept& kept(std::uint32_t slot) const noexcept {
    return memory_.kept[std::size_t{slot} * stride_ / ReceiveMemory::kLine];
  }
  [[nodiscard]] std::uint32_t key() const noexcept { return region_->lkey; }

  /// Takes a slot that nobody uses. @return count(): there is none
  [[nodiscard]] std::uint32_t take() noexcept;
  /// The slot is free when the tenant is done with it. Slots are taken again in the order in which they were left.
  void leave(std::uint32_t slot) noexcept {
    left_[(first_left_ + left_count_) % count()] = slot;
    ++left_count_;
  }

  [[nodiscard]] const ReceivePair* user() const noexcept { return user_; }
  /// Control thread. All slots are left, whatever the pair before had posted: it is gone.
  void begin_use(const ReceivePair* user) noexcept;
  void end_use() noexcept { user_ = nullptr; }

 private:
  ReceiveMemory memory_;
  std::uint32_t stride_;
  Verbs<ibv_mr> region_;
  std::vector<std::uint32_t> left_;  // a ring of count()
  std::uint32_t first_left_ = 0;
  std::uint32_t left_count_ = 0;
  const ReceivePair* user_ = nullptr;
};

}  // namespace vswitch::verbs
