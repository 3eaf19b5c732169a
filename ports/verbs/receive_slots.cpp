#include "ports/verbs/receive_slots.h"

#include "vswitch/base/error.h"

namespace vswitch::verbs {

ReceiveSlots::ReceiveSlots(const Device& device, const ReceiveMemory& memory, std::uint32_t stride)
    : memory_(memory),
      stride_(stride),
      region_(device.register_memory(memory.bytes.data(), memory.bytes.size(), true)),
      left_(memory.bytes.size() / stride) {
  if (left_.empty()) throw Error(0, "use", "its memory", "it attached when frames were shorter");
}

std::uint32_t ReceiveSlots::take() noexcept {
  if (left_count_ == 0) return count();
  const std::uint32_t slot = left_[first_left_];
  if (kept(slot).load(std::memory_order_acquire)) return count();
  first_left_ = first_left_ + 1 == count() ? 0 : first_left_ + 1;
  --left_count_;
  return slot;
}

void ReceiveSlots::begin_use(const ReceivePair* user) noexcept {
  user_ = user;
  first_left_ = left_count_ = 0;
  // Those that are free come first: one that the tenant is slow to read must not stand in front of them.
  for (const bool busy : {false, true}) {
    for (std::uint32_t i = 0; i < count(); ++i) {
      if (kept(i).load(std::memory_order_acquire) == busy) leave(i);
    }
  }
}

}  // namespace vswitch::verbs
