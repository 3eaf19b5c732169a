#include "vswitch/daemon/process.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

namespace vswitch {

void require_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) throw_errno("read", "the capabilities of this process");
  std::string missing;
  const auto require = [&](unsigned capability, const char* name) {
    if ((data[capability / 32].effective >> (capability % 32) & 1U) != 0) return;
    missing.append(missing.empty() ? "" : " and ").append(name);
  };
  require(CAP_NET_ADMIN, "CAP_NET_ADMIN");
  require(CAP_NET_RAW, "CAP_NET_RAW");
  if (missing.empty()) return;
  throw Error(EPERM, "start", "without " + missing, "run as root, or grant them (systemd: AmbientCapabilities=)");
}

void raise_open_files_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

SignalWatch::SignalWatch(Reactor& reactor, std::map<int, std::function<void()>> handlers)
    : reactor_(reactor), handlers_(std::move(handlers)) {
  sigset_t set;
  sigemptyset(&set);
  for (const auto& [number, handler] : handlers_) sigaddset(&set, number);
  if (const int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); err != 0) throw Error(err, "block", "signals");
  fd_ = Fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd_.valid()) throw_errno("create", "signalfd");
  watch_ = reactor_.watch(fd_.get(), [this] { take_all(); });
}

SignalWatch::~SignalWatch() { reactor_.cancel(watch_); }

void SignalWatch::take_all() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    const auto handler = handlers_.find(static_cast<int>(info.ssi_signo));
    if (handler != handlers_.end()) handler->second();
  }
}

ServiceManager::ServiceManager(Reactor& reactor) : reactor_(reactor) {
  std::uint64_t microseconds = 0;
  if (::sd_watchdog_enabled(0, &microseconds) <= 0) return;
  watchdog_period_ = microseconds * kMicrosecond / 2;
  feed_watchdog();
}

ServiceManager::~ServiceManager() { reactor_.cancel(timer_); }

void ServiceManager::feed_watchdog() {
  ::sd_notify(0, "WATCHDOG=1");
  timer_ = reactor_.after(watchdog_period_, [this] { feed_watchdog(); });
}

void ServiceManager::ready() const noexcept { ::sd_notify(0, "READY=1\nSTATUS=switching"); }

void ServiceManager::reloading() const noexcept {
  ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", static_cast<unsigned long long>(monotonic_now() / kMicrosecond));
}

void ServiceManager::stopping() const noexcept { ::sd_notify(0, "STOPPING=1"); }

}  // namespace vswitch
