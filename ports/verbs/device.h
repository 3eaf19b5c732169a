#pragma once
#include <cstdint>
#include <string>

#include "netlink/rdma.h"
#include "ports/verbs/handle.h"

namespace vswitch::verbs {

/// What a device offers raw packet queue pairs, found by asking and by trying, never by vendor.
struct Capabilities {
  bool checksum = false;  ///< computes and checks IPv4, TCP and UDP checksums (over IPv4: that is all verbs promise)
  std::uint32_t max_tso = 0;          ///< payload bytes of a frame to be segmented; 0: none
  bool vlan_strip = false;            ///< takes an 802.1Q tag out of received frames and tells it beside
  std::uint32_t max_completions = 0;  ///< entries of a completion queue
};

/// An open RDMA device and one of its ports. Control thread only.
class Device {
 public:
  /// Opens the device. Throws Error with what to do about it.
  explicit Device(const RdmaPort& port);

  [[nodiscard]] ibv_context* context() const noexcept { return context_.get(); }
  [[nodiscard]] ibv_pd* domain() const noexcept { return domain_.get(); }
  [[nodiscard]] std::uint8_t port() const noexcept { return static_cast<std::uint8_t>(port_.port); }
  [[nodiscard]] const Capabilities& capabilities() const noexcept { return capabilities_; }
  /// "mlx5_0 port 1"
  [[nodiscard]] std::string name() const;
  /// The port's state says ACTIVE.
  [[nodiscard]] bool link_up() const;

  /// Registers memory for the device. Throws Error, with a hint about RLIMIT_MEMLOCK.
  [[nodiscard]] Verbs<ibv_mr> register_memory(void* bytes, std::size_t size, bool device_writes) const;

 private:
  void ask_capabilities();

  RdmaPort port_;
  Verbs<ibv_context> context_;
  Verbs<ibv_pd> domain_;
  Capabilities capabilities_;
};

/// The RDMA port of a netdev's wire. Throws Error with a hint where there is none.
[[nodiscard]] RdmaPort port_of_netdev(const std::string& netdev);

/// Tries all that the uplink needs on `netdev`: device, memory, queue pair, rules. Takes everything back.
/// @return why the verbs uplink cannot be used, with the remedy; empty: it can
[[nodiscard]] std::string why_not(const std::string& netdev);

}  // namespace vswitch::verbs
