#include "ports/loop/loop_pipe.h"

#include <cstring>

namespace vswitch {

LoopPipe::LoopPipe() : arena_(Mapping::anonymous(kArenaBytes)), slots_(std::make_unique<Slot[]>(kFrames)) {}

bool LoopPipe::push(std::span<const std::byte> head, std::span<const std::byte> rest, std::uint16_t vlan,
                    const Offload& offload) noexcept {
  const std::size_t length = head.size() + rest.size();
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  const std::uint64_t oldest = head_.load(std::memory_order_acquire);
  if (length > kMaxFrameBytes || tail - oldest == kFrames) return false;

  std::uint64_t start = position_;
  const std::uint64_t left_before_wrap = kArenaBytes - start % kArenaBytes;
  if (left_before_wrap < length) start += left_before_wrap;
  const std::uint64_t in_use_from = tail == oldest ? start : slots_[oldest % kFrames].start;
  if (start + length - in_use_from > kArenaBytes) return false;

  std::byte* to = arena_.data() + start % kArenaBytes;
  if (!head.empty()) std::memcpy(to, head.data(), head.size());
  if (!rest.empty()) std::memcpy(to + head.size(), rest.data(), rest.size());
  slots_[tail % kFrames] = {start, static_cast<std::uint32_t>(length), vlan, offload};
  constexpr std::uint64_t kAlign = 64;  // frames start on cache lines, as in a ring's arena
  position_ = (start + length + kAlign - 1) & ~(kAlign - 1);
  tail_.store(tail + 1, std::memory_order_release);
  return true;
}

}  // namespace vswitch
