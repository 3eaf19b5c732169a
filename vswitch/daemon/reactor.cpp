#include "vswitch/daemon/reactor.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <string>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr unsigned kSubmissions = 256;

/// Cancels the request `handle`; -ENOENT when there is none.
int cancel_now(io_uring& ring, Reactor::Handle handle) noexcept {
  io_uring_sync_cancel_reg request{};
  request.addr = handle;
  request.timeout = {-1, -1};  // wait for it as long as it takes: a poll or a timer lets go at once
  return io_uring_register_sync_cancel(&ring, &request);
}

void open_ring(io_uring& ring) {
  // No DEFER_TASKRUN: completions of a cancel (and with them the file references) must not wait for the next run().
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN;
  int result = io_uring_queue_init_params(kSubmissions, &ring, &params);
  if (result == -EINVAL) {
    params = {};
    result = io_uring_queue_init_params(kSubmissions, &ring, &params);
  }
  if (result == 0) return;
  const bool forbidden = result == -EPERM || result == -ENOSYS || result == -EACCES;
  throw Error(-result, "set up", "io_uring",
              forbidden ? "allow io_uring: sysctl kernel.io_uring_disabled=0, and no seccomp filter against it" : "");
}

}  // namespace

UringReactor::UringReactor() {
  open_ring(ring_);
  const int result = cancel_now(ring_, ~Handle{0});
  if (result == -ENOENT) return;
  io_uring_queue_exit(&ring_);
  throw Error(-result, "set up", "io_uring", "vswitch needs Linux 6.0 or newer (synchronous cancellation)");
}

UringReactor::~UringReactor() {
  for (const auto& [handle, waiting] : waiting_) {
    if (waiting.armed) cancel_now(ring_, handle);
  }
  io_uring_queue_exit(&ring_);
}

Reactor::Handle UringReactor::add(Waiting waiting) {
  const Handle handle = ++last_;
  waiting_.emplace(handle, std::move(waiting));
  to_arm_.push_back(handle);
  return handle;
}

Reactor::Handle UringReactor::watch_events(int fd, unsigned events, std::function<void()> callback) {
  if (::fcntl(fd, F_GETFD) < 0) throw_errno("watch", "descriptor " + std::to_string(fd));
  return add({fd, events, {}, false, std::move(callback)});
}

Reactor::Handle UringReactor::watch(int fd, std::function<void()> readable) {
  return watch_events(fd, POLLIN, std::move(readable));
}

Reactor::Handle UringReactor::watch_writable(int fd, std::function<void()> writable) {
  return watch_events(fd, POLLOUT, std::move(writable));
}

Reactor::Handle UringReactor::after(Nanoseconds delay, std::function<void()> expired) {
  const __kernel_timespec time{static_cast<__s64>(delay / kSecond), static_cast<long long>(delay % kSecond)};
  return add({-1, 0, time, false, std::move(expired)});
}

void UringReactor::cancel(Handle handle) noexcept {
  const auto found = waiting_.find(handle);
  if (found == waiting_.end()) return;
  if (found->second.armed) cancel_now(ring_, handle);
  waiting_.erase(found);
}

void UringReactor::arm_all() {
  for (; !to_arm_.empty(); to_arm_.pop_back()) {
    const Handle handle = to_arm_.back();
    const auto found = waiting_.find(handle);
    if (found == waiting_.end()) continue;
    Waiting& waiting = found->second;
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
      io_uring_submit(&ring_);
      entry = io_uring_get_sqe(&ring_);
    }
    if (entry == nullptr) throw Error(EBUSY, "submit to", "io_uring");
    if (waiting.fd < 0) {
      io_uring_prep_timeout(entry, &waiting.delay, 0, 0);
    } else {
      io_uring_prep_poll_add(entry, waiting.fd, waiting.events);
    }
    io_uring_sqe_set_data64(entry, handle);
    waiting.armed = true;
  }
}

void UringReactor::run() {
  stopping_ = false;
  while (!stopping_) {
    arm_all();
    const int result = io_uring_submit_and_wait(&ring_, 1);
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
      throw Error(-result, "wait on", "io_uring");
    }
    // One completion at a time, so that nothing is lost when a callback throws; only those already there, so that new
    // and renewed requests get their turn.
    io_uring_cqe* completion = nullptr;
    for (unsigned left = io_uring_cq_ready(&ring_); left > 0 && !stopping_; --left) {
      if (io_uring_peek_cqe(&ring_, &completion) != 0) break;
      const Handle handle = completion->user_data;
      const int outcome = completion->res;
      io_uring_cqe_seen(&ring_, completion);
      dispatch(handle, outcome);
    }
  }
}

/// Puts a callback back where it came from, unless it cancelled itself; also when it threw.
class UringReactor::Rearm {
 public:
  Rearm(UringReactor& reactor, Handle handle, std::function<void()>& callback)
      : reactor_(reactor), handle_(handle), callback_(callback) {}
  Rearm(const Rearm&) = delete;
  Rearm& operator=(const Rearm&) = delete;
  ~Rearm() {
    const auto found = reactor_.waiting_.find(handle_);
    if (found == reactor_.waiting_.end()) return;
    found->second.callback = std::move(callback_);
    reactor_.to_arm_.push_back(handle_);
  }

 private:
  UringReactor& reactor_;
  Handle handle_;
  std::function<void()>& callback_;
};

void UringReactor::dispatch(Handle handle, int result) {
  const auto found = waiting_.find(handle);
  if (found == waiting_.end()) return;  // cancelled after it completed
  Waiting& waiting = found->second;
  waiting.armed = false;
  // Out of the map before the call: the callback may cancel itself and must not be destroyed while it runs.
  std::function<void()> callback = std::move(waiting.callback);
  if (waiting.fd < 0) {
    waiting_.erase(found);
    callback();
    return;
  }
  if (result < 0) {  // closed without cancel(): watching on would spin
    spdlog::error("stopped watching descriptor {}: {}", waiting.fd, Error(-result, "poll", "").what());
    waiting_.erase(found);
    return;
  }
  const Rearm rearm(*this, handle, callback);
  callback();
}

}  // namespace vswitch
