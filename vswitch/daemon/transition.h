#pragma once
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "vswitch/daemon/reconcile.h"

namespace vswitch {

/// The table of `state`. Throws Error when two ports exclude each other.
[[nodiscard]] std::unique_ptr<const Table> build_table(const SwitchState& state, std::size_t workers);

/// What `uplink` must let in for the ports of `state`.
[[nodiscard]] Steering steering_of(const std::string& uplink, const SwitchState& state);

/// One way from what runs to what is wanted.
///
/// Theory of operation: `next_` starts as a copy of the running state and is brought to what is wanted: new uplinks and
/// ports are opened first, beside the running ones; then the table is built, uplinks are told what to let in, workers
/// take the table, and only then are removed ports closed. Each step notes how to undo it; a failure undoes the steps
/// done, last first. A port whose device or socket is wanted by its successor cannot run beside it: it is withdrawn
/// (taken out of the table, closed) before the successor opens, and opened again if the change fails.
class Transition {
 public:
  Transition(Switch& target, const SwitchSpec& wanted);
  Transition(const Transition&) = delete;
  Transition& operator=(const Transition&) = delete;

  /// Throws Error, with everything undone; its text also names what could not be brought back.
  ApplyReport run();

 private:
  class Undo {
   public:
    void push(std::function<void()> step) { steps_.push_back(std::move(step)); }
    /// Last first.
    void run_all() noexcept;
    void forget() noexcept { steps_.clear(); }

   private:
    std::vector<std::function<void()>> steps_;
  };

  void perform();
  void open_uplinks();
  /// The spec as it will run: the MTU filled in.
  [[nodiscard]] PortSpec resolve(const PortSpec& spec) const;
  void plan_ports();
  void open_ports();
  void open(const PortSpec& spec);
  void withdraw(const std::set<std::string>& names);
  void restore(const std::string& name) noexcept;
  void steer();
  void permit();
  void admit();
  void commit() noexcept;

  Switch& switch_;
  const SwitchSpec& wanted_;
  SwitchState before_;
  SwitchState next_;
  std::set<std::string> new_uplinks_;            ///< added or replaced
  std::vector<PortSpec> ports_to_open_;          ///< resolved
  std::set<std::string> leaving_;                ///< running ports that end: removed or replaced
  std::set<std::string> withdrawn_;              ///< those of them already closed
  std::vector<std::pair<PortId, Port*>> fresh_;  ///< opened, not yet known to the workers
  std::string lost_;                             ///< what undoing failed to bring back
  ApplyReport report_;
  Undo undo_;
};

}  // namespace vswitch
