#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "ports/loop/loop_port.h"
#include "tests/ports/harness.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/table.h"
#include "vswitch/core/worker.h"

namespace vswitch::test {

/// A started port and who is at its other end.
struct PluggedPort {
  std::unique_ptr<Harness> far;
  std::unique_ptr<Port> port;
  bool is_uplink = false;
};

/// A switch with one worker, stepped by the test, that joins two of its started ports at a time. The far end of one
/// sends from kFrom to kTo, the other one has kTo; tenant ports are in mode bridge.
class PairSwitch {
 public:
  PairSwitch();
  ~PairSwitch();
  PairSwitch(const PairSwitch&) = delete;
  PairSwitch& operator=(const PairSwitch&) = delete;

  /// Starts a port; it stays started, joined or not.
  PluggedPort& plug(std::unique_ptr<Harness> far, bool is_uplink);
  /// From now on frames go from `from` to `to`: different ports, at most one of them an uplink.
  /// @param gro whether segments may be merged on their way
  void join(PluggedPort& from, PluggedPort& to, bool gro);
  /// Sends `frames` at one far end, then lets the worker look. @return what arrives at the other one: `expected`
  /// frames, or what came within seconds, or more if more is there at once. Throws Error when the far end cannot send
  std::vector<TestFrame> forward(std::span<const TestFrame> frames, std::size_t expected);
  /// What still arrives within `quiet_ms`.
  std::vector<TestFrame> leftovers(int quiet_ms);

 private:
  void step() noexcept;

  TestReactor reactor_;
  Quiescence quiescence_{1};
  PortContext context_;
  LoopPort unused_wire_;  ///< what two tenant ports have beside them
  std::vector<std::unique_ptr<PluggedPort>> ports_;
  PluggedPort* from_ = nullptr;
  PluggedPort* to_ = nullptr;
  std::unique_ptr<const Table> table_;
  Published<const Table> published_;
  Worker worker_{0, -1, Idle::poll, quiescence_, published_};
};

}  // namespace vswitch::test
