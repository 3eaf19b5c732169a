#pragma once
#include <memory>
#include <vector>

#include "tests/ports/harness.h"
#include "vswitch/base/quiescence.h"

namespace vswitch::test {

/// Everything one started port needs, and a worker's part played by the test.
class Rig {
 public:
  explicit Rig(std::unique_ptr<Harness> harness, std::size_t workers = 1);
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  void start();
  void stop();

  [[nodiscard]] Queue& queue(std::size_t w = 0) { return port_->queue(w); }
  [[nodiscard]] Harness& far() { return *harness_; }
  [[nodiscard]] Port& port() { return *port_; }
  [[nodiscard]] TestReactor& reactor() { return reactor_; }
  /// Times the port said that its status changed.
  [[nodiscard]] int changes() const { return changes_; }

  /// Receives on worker w's queue until `frames` came or nothing more does for `quiet_ms`; each burst is checked
  /// against the contract, copied out and given back.
  std::vector<TestFrame> receive(std::size_t frames, std::size_t w = 0, int quiet_ms = 300);
  /// Transmits all of `frames`, in bursts, polling on while the port is full. @return how many it took
  std::size_t transmit(const std::vector<TestFrame>& frames, std::size_t w = 0);
  /// Reads at the far end until `frames` came or nothing more does for `quiet_ms`.
  std::vector<TestFrame> read(std::size_t frames, int quiet_ms = 300);

  /// What a lent frame is: its private header copy and what lies behind it.
  static TestFrame copy_of(const Frame& frame);

 private:
  std::unique_ptr<Harness> harness_;
  TestReactor reactor_;
  Quiescence quiescence_;
  int changes_ = 0;
  PortContext context_;
  std::unique_ptr<Port> port_;
  Burst burst_;
};

/// A Frame whose bytes and header copy live here.
class OwnedFrame {
 public:
  explicit OwnedFrame(const TestFrame& from);
  OwnedFrame(OwnedFrame&&) noexcept = default;
  [[nodiscard]] const Frame& frame() const { return frame_; }

 private:
  std::vector<std::byte> bytes_;
  std::vector<std::byte> header_;
  Frame frame_;
};

/// An epoll set with one queue's descriptor, edge-triggered, as a worker has it.
class Waiter {
 public:
  explicit Waiter(const Queue& queue);
  /// @return whether the descriptor became readable within `timeout_ms`
  bool wait(int timeout_ms);

 private:
  Fd epoll_;
};

}  // namespace vswitch::test
