#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace softnic {

/// What libibverbs reads to find a device: a tree in the shape of /sys, below `directory`/sysfs (SYSFS_PATH), with
/// class/infiniband_verbs and class/infiniband. Each uverbs folder has one file more, "softnic", that names the
/// device's directory for the library that stands in for the kernel.
struct SysfsDevice {
  std::string directory;             ///< of the device: board, socket, sysfs
  std::string name;                  ///< RDMA device, for example mlx5_0
  unsigned uverbs = 0;               ///< N of /dev/infiniband/uverbsN
  bool mlx5 = true;                  ///< let the mlx5 provider of libibverbs take it
  std::vector<std::string> netdevs;  ///< of each port; empty: none
};

/// @throws std::filesystem::filesystem_error, std::system_error.
void write_sysfs(const SysfsDevice& device);

}  // namespace softnic
