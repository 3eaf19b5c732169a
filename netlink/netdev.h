#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "vswitch/base/fd.h"
#include "vswitch/net/mac.h"

namespace vswitch {

/// What the uplink must know of its netdev.
struct NetdevState {
  std::string name;  ///< now; a netdev may be renamed
  Mac mac;
  std::uint32_t mtu = 0;
  bool up = false;  ///< administratively up and with carrier
  bool operator==(const NetdevState&) const = default;
};

/// A kernel netdev, followed by its index through renames. Control thread only; answers for the network namespace in
/// which it was made.
class Netdev {
 public:
  /// Finds `name` and refuses what is no Ethernet netdev. Throws Error with a hint.
  explicit Netdev(const std::string& name);

  [[nodiscard]] int index() const noexcept { return index_; }
  /// nullopt: the netdev is gone.
  [[nodiscard]] std::optional<NetdevState> state() const;

 private:
  Fd socket_;  ///< for interface ioctls only
  int index_ = 0;
};

/// A descriptor that becomes readable whenever a netdev of this network namespace changes; what it says is not worth
/// reading, ask Netdev::state(). Throws Error.
[[nodiscard]] Fd open_netdev_monitor();

}  // namespace vswitch
