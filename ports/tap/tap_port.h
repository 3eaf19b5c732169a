#pragma once
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "netlink/rtnetlink.h"
#include "ports/tap/tap_queue.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

class Netns;

/// A tenant's port that is a kernel netdev (TAP) in the tenant's network namespace, with one queue per worker.
///
/// start() makes the netdev with the port's MAC, MTU, addresses and routes; it is gone again after stop(), or when the
/// process ends in whatever way. The tenant is root in its namespace: it may take the netdev down (frames for it count
/// as dest_detached until it is up again), delete it, or delete the namespace; then the port stays down until it is
/// stopped and started.
class TapPort final : public Port {
 public:
  /// @param spec attach must be a TapAttachSpec, mtu filled in
  TapPort(const PortSpec& spec, PortContext& context);
  ~TapPort() override;

  void start() override;
  void stop() noexcept override;
  void permit(OffloadCaps offloads) override;
  [[nodiscard]] Queue& queue(std::size_t w) override { return *queues_[w]; }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return counters_[w]; }
  [[nodiscard]] PortStatus status() const override;

 private:
  void create();
  void configure();
  void watch();
  void on_link_change();
  void on_namespace_check();

  const PortSpec spec_;
  const TapAttachSpec& attach_;
  PortContext& context_;
  std::unique_ptr<PortCounters[]> counters_;
  OffloadCaps requested_;

  // From start() to stop():
  std::vector<std::unique_ptr<TapQueue>> queues_;
  std::optional<Rtnetlink> rtnetlink_;  ///< in the tenant's namespace, as is monitor_
  std::optional<LinkMonitor> monitor_;
  Reactor::Handle monitor_watch_ = 0;
  Reactor::Handle namespace_timer_ = 0;
  std::string namespace_name_;
  ino_t namespace_inode_ = 0;
  OffloadCaps offloads_;  ///< those requested that the kernel has
  Link link_;             ///< as last seen
  std::string gone_;      ///< why there is no netdev any more; empty: there is one
};

}  // namespace vswitch
