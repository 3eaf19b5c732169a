#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "netlink/memberships.h"
#include "netlink/netdev.h"
#include "ports/verbs/device.h"
#include "ports/verbs/direct_memory.h"
#include "ports/verbs/flow.h"
#include "ports/verbs/queue_set.h"
#include "ports/verbs/verbs_queue.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/arena.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// The uplink on an RDMA NIC, by raw packet queue pairs of libibverbs; the kernel keeps the netdev and every frame that
/// no rule of ours takes. Vendor-neutral: what the device can is asked and tried.
///
/// Theory of operation. Each worker has a QueueSet. A tenant's (VLAN, MAC) has a queue pair of its own on one worker,
/// as long as there are enough; then tenants share one and the switch's table tells them apart. What several tenants
/// get (multicast, frames by their source) goes to the first worker's shared pair, by rules that let the kernel have
/// its copy. Rules and pairs are descriptors' children: they end with the process, however that ends.
///
/// Trouble. A pair that broke is replaced while the others go on. When the device is gone or a queue of completions
/// broke, everything on the device is closed, and opened again every kRetry until that works.
class VerbsUplink final : public Uplink, private ArenaUser {
 public:
  /// @param context outlives the uplink; its network namespace is the calling thread's at start()
  VerbsUplink(const UplinkSpec& spec, PortContext& context);
  ~VerbsUplink() override { stop(); }

  void start() override;
  void stop() noexcept override;
  [[nodiscard]] Queue& queue(std::size_t w) override { return *running_->queues[w]; }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return counters_[w]; }
  [[nodiscard]] PortStatus status() const override;
  void steer(const Steering& wanted) override;
  [[nodiscard]] Mac host_mac() const override;

 private:
  static constexpr Nanoseconds kRetry = 500 * kMillisecond;
  static constexpr Nanoseconds kLookAgain = 500 * kMillisecond;  ///< what a lost interrupt costs at most

  struct Place {
    std::size_t worker = 0;
    verbs::ReceivePair* pair = nullptr;
  };
  /// What is open on the device; goes and comes back with it.
  struct Opened {
    Opened(const RdmaPort& port, std::uint32_t stride, Quiescence& quiescence)
        : device(port), direct(device, stride, quiescence) {}
    verbs::Device device;
    verbs::DirectMemory direct;
    std::vector<std::unique_ptr<verbs::QueueSet>> sets;  ///< one a worker
    std::map<verbs::FlowRule, Place> rules;
    bool link_up = false;  ///< as the queues know it
    Reactor::Handle async_watch = 0;
  };
  /// What start() opens.
  struct Running {
    explicit Running(const std::string& netdev_name) : netdev(netdev_name), memberships(netdev.index()) {}
    Netdev netdev;
    Memberships memberships;
    Fd monitor;  ///< netlink: the netdev changed
    Fd trouble;  ///< eventfd: a pair broke
    std::vector<std::unique_ptr<verbs::VerbsQueue>> queues;
    std::unique_ptr<Opened> opened;  ///< empty: the device is lost
    Steering steering;
    std::uint32_t mtu = 0;
    std::optional<NetdevState> last;
    std::string lost;  ///< why `opened` is empty
    Reactor::Handle monitor_watch = 0, trouble_watch = 0, retry_timer = 0, look_timer = 0;
    std::uint64_t pairs_replaced = 0, reopened = 0;
  };

  // direct.cpp
  [[nodiscard]] const std::string& uplink() const noexcept override { return spec_.name; }
  [[nodiscard]] std::uint32_t receive_bytes() const noexcept override;
  void arena_came(const Arena& arena) noexcept override;
  void arena_goes(const Arena& arena) noexcept override;
  [[nodiscard]] std::string how(const Arena& arena) const override;
  void offer_slots() noexcept;
  void free_slots(const verbs::ReceivePair* pair);

  void open_device();
  void close_device() noexcept;
  void lose_device(const std::string& why);
  void retry();
  void look_again();
  void apply(const Steering& wanted);
  [[nodiscard]] std::set<verbs::FlowRule> rules_for(const Steering& wanted) const;
  [[nodiscard]] Place place(const verbs::FlowRule& rule);
  void add_rule(const verbs::FlowRule& rule);
  void remove_rule(const verbs::FlowRule& rule) noexcept;
  void promote() noexcept;
  void on_async_event();
  void on_trouble();
  void on_netdev_change();
  void update_link();
  void report(const std::string& what) const;
  [[nodiscard]] Running& running() const;

  const UplinkSpec spec_;
  PortContext& context_;
  std::vector<PortCounters> counters_;
  std::unique_ptr<Running> running_;
};

}  // namespace vswitch
