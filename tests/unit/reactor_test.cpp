#include "vswitch/daemon/reactor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"
#include "vswitch/daemon/process.h"

namespace vswitch {
namespace {

Fd event(unsigned initial = 0) { return Fd(::eventfd(initial, EFD_NONBLOCK | EFD_CLOEXEC)); }

struct Pipe {
  Fd read_end;
  Fd write_end;
  Pipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_NONBLOCK | O_CLOEXEC) != 0) throw_errno("make", "a pipe");
    read_end = Fd(fds[0]);
    write_end = Fd(fds[1]);
  }
};

class ReactorTest : public ::testing::Test {
 protected:
  /// Runs until `limit` passed; for "nothing more happens".
  void run_for(Nanoseconds limit) {
    reactor_.after(limit, [this] { reactor_.stop(); });
    reactor_.run();
  }
  /// Runs until somebody stops; fails the test when nobody does.
  void run() {
    const auto guard = reactor_.after(20 * kSecond, [this] {
      ADD_FAILURE() << "nothing happened";
      reactor_.stop();
    });
    reactor_.run();
    reactor_.cancel(guard);
  }
  UringReactor reactor_;
};

TEST_F(ReactorTest, WatchIsLevelTriggered) {
  const Fd fd = event(1);  // never read: stays readable
  int calls = 0;
  reactor_.watch(fd.get(), [&] {
    if (++calls == 5) reactor_.stop();
  });
  run();
  EXPECT_EQ(calls, 5);
}

TEST_F(ReactorTest, QuietDescriptorIsNotReported) {
  const Fd fd = event();
  int calls = 0;
  reactor_.watch(fd.get(), [&] { ++calls; });
  run_for(20 * kMillisecond);
  EXPECT_EQ(calls, 0);
  ::eventfd_write(fd.get(), 1);
  run_for(20 * kMillisecond);
  EXPECT_GE(calls, 1);
}

TEST_F(ReactorTest, HangUpIsReported) {
  Pipe pipe;
  bool reported = false;
  reactor_.watch(pipe.read_end.get(), [&] {
    reported = true;
    reactor_.stop();
  });
  pipe.write_end.reset();
  run();
  EXPECT_TRUE(reported);
}

TEST_F(ReactorTest, WritableWatch) {
  Pipe pipe;
  std::array<char, 4096> block{};
  while (::write(pipe.write_end.get(), block.data(), block.size()) > 0) {
  }
  int calls = 0;
  reactor_.watch_writable(pipe.write_end.get(), [&] {
    ++calls;
    reactor_.stop();
  });
  run_for(10 * kMillisecond);
  EXPECT_EQ(calls, 0);
  while (::read(pipe.read_end.get(), block.data(), block.size()) > 0) {
  }
  run();
  EXPECT_EQ(calls, 1);
}

TEST_F(ReactorTest, TimersExpireInOrderAndOnce) {
  std::vector<int> order;
  const Nanoseconds start = monotonic_now();
  reactor_.after(30 * kMillisecond, [&] { order.push_back(3); });
  reactor_.after(10 * kMillisecond, [&] { order.push_back(1); });
  reactor_.after(20 * kMillisecond, [&] { order.push_back(2); });
  run_for(60 * kMillisecond);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(monotonic_now() - start, 60 * kMillisecond);
}

TEST_F(ReactorTest, TimerMayStartTimers) {
  int left = 100;
  std::function<void()> again = [&] {
    if (--left == 0) {
      reactor_.stop();
    } else {
      reactor_.after(0, again);
    }
  };
  reactor_.after(0, again);
  run();
  EXPECT_EQ(left, 0);
}

TEST_F(ReactorTest, CancelledTimerAndWatchStaySilent) {
  const Fd fd = event(1);
  const auto fail = [] { ADD_FAILURE() << "was cancelled"; };
  const auto timer = reactor_.after(kMillisecond, fail);
  const auto watch = reactor_.watch(fd.get(), fail);
  reactor_.cancel(timer);
  reactor_.cancel(watch);
  reactor_.cancel(watch);      // twice is fine
  reactor_.cancel(1'000'000);  // so is a handle that never was
  run_for(10 * kMillisecond);
}

TEST_F(ReactorTest, CallbackMayCancelItself) {
  const Fd fd = event(1);
  int calls = 0;
  auto keeps_alive = std::make_shared<int>(7);
  Reactor::Handle handle = 0;
  handle = reactor_.watch(fd.get(), [&, keeps_alive] {
    reactor_.cancel(handle);
    calls += *keeps_alive;  // captures outlive the cancel
  });
  run_for(10 * kMillisecond);
  EXPECT_EQ(calls, 7);
  EXPECT_EQ(keeps_alive.use_count(), 1);
}

TEST_F(ReactorTest, CallbackMayCancelOthersThatAreReady) {
  const Fd a = event(1);
  const Fd b = event(1);
  int calls = 0;
  std::array<Reactor::Handle, 2> handles{};
  for (std::size_t i = 0; i < 2; ++i) {
    handles[i] = reactor_.watch((i == 0 ? a : b).get(), [&, i] {
      ++calls;
      reactor_.cancel(handles[1 - i]);
      reactor_.cancel(handles[i]);
    });
  }
  run_for(10 * kMillisecond);
  EXPECT_EQ(calls, 1);
}

