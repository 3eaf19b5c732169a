#include "ports/verbs/verbs_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vswitch/base/error.h"

namespace vswitch::verbs {

VerbsQueue::VerbsQueue(PortCounters& counters)
    : Queue(counters), events_(::epoll_create1(EPOLL_CLOEXEC)), nudge_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;  // each write is news, nobody reads
  if (!events_.valid() || !nudge_.valid() || ::epoll_ctl(events_.get(), EPOLL_CTL_ADD, nudge_.get(), &event) != 0) {
    throw_errno("create", "the epoll and eventfd of an uplink's queue", "raise the limit of open files (LimitNOFILE=)");
  }
}

void VerbsQueue::nudge() noexcept {
  const std::uint64_t one = 1;
  static_cast<void>(::write(bell(), &one, sizeof(one)));
}

void VerbsQueue::connect(QueueSet& set) {
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(events_.get(), EPOLL_CTL_ADD, set.completions().channel_fd(), &event) != 0) {
    throw_errno("wait for", "the completion channel of an uplink's queue");
  }
  set_.replace(&set);
  nudge();  // nobody has asked it for events yet
}

void VerbsQueue::disconnect() noexcept { set_.replace(nullptr); }  // the channel leaves the epoll when it is closed

std::size_t VerbsQueue::receive(Burst& out) noexcept {
  polled_ = set_.load();
  return polled_ == nullptr ? 0 : polled_->receive(out, counters());
}

void VerbsQueue::release(Burst& /*lent*/) noexcept { polled_->release(); }

std::size_t VerbsQueue::transmit(std::span<const Frame* const> frames) noexcept {
  QueueSet* const set = set_.load();
  refusal_ = Drop::dest_detached;
  if (set == nullptr || !link_up_.load(std::memory_order_relaxed)) return 0;
  refusal_ = Drop::dest_full;
  return set->transmit(frames, counters());
}

void VerbsQueue::reclaim() noexcept {
  if (QueueSet* const set = set_.load(); set != nullptr) set->reclaim();
}

bool VerbsQueue::arm() noexcept {
  QueueSet* const set = set_.load();
  return set == nullptr || set->arm();
}

}  // namespace vswitch::verbs
