#pragma once
#include <sched.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tests/bench/tenant.h"
#include "tests/ports/test_reactor.h"
#include "tests/softnic/softnic.h"
#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/table.h"
#include "vswitch/core/worker.h"

namespace vswitch::bench {

/// Looks until `done` says so, without sleeping: caches and branch predictor stay as work leaves them. Throws Error.
template <class Done>
void spin_until(const Done& done, const char* what, const std::string& subject) {
  constexpr Nanoseconds kPatience = 10 * kSecond;
  constexpr int kLooksPerYield = 64;  // valgrind lets the NIC run only then
  const Nanoseconds deadline = monotonic_now() + kPatience;
  for (int looks = 1; !done(); ++looks) {
    if (looks % kLooksPerYield != 0) continue;
    if (monotonic_now() > deadline) throw Error(ETIMEDOUT, what, subject);
    ::sched_yield();
  }
}

/// A switch in this process whose only worker is a loop of the caller: a verbs uplink, one ring port, and its tenant.
///
///     MemoryWire -- software NIC == VerbsUplink -- Worker::step() -- RingPort -- tenant
///
/// The NIC's thread is the one thing that runs by itself.
class UplinkRig {
 public:
  static constexpr std::uint32_t kMtu = 1504;                     ///< frames of 1518 bytes without FCS
  static constexpr std::uint32_t kWirePort = 0, kTenantPort = 1;  ///< for mac_of()

  /// The calling thread must be in a network namespace of its own; the NIC's thread runs where it may run now.
  /// @param folder for the NIC's files and the port's socket. Throws Error.
  UplinkRig(const std::string& folder, bool direct);
  ~UplinkRig();
  UplinkRig(const UplinkRig&) = delete;
  UplinkRig& operator=(const UplinkRig&) = delete;

  [[nodiscard]] Worker& worker() noexcept { return worker_; }
  [[nodiscard]] vswitch_port* tenant() const noexcept { return tenant_.get(); }
  [[nodiscard]] softnic_memory_wire* wire() const noexcept { return wire_.get(); }
  [[nodiscard]] std::uint64_t nic_counter(const char* name) const noexcept {
    return softnic_memory_wire_counter(wire_.get(), name);
  }
  /// Returns when the NIC has written the completions of all that it has counted. Throws Error.
  void wait_for_completions() const;
  /// Throws Error if the NIC or the switch dropped frames, or the NIC's rules were broken.
  void check() const;
  /// How the switch describes the two ports.
  [[nodiscard]] std::string describe() const;

 private:
  struct CloseWire {
    void operator()(softnic_memory_wire* wire) const noexcept { softnic_close_memory_wire(wire); }
  };
  void attach(const std::string& socket);

  std::unique_ptr<softnic_memory_wire, CloseWire> wire_;
  test::TestReactor reactor_;
  Quiescence quiescence_;
  PortContext context_;
  std::unique_ptr<Uplink> uplink_;
  std::unique_ptr<Port> ring_;
  std::unique_ptr<const Table> table_;
  Published<const Table> published_;
  Worker worker_;
  Tenant tenant_;
};

}  // namespace vswitch::bench
