#include "ports/verbs/direct_memory.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace vswitch::verbs {

DirectMemory::DirectMemory(const Device& device, Quiescence& quiescence)
    : device_(device),
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
  Entry& entry = arenas_[&arena];
  try {
    entry.sends = device_.register_memory(arena.sent_from.data(), arena.sent_from.size(), false);
    publish();
  } catch (const std::exception& error) {
    entry.sends.reset();
    entry.why_not = error.what();
  }
}

Verbs<ibv_mr> DirectMemory::withdraw(const Arena& arena) noexcept {
  const auto found = arenas_.find(&arena);
  if (found == arenas_.end()) return nullptr;
  Verbs<ibv_mr> region = std::move(found->second.sends);
  arenas_.erase(found);
  if (region) publish();
  return region;
}

std::string DirectMemory::why_not(const Arena& arena) const {
  const auto found = arenas_.find(&arena);
  return found == arenas_.end() ? "its memory is not registered" : found->second.why_not;
}

}  // namespace vswitch::verbs
