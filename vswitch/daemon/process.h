#pragma once
#include <functional>
#include <map>

#include "vswitch/base/fd.h"
#include "vswitch/core/reactor.h"

// What a daemon needs from the process it runs in.

namespace vswitch {

/// Throws Error, naming every capability that is missing (CAP_NET_ADMIN, CAP_NET_RAW).
void require_capabilities();

/// Raises the soft limit of open files to the hard one: every port costs descriptors, and the hard limit is the
/// administrator's word.
void raise_open_files_limit() noexcept;

/// Delivers signals as callbacks of the reactor. Blocks them for this thread and all threads started later, so make it
/// before any other thread.
class SignalWatch {
 public:
  /// Throws Error.
  SignalWatch(Reactor& reactor, std::map<int, std::function<void()>> handlers);
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  ~SignalWatch();

 private:
  void take_all();

  Reactor& reactor_;
  std::map<int, std::function<void()>> handlers_;
  Fd fd_;
  Reactor::Handle watch_ = 0;
};

/// Tells the service manager (systemd, or anything that sets NOTIFY_SOCKET) how we are. Does nothing without one.
class ServiceManager {
 public:
  explicit ServiceManager(Reactor& reactor);
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;
  ~ServiceManager();

  void ready() const noexcept;
  void reloading() const noexcept;
  void stopping() const noexcept;

 private:
  void feed_watchdog();

  Reactor& reactor_;
  Nanoseconds watchdog_period_ = 0;  ///< 0: nobody watches
  Reactor::Handle timer_ = 0;
};

}  // namespace vswitch
