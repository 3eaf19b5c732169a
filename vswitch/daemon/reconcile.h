#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vswitch/base/quiescence.h"
#include "vswitch/core/datapath.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// Who makes ports: ports/registry.h in the daemon, in-memory ones in tests.
struct PortFactory {
  std::function<std::unique_ptr<Port>(const PortSpec&, PortContext&)> port;
  std::function<std::unique_ptr<Uplink>(const UplinkSpec&, PortContext&)> uplink;
};

/// One uplink in operation. The Uplink outlives its removal from the state until no worker uses it.
struct RunningUplink {
  UplinkSpec spec;
  PortId id = kNoPort;
  std::uint32_t mtu = 0;
  Steering steering;
  std::shared_ptr<Uplink> port;
};

/// One tenant port in operation.
struct RunningPort {
  PortSpec spec;  ///< with the MTU in effect filled in
  PortId id = kNoPort;
  std::shared_ptr<Port> port;
};

/// What runs, by name; a port by PortSpec::full_name().
struct SwitchState {
  std::map<std::string, RunningUplink> uplinks;
  std::map<std::string, RunningPort> ports;
};

/// What a successful apply() did, by name.
struct ApplyReport {
  std::vector<std::string> added;
  std::vector<std::string> removed;
  std::vector<std::string> reopened;  ///< closed and opened again: the tenant saw its link go
  std::vector<std::string> changed;   ///< changed while frames flow
  std::size_t untouched = 0;
};

/// Hands out PortIds: the lowest free one, so that tables stay short.
class PortIds {
 public:
  /// Throws Error when kMaxPorts are in use.
  [[nodiscard]] PortId take();
  void give_back(PortId id) noexcept { used_[id] = false; }

 private:
  std::vector<bool> used_;
};

/// All that runs: ports, uplinks, workers; and the way from one configuration to the next. Control thread only.
class Switch {
 public:
  /// Starts the workers, with no ports yet. Throws Error.
  Switch(const WorkersSpec& workers, Reactor& reactor, PortFactory factory);
  Switch(const Switch&) = delete;
  Switch& operator=(const Switch&) = delete;
  /// Ends the workers, then closes all ports: the system is left as found.
  ~Switch();

  /// Makes `wanted` what runs. Ports that do not change keep their Port, queues and PortId: none of their frames is
  /// lost or reordered. Throws Error when any step fails; then all steps are undone and what ran before runs on.
  ApplyReport apply(const SwitchSpec& wanted);

  [[nodiscard]] const SwitchState& state() const noexcept { return state_; }
  [[nodiscard]] const Datapath& datapath() const noexcept { return datapath_; }
  [[nodiscard]] const WorkersSpec& workers() const noexcept { return workers_; }

 private:
  friend class Transition;
  void schedule_refresh();
  void refresh();
  void log_link(const std::string& name, const PortStatus& status);

  PortFactory factory_;
  Reactor& reactor_;
  Quiescence quiescence_;
  PortContext context_;
  Datapath datapath_;
  WorkersSpec workers_;
  PortIds ids_;
  SwitchState state_;
  std::map<std::string, bool> links_;  ///< last logged
  Reactor::Handle refresh_ = 0;        ///< a pending refresh()
};

}  // namespace vswitch
