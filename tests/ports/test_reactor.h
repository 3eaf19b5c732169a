#pragma once
#include <poll.h>

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "vswitch/base/clock.h"
#include "vswitch/core/reactor.h"

namespace vswitch::test {

/// A Reactor over poll(2) that runs when a test tells it to, on the test's thread.
class TestReactor final : public Reactor {
 public:
  Handle watch(int fd, std::function<void()> readable) override {
    watches_[++last_] = {fd, std::move(readable)};
    return last_;
  }
  Handle after(Nanoseconds delay, std::function<void()> expired) override {
    timers_[++last_] = {monotonic_now() + delay, std::move(expired)};
    return last_;
  }
  void cancel(Handle handle) noexcept override {
    watches_.erase(handle);
    timers_.erase(handle);
  }

  /// Runs what is due now; waits for it at most `timeout_ms`.
  void run_once(int timeout_ms) {
    std::vector<pollfd> fds;
    std::vector<Handle> handles;
    for (const auto& [handle, watch] : watches_) {
      fds.push_back({watch.first, POLLIN, 0});
      handles.push_back(handle);
    }
    ::poll(fds.data(), fds.size(), timeout_ms);
    for (std::size_t i = 0; i < fds.size(); ++i) {
      const auto found = watches_.find(handles[i]);
      if (fds[i].revents == 0 || found == watches_.end()) continue;
      const auto readable = found->second.second;  // a copy: the callback may cancel its own watch
      readable();
    }
    run_timers();
  }
  /// Runs until `done` says so. @return false after `timeout`
  bool run_until(const std::function<bool()>& done, Nanoseconds timeout = 5 * kSecond) {
    const Nanoseconds end = monotonic_now() + timeout;
    while (!done()) {
      if (monotonic_now() > end) return false;
      run_once(10);
    }
    return true;
  }
  [[nodiscard]] std::size_t watches() const noexcept { return watches_.size(); }

 private:
  void run_timers() {
    std::vector<Handle> due;
    for (const auto& [handle, timer] : timers_) {
      if (timer.first <= monotonic_now()) due.push_back(handle);
    }
    for (const Handle handle : due) {
      const auto found = timers_.find(handle);
      if (found == timers_.end()) continue;
      const auto expired = std::move(found->second.second);
      timers_.erase(found);
      expired();
    }
  }
  Handle last_ = 0;
  std::map<Handle, std::pair<int, std::function<void()>>> watches_;
  std::map<Handle, std::pair<Nanoseconds, std::function<void()>>> timers_;
};

}  // namespace vswitch::test
