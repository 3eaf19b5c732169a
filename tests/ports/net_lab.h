#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tests/ports/harness.h"
#include "vswitch/base/fd.h"

// Network namespaces without names: they live as long as a descriptor or a thread in them, so that nothing needs to be
// cleaned up, however a test ends.

namespace vswitch::test {

/// Moves the calling thread into a new network namespace with its loopback device up. Throws Error.
void enter_new_namespace();

/// A network namespace of its own.
class Namespace {
 public:
  Namespace();
  /// Runs `body` on a thread inside; what it throws, this throws.
  void run(const std::function<void()>& body) const;
  /// Path that `ip link ... netns` takes.
  [[nodiscard]] std::string path() const;
  [[nodiscard]] const Fd& fd() const noexcept { return fd_; }

 private:
  Fd fd_;
};

/// Runs a shell command in the calling thread's namespace. Throws Error if it fails.
void shell(const std::string& command);
/// The same, and returns what it printed.
std::string output_of(const std::string& command);

/// Waits until a veth carries frames: for a moment after its peer comes up it still drops them. Throws Error.
void wait_for_link(const std::string& netdev);

/// A packet socket on a netdev, with virtio-net headers: the other end of a wire.
class RawSocket {
 public:
  /// @param netdev in the calling thread's namespace
  explicit RawSocket(const std::string& netdev);
  /// A tag in TestFrame::vlan goes inline. @return false if the kernel refuses
  bool send(const TestFrame& frame);
  /// Frames from kFrom; a tag of type 802.1Q is put into TestFrame::vlan.
  std::vector<TestFrame> read(int timeout_ms);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Fd fd_;
  std::vector<std::byte> buffer_;
};

}  // namespace vswitch::test
