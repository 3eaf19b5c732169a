#include "vswitch/base/quiescence.h"

#include <sched.h>

namespace vswitch {

Quiescence::Quiescence(std::size_t workers) : workers_(workers), seen_(std::make_unique<Seen[]>(workers)) {}

void Quiescence::wait() noexcept {
  const std::uint64_t era = era_.fetch_add(1, std::memory_order_seq_cst) + 1;
  for (std::size_t w = 0; w < workers_; ++w) {
    while (seen_[w].era.load(std::memory_order_seq_cst) < era) sched_yield();
  }
}

}  // namespace vswitch
