#include "tests/softnic/dropin/completions.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace softnic::dropin {
namespace {

constexpr std::size_t kMostHeld = 8;

}  // namespace

std::uint64_t clock_ns(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

Completions::Completions(std::size_t entries, const Events& events, Board& board)
    : entries_(entries), events_(events), board_(board), random_(board.seed) {}

bool Completions::push(Completion completion) {
  const bool error = completion.status != IBV_WC_SUCCESS;
  if (error) board_.count(Counter::error_completions);
  if (used() >= entries_) overrun_ = true;
  if (overrun_) {
    board_.count(Counter::drop_cq_overrun);
    return false;
  }
  error_since_armed_ = error_since_armed_ || error;
  completion.time_ns = clock_ns(CLOCK_MONOTONIC);
  completion.wall_ns = clock_ns(CLOCK_REALTIME);
  held_.push_back(completion);
  if (armed_ || board_.seed == 0 || held_.size() >= kMostHeld || random_() % 4 == 0) release_all();
  notify();
  return true;
}

bool Completions::take(Completion& out) {
  if (shown_.empty()) return false;
  out = shown_.front();
  shown_.pop_front();
  if (out.done != nullptr) *out.done = out.position;
  return true;
}

void Completions::release_all() {
  shown_.insert(shown_.end(), held_.begin(), held_.end());
  held_.clear();
}

void Completions::release_some() {
  if (!held_.empty() && random_() % 2 == 0) release_all();
}

void Completions::arm(bool solicited_only) {
  release_all();
  armed_ = true;
  solicited_only_ = solicited_only;
  error_since_armed_ =
      std::any_of(shown_.begin(), shown_.end(), [](const Completion& one) { return one.status != IBV_WC_SUCCESS; });
  notify();
}

void Completions::notify() {
  if (!armed_ || shown_.empty() || (solicited_only_ && !error_since_armed_)) return;
  armed_ = false;
  if (events_.channel < 0) return;
  std::uint32_t lose = board_.lose_interrupts.load(std::memory_order_relaxed);
  while (lose != 0 && !board_.lose_interrupts.compare_exchange_weak(lose, lose - 1)) {
  }
  if (lose != 0) {
    board_.count(Counter::interrupts_lost);
    return;
  }
  if (::write(events_.channel, &events_.cookie, sizeof events_.cookie) == sizeof events_.cookie) {
    board_.count(Counter::interrupts);
  }
}

void Completions::remove(const std::uint64_t* done) {
  const auto ours = [done](const Completion& one) { return one.done == done; };
  std::erase_if(shown_, ours);
  std::erase_if(held_, ours);
}

bool Completions::take_overrun() noexcept {
  const bool news = overrun_ && !overrun_told_;
  overrun_told_ = overrun_;
  return news;
}

}  // namespace softnic::dropin
