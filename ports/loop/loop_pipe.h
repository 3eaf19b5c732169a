#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "vswitch/base/memory.h"
#include "vswitch/core/frame.h"
#include "vswitch/net/offload.h"

namespace vswitch {

/// A frame as it lies in a LoopPipe.
struct LoopFrame {
  std::span<const std::byte> bytes;
  std::uint16_t vlan = 0;
  Offload offload;
};

/// One direction of a LoopQueue: a bounded first-in-first-out of whole frames, packed one behind the other.
/// One thread pushes, one thread looks and pops; neither ever blocks or allocates.
class LoopPipe {
 public:
  static constexpr std::size_t kFrames = 1024;
  static constexpr std::size_t kArenaBytes = std::size_t{1} << 21;

  /// Throws Error (memory).
  LoopPipe();

  /// Producer: room for a frame of `length` bytes, to be filled before commit(); nullptr if the pipe is full or the
  /// frame longer than kMaxFrameBytes.
  [[nodiscard]] std::byte* reserve(std::size_t length) noexcept;
  /// Producer: the frame that was reserved last is there.
  void commit(std::size_t length, std::uint16_t vlan, const Offload& offload) noexcept;

  /// Consumer: how many frames lie here now.
  [[nodiscard]] std::size_t size() const noexcept {
    return static_cast<std::size_t>(tail_.load(std::memory_order_acquire) - head_.load(std::memory_order_relaxed));
  }
  /// Consumer: the i-th oldest frame, i < size(). Valid until pop() covers it.
  [[nodiscard]] LoopFrame peek(std::size_t i) const noexcept {
    const Slot& slot = slots_[(head_.load(std::memory_order_relaxed) + i) % kFrames];
    return {{arena_.data() + slot.start % kArenaBytes, slot.length}, slot.vlan, slot.offload};
  }
  /// Consumer: frees the `n` oldest frames.
  void pop(std::size_t n) noexcept {
    head_.store(head_.load(std::memory_order_relaxed) + n, std::memory_order_release);
  }

 private:
  struct Slot {
    std::uint64_t start;  ///< position since the pipe was made; its place is start % kArenaBytes
    std::uint32_t length;
    std::uint16_t vlan;
    Offload offload;
  };
  Mapping arena_;
  std::unique_ptr<Slot[]> slots_;
  std::uint64_t position_ = 0;  ///< producer: where the next frame may start
  alignas(64) std::atomic<std::uint64_t> tail_{0};
  alignas(64) std::atomic<std::uint64_t> head_{0};
};

}  // namespace vswitch