TEST_F(ReactorTest, CallbackMayWatchMore) {
  const Fd fd = event(1);
  Reactor::Handle first = 0;
  first = reactor_.watch(fd.get(), [&] {
    reactor_.cancel(first);
    reactor_.watch(fd.get(), [&] { reactor_.stop(); });
  });
  run();
}

TEST_F(ReactorTest, CancelLetsGoOfTheFileAtOnce) {
  Pipe pipe;
  const auto watch = reactor_.watch(pipe.read_end.get(), [] {});
  run_for(kMillisecond);  // the kernel holds the poll request now
  reactor_.cancel(watch);
  pipe.read_end.reset();
  const char byte = 0;
  ::signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(::write(pipe.write_end.get(), &byte, 1), -1);  // no reader is left anywhere
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(ReactorTest, ClosedDescriptorIsRefused) {
  EXPECT_THROW(reactor_.watch(-1, [] {}), Error);
  int number = -1;
  {
    const Fd fd = event();
    number = fd.get();
  }
  EXPECT_THROW(reactor_.watch(number, [] {}), Error);
}

TEST_F(ReactorTest, DescriptorClosedUnderAWatchDoesNotSpin) {
  const Fd keep = event(1);
  Fd fd(::dup(keep.get()));
  int calls = 0;
  reactor_.watch(fd.get(), [&] {
    ++calls;
    fd.reset();  // forbidden, and survivable
  });
  run_for(20 * kMillisecond);
  EXPECT_EQ(calls, 1);
}

TEST_F(ReactorTest, ExceptionLeavesTheLoopInOrder) {
  const Fd fd = event(1);
  int calls = 0;
  reactor_.watch(fd.get(), [&] {
    if (++calls == 1) throw Error(0, "fail", "once");
    reactor_.stop();
  });
  EXPECT_THROW(run(), Error);
  run();  // the watch is still there
  EXPECT_EQ(calls, 2);
}

TEST_F(ReactorTest, ManyDescriptors) {
  constexpr std::size_t kMany = 2000;  // several times the submission queue
  std::vector<Fd> fds;
  std::vector<Reactor::Handle> handles(kMany);
  std::vector<int> calls(kMany);
  std::size_t seen = 0;
  for (std::size_t i = 0; i < kMany; ++i) {
    fds.push_back(event());
    ASSERT_TRUE(fds.back().valid());
    handles[i] = reactor_.watch(fds[i].get(), [&, i] {
      eventfd_t value = 0;
      ::eventfd_read(fds[i].get(), &value);
      if (++calls[i] == 1 && ++seen == kMany) reactor_.stop();
    });
  }
  reactor_.after(0, [&] {
    for (const Fd& fd : fds) ::eventfd_write(fd.get(), 1);
  });
  run();
  EXPECT_EQ(seen, kMany);
  for (const auto handle : handles) reactor_.cancel(handle);
  for (const Fd& fd : fds) ::eventfd_write(fd.get(), 1);
  run_for(10 * kMillisecond);
  for (const int count : calls) EXPECT_EQ(count, 1);
}

TEST_F(ReactorTest, HandlesAreNeverReused) {
  const auto a = reactor_.after(0, [] {});
  reactor_.cancel(a);
  const auto b = reactor_.after(0, [] {});
  EXPECT_NE(a, 0U);
  EXPECT_NE(a, b);
}

TEST_F(ReactorTest, SignalsArriveAsCallbacks) {
  int signals = 0;
  const SignalWatch watch(reactor_, {{SIGHUP,
                                      [&] {
                                        ++signals;
                                        reactor_.stop();
                                      }},
                                     {SIGUSR1, [] { ADD_FAILURE() << "another signal"; }}});
  ::raise(SIGHUP);
  run();
  EXPECT_EQ(signals, 1);
}

TEST_F(ReactorTest, WatchdogIsFedAndStateTold) {
  const Fd manager_end(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = ::testing::TempDir() + "notify-" + std::to_string(::getpid());
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(manager_end.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  ::setenv("WATCHDOG_USEC", "20000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  std::string told;
  int fed = 0;
  const auto read_all = [&] {
    std::array<char, 256> text{};
    for (ssize_t got = 0; (got = ::recv(manager_end.get(), text.data(), text.size(), 0)) > 0;) {
      const std::string message(text.data(), static_cast<std::size_t>(got));
      if (message == "WATCHDOG=1") {
        ++fed;
      } else {
        told += message.substr(0, message.find('\n')) + " ";
      }
    }
  };
  const auto reading = reactor_.watch(manager_end.get(), read_all);
  {
    const ServiceManager manager(reactor_);
    manager.ready();
    run_for(100 * kMillisecond);
    manager.stopping();
  }
  read_all();
  reactor_.cancel(reading);
  ::unlink(path.c_str());
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  EXPECT_EQ(told, "READY=1 STOPPING=1 ");
  EXPECT_GE(fed, 3);
}

}  // namespace
}  // namespace vswitch
