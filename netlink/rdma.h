#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

struct nlmsghdr;

namespace vswitch {

/// One port of an RDMA device and the netdev of the same wire.
struct RdmaPort {
  std::string device;      ///< as in /sys/class/infiniband, for example "mlx5_0"
  std::uint32_t port = 0;  ///< from 1
  std::string netdev;      ///< empty: none in this network namespace
  bool operator==(const RdmaPort&) const = default;
};

/// All ports of all RDMA devices. Asks the kernel's rdma netlink (nldev), and where it has none reads
/// $SYSFS_PATH/class/infiniband, by default below /sys, as libibverbs does. Control thread only. Throws Error.
[[nodiscard]] std::vector<RdmaPort> rdma_ports();

namespace nldev {

/// What one message of RDMA_NLDEV_CMD_PORT_GET says (<rdma/rdma_netlink.h>); nullopt where it is incomplete.
[[nodiscard]] std::optional<RdmaPort> parse_port(nlmsghdr* message);

}  // namespace nldev
}  // namespace vswitch
