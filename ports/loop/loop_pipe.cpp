#include "ports/loop/loop_pipe.h"

namespace vswitch {

LoopPipe::LoopPipe() : arena_(Mapping::anonymous(kArenaBytes)), slots_(std::make_unique<Slot[]>(kFrames)) {}

std::byte* LoopPipe::reserve(std::size_t length) noexcept {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  const std::uint64_t oldest = head_.load(std::memory_order_acquire);
  if (length > kMaxFrameBytes || tail - oldest == kFrames) return nullptr;

  std::uint64_t start = position_;
  const std::uint64_t left_before_wrap = kArenaBytes - start % kArenaBytes;
  if (left_before_wrap < length) start += left_before_wrap;
  const std::uint64_t in_use_from = tail == oldest ? start : slots_[oldest % kFrames].start;
  if (start + length - in_use_from > kArenaBytes) return nullptr;
  position_ = start;
  return arena_.data() + start % kArenaBytes;
}

void LoopPipe::commit(std::size_t length, std::uint16_t vlan, const Offload& offload) noexcept {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  slots_[tail % kFrames] = {position_, static_cast<std::uint32_t>(length), vlan, offload};
  constexpr std::uint64_t kAlign = 64;  // frames start on cache lines, as in a ring's arena
  position_ = (position_ + length + kAlign - 1) & ~(kAlign - 1);
  tail_.store(tail + 1, std::memory_order_release);
}

}  // namespace vswitch
