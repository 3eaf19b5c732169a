#include "vswitch/core/worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>

#include "vswitch/base/error.h"
#include "vswitch/core/decide.h"

namespace vswitch {
namespace {

/// Tells the core that it waits; saves power and yields to a sibling hyper-thread.
inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Worker::Worker(std::size_t index, int cpu, Idle idle, Quiescence& quiescence, const Published<const Table>& table)
    : index_(index),
      cpu_(cpu),
      idle_(idle),
      quiescence_(quiescence),
      published_(table),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      egress_(index) {
  if (!epoll_.valid() || !wake_.valid()) throw_errno("create", "the worker's epoll and eventfd");
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = kWakeMark}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) throw_errno("watch", "the worker's eventfd");
}

void Worker::watch(PortId port, const Queue& queue) {
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = port}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, queue.wait_fd(), &event) != 0)
    throw_errno("watch", "a port's descriptor");
}

void Worker::unwatch(const Queue& queue) noexcept {
  epoll_event unused{};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, queue.wait_fd(), &unused);
}

void Worker::wake() noexcept { ::eventfd_write(wake_.get(), 1); }

void Worker::stop() noexcept {
  stop_.store(true, std::memory_order_release);
  wake();
}

std::size_t Worker::step(Nanoseconds now) noexcept {
  quiescence_.online(index_);
  const Table* table = published_.load();
  if (table->serial() != serial_) {
    table_ = table;
    serial_ = table->serial();
    plan_ = &table->poll(index_);
    egress_.use(*table);
    for (PollState& state : plan_->states) state.last_work = now;
  }
  std::size_t frames = 0;
  for (std::size_t i = 0; i < plan_->hot.size();) {
    PollState& state = plan_->states[plan_->hot[i]];
    if (state.skip != 0) {
      --state.skip;
    } else if (const std::size_t received = forward(state, now); received != 0) {
      frames += received;
    } else if (idle_ != Idle::poll && (idle_ == Idle::sleep || now - state.last_work > kQuiet) && state.queue->arm()) {
      cool(i);
      continue;
    }
    ++i;
  }
  counters_.steps.add(1);
  if (frames != 0) {
    counters_.busy_steps.add(1);
    counters_.frames.add(frames);
  }
  return frames;
}

/// Decides on every frame of the burst with the half of decide() that fits its port. @return frames dropped
template <auto decide_half>
inline std::size_t Worker::stage_burst(PortId ingress, const PortEntry& from, PortCounters& counters) noexcept {
  std::size_t dropped = 0;
  std::uint64_t bytes = 0;
  for (const Frame& frame : burst_) {
    bytes += frame.length;
    const Verdict verdict = decide_half(ingress, from, frame, *table_);
    if (verdict.drop != Drop::none) [[unlikely]] {
      counters.drop(verdict.drop);
      ++dropped;
      continue;
    }
    egress_.stage(verdict, frame);
  }
  counters.rx_frames.add(burst_.size());
  counters.rx_bytes.add(bytes);
  return dropped;
}

std::size_t Worker::forward(PollState& state, Nanoseconds now) noexcept {
  Queue& queue = *state.queue;
  burst_.clear();
  const std::size_t received = queue.receive(burst_);
  if (received == 0) {
    queue.reclaim();
    return 0;
  }
  state.last_work = now;
  PortCounters& counters = queue.counters();
  const PortEntry& from = table_->port(state.port);
  const std::size_t misled = from.is_uplink ? stage_burst<detail::from_wire>(state.port, from, counters)
                                            : stage_burst<detail::from_tenant>(state.port, from, counters);
  egress_.flush();
  const std::size_t lent = burst_.size();
  queue.release(burst_);
  if (!from.is_uplink) judge(state, received, received - lent + misled + egress_.take_refused());
  return received;
}

void Worker::judge(PollState& state, std::size_t received, std::size_t dropped) noexcept {
  if (dropped * 2 <= received) [[likely]] {
    state.penalty = 0;
    return;
  }
  state.penalty = static_cast<std::uint8_t>(std::clamp(state.penalty * 2, 1, static_cast<int>(kMaxPenalty)));
  state.skip = state.penalty;
}

void Worker::cool(std::size_t hot_index) noexcept {
  plan_->states[plan_->hot[hot_index]].hot = false;
  plan_->hot[hot_index] = plan_->hot.back();
  plan_->hot.pop_back();
}

void Worker::look(int timeout_ms) noexcept {
  constexpr int kEvents = 64;
  std::array<epoll_event, kEvents> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEvents, timeout_ms);
  if (timeout_ms != 0) quiescence_.wake(index_);
  const Table* table = published_.load();
  if (table->serial() != serial_) return;  // step() takes the new table up, in which every queue starts hot
  for (int i = 0; i < count; ++i) {
    const std::uint64_t port = events[static_cast<std::size_t>(i)].data.u64;
    if (port == kWakeMark || port >= table->port_slots() || !table->port(static_cast<PortId>(port)).present) continue;
    const std::uint32_t index = table->poll_index(static_cast<PortId>(port));
    PollState& state = plan_->states[index];
    if (state.hot) continue;
    state.hot = true;
    state.skip = 0;
    state.last_work = 0;  // polled at least once, then armed again unless work came
    plan_->hot.push_back(index);
  }
}

void Worker::sleep() noexcept {
  const Nanoseconds before = monotonic_now();
  counters_.asleep_since.store(before, std::memory_order_relaxed);
  quiescence_.offline(index_);
  look(-1);
  counters_.asleep_since.store(0, std::memory_order_relaxed);
  counters_.sleeps.add(1);
  counters_.slept_ns.add(monotonic_now() - before);
}

void Worker::run() noexcept {
  Nanoseconds last_look = 0;
  Nanoseconds last_work = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    const Nanoseconds now = monotonic_now();
    if (step(now) != 0) last_work = now;
    if (plan_->hot.empty()) {
      sleep();
    } else if (now - last_look > kLook) {
      last_look = now;
      if (plan_->hot.size() < plan_->states.size()) look(0);
    } else if (now - last_work > kSpin && idle_ == Idle::adaptive) {
      relax();
    }
  }
  quiescence_.offline(index_);
}

}  // namespace vswitch
