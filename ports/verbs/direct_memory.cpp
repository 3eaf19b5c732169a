#include "ports/verbs/direct_memory.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace vswitch::verbs {

DirectMemory::DirectMemory(const Device& device, std::uint32_t stride, Quiescence& quiescence)
    : device_(device),
      stride_(stride),
      quiescence_(quiescence),
      regions_(std::make_unique<const SendRegions>()),
      published_(regions_.get()) {}

void DirectMemory::publish() {
  auto next = std::make_unique<SendRegions>();
  for (const auto& [arena, entry] : arenas_) {
    if (entry.sends) next->push_back({arena->sent_from.data(), arena->sent_from.size(), entry.sends->lkey});
  }
  std::sort(next->begin(), next->end(), [](const SendRegion& a, const SendRegion& b) { return a.first < b.first; });
  published_.replace(next.get());
  quiescence_.wait();
  regions_ = std::move(next);
}

void DirectMemory::add(const Arena& arena) noexcept {
  if (arenas_.contains(&arena)) return;
  Entry& entry = arenas_[&arena];
  if (arena.sent_from.empty()) {
    entry.why_not_sends = "it attached before this uplink was there";
    return;
  }
  try {
    entry.sends = device_.register_memory(arena.sent_from.data(), arena.sent_from.size(), false);
    publish();
  } catch (const std::exception& error) {
    entry.sends.reset();
    entry.why_not_sends = error.what();
  }
}

void DirectMemory::offer(const Arena& arena, std::size_t worker, ReceivePair* pair,
                         const std::string& why_not) noexcept {
  const auto found = arenas_.find(&arena);
  if (found == arenas_.end()) return;
  Entry& entry = found->second;
  if (pair != nullptr && pair->direct()) return;
  if (pair == nullptr || arena.received_into.empty()) {
    entry.why_not_slots = pair == nullptr ? why_not : arena.why_no_slots;
    return;
  }
  try {
    if (!entry.slots || entry.worker != worker) {
      entry.slots = std::make_unique<ReceiveSlots>(device_, arena.received_into[worker], stride_);
      entry.worker = worker;
    }
    pair->offer(*entry.slots);
    entry.why_not_slots.clear();
  } catch (const std::exception& error) {
    entry.why_not_slots = error.what();
  }
}

DirectMemory::Withdrawn DirectMemory::withdraw(const Arena& arena) noexcept {
  const auto found = arenas_.find(&arena);
  if (found == arenas_.end()) return {};
  Withdrawn withdrawn{std::move(found->second.sends), std::move(found->second.slots)};
  arenas_.erase(found);
  if (withdrawn.sends) publish();
  return withdrawn;
}

std::string DirectMemory::how(const Arena& arena) const {
  const auto found = arenas_.find(&arena);
  if (found == arenas_.end()) return "staged";
  const Entry& entry = found->second;
  if (entry.sends && entry.why_not_slots.empty()) return "direct";
  if (entry.sends) return "sends direct, receives staged: " + entry.why_not_slots;
  if (entry.why_not_slots.empty()) return "receives direct, sends staged: " + entry.why_not_sends;
  return "staged: " + entry.why_not_sends;
}

}  // namespace vswitch::verbs
