#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "netlink/memberships.h"
#include "netlink/netdev.h"
#include "ports/af_packet/af_packet_queue.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// The uplink on any Ethernet netdev, by packet sockets; the kernel keeps the netdev and all its traffic.
///
/// Theory of operation. Each worker has a packet socket that receives copies of frames from the wire, chosen by a
/// filter (filter.h), and sends. With several workers the sockets form a fanout group: a flow stays with one worker.
/// One more socket holds the tenants' addresses in the netdev's receive filter (netlink/memberships.h). All of that
/// lives in descriptors: it ends with the process, however that ends. A netlink socket tells when the netdev changes.
class AfPacketUplink final : public Uplink {
 public:
  /// @param context outlives the uplink; its network namespace is the calling thread's at start()
  /// @param refused why a faster driver was not taken, for status()
  AfPacketUplink(const UplinkSpec& spec, PortContext& context, std::string refused = {});
  ~AfPacketUplink() override { stop(); }

  void start() override;
  void stop() noexcept override;
  [[nodiscard]] Queue& queue(std::size_t w) override { return *running_->queues[w]; }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return counters_[w]; }
  [[nodiscard]] PortStatus status() const override;
  void steer(const Steering& wanted) override;
  [[nodiscard]] Mac host_mac() const override;

 private:
  /// What start() opens; its members' destructors are all that stop() needs.
  struct Running {
    explicit Running(const std::string& netdev_name) : netdev(netdev_name), memberships(netdev.index()) {}
    Netdev netdev;
    Memberships memberships;
    std::vector<std::unique_ptr<af_packet::AfPacketQueue>> queues;
    Steering steering;
    Mac filtered_host;  ///< the host's address that the filters know
    Fd monitor;
    std::optional<NetdevState> last;  ///< what changed() was last called for
  };

  void open_queues(Running& running);
  void apply_filter(const Steering& wanted, const Mac& host);
  void on_link_change();
  [[nodiscard]] const Running& running() const;

  const UplinkSpec spec_;
  PortContext& context_;
  const std::string refused_;
  std::vector<PortCounters> counters_;
  std::unique_ptr<Running> running_;
  Reactor::Handle watch_ = 0;
};

}  // namespace vswitch
