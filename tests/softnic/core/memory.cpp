#include "tests/softnic/core/memory.h"

namespace softnic {
namespace {

// Keys as mlx5 makes them: an index above 8 bits that change with each use of the slot. Slot 0 stands for keys below
// 0x1000, among them 0x100, which ends a scatter list.
constexpr std::uint32_t kFirstIndex = 0x10;

}  // namespace

std::uint32_t MemoryTable::add(const Region& region) {
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.region = region;
  slot.used = true;
  return (index + kFirstIndex) << 8 | slot.generation;
}

const MemoryTable::Slot* MemoryTable::find(std::uint32_t key) const noexcept {
  const std::uint32_t index = (key >> 8) - kFirstIndex;
  if (index >= slots_.size()) return nullptr;
  const Slot& slot = slots_[index];
  return slot.used && slot.generation == (key & 0xff) ? &slot : nullptr;
}

bool MemoryTable::remove(std::uint32_t key) {
  const Slot* found = find(key);
  if (found == nullptr) return false;
  const std::size_t index = static_cast<std::size_t>(found - slots_.data());
  slots_[index].used = false;
  ++slots_[index].generation;
  free_.push_back(static_cast<std::uint32_t>(index));
  return true;
}

std::uint32_t MemoryTable::domain(std::uint32_t key) const noexcept {
  const Slot* slot = find(key);
  return slot == nullptr ? 0 : slot->region.domain;
}

bool MemoryTable::shared(std::uint32_t key) const noexcept {
  const Slot* slot = find(key);
  return slot != nullptr && slot->region.shared;
}

std::uint8_t* MemoryTable::translate(std::uint32_t key, std::uint64_t iova, std::uint64_t length, std::uint32_t domain,
                                     bool write) const noexcept {
  const Slot* slot = find(key);
  if (slot == nullptr || slot->region.domain != domain) return nullptr;
  const Region& region = slot->region;
  if (write && (region.access & kLocalWrite) == 0) return nullptr;
  const std::uint64_t offset = iova - region.iova;
  if (iova < region.iova || offset > region.length || length > region.length - offset) return nullptr;
  return reinterpret_cast<std::uint8_t*>(region.address + offset);
}

}  // namespace softnic
