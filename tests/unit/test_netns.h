#pragma once
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>

#include "netlink/netns.h"
#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"

namespace vswitch::test {

/// Runs a command line of a shell; the test fails if it does.
inline void shell(const std::string& command) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;  // NOLINT(cert-env33-c): test code, own words only
}

/// A network namespace with a name of its own, loopback up, deleted with this.
class TestNetns {
 public:
  explicit TestNetns(const std::string& label) : name_("vswtest-" + std::to_string(::getpid()) + "-" + label) {
    create();
  }
  TestNetns(const TestNetns&) = delete;
  TestNetns& operator=(const TestNetns&) = delete;
  ~TestNetns() {
    if (exists_) remove();
  }

  void create() {
    shell("ip netns add " + name_ + " && ip -n " + name_ + " link set lo up");
    exists_ = true;
  }
  void remove() {
    shell("ip netns del " + name_);
    exists_ = false;
  }
  /// ip(8) inside the namespace.
  void ip(const std::string& arguments) const { shell("ip -n " + name_ + " " + arguments); }
  [[nodiscard]] std::string path() const { return "/run/netns/" + name_; }
  void run(const std::function<void()>& work) const { Netns::open(path()).run(work); }
  /// A file as a process inside sees it, e.g. "/proc/thread-self/net/dev".
  [[nodiscard]] std::string read(const std::string& file) const {
    std::string text;
    run([&] {
      std::ifstream in(file);
      text.assign(std::istreambuf_iterator<char>(in), {});
    });
    return text;
  }
  [[nodiscard]] bool has_netdev(const std::string& netdev) const {
    return read("/proc/thread-self/net/dev").find(" " + netdev + ":") != std::string::npos;
  }
  [[nodiscard]] Fd socket(int family, int type, int protocol = 0) const {
    Fd fd;
    run([&] { fd.reset(::socket(family, type | SOCK_CLOEXEC, protocol)); });
    if (!fd.valid()) throw_errno("open", "a test socket");
    return fd;
  }

 private:
  std::string name_;
  bool exists_ = false;
};

/// What an Error says; "" when `work` throws none.
inline std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace vswitch::test
