#include "tests/softnic/daemon/sysfs.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace softnic {
namespace {

void put(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::trunc);
  file << text << '\n';
  if (!file.flush()) throw std::system_error(errno, std::generic_category(), path.string());
}

}  // namespace

void write_sysfs(const SysfsDevice& device) {
  const std::filesystem::path root = std::filesystem::absolute(device.directory) / "sysfs/class";
  const std::filesystem::path verbs = root / "infiniband_verbs" / ("uverbs" + std::to_string(device.uverbs));
  put(root / "infiniband_verbs/abi_version", "6");
  put(verbs / "ibdev", device.name);
  put(verbs / "dev", "1:3");  // of /dev/null, which stands in for the device node
  put(verbs / "abi_version", "1");
  put(verbs / "softnic", std::filesystem::absolute(device.directory).string());
  const std::filesystem::path ib = root / "infiniband" / device.name;
  const std::string modalias = "pci:v000015B3d00001017sv000015B3sd00000006bc02sc00i00";
  put(verbs / "device/modalias", modalias);
  put(ib / "device/modalias", modalias);
  put(ib / "node_type", "1: CA");
  put(ib / "node_guid", "0002:c903:000a:0b0c");
  put(ib / "sys_image_guid", "0002:c903:000a:0b0c");
  put(ib / "node_desc", "softnic");
  put(ib / "fw_ver", "16.0.1");
  put(ib / "board_id", "SOFTNIC");
  for (std::size_t i = 0; i < device.netdevs.size(); ++i) {
    const std::filesystem::path port = ib / "ports" / std::to_string(i + 1);
    put(port / "gids/0", "fe80:0000:0000:0000:0002:c9ff:fe0a:0b0c");
    put(port / "gid_attrs/types/0", "IB/RoCE v1");
    put(port / "gid_attrs/ndevs/0", device.netdevs[i]);
    put(port / "pkeys/0", "0xffff");
    put(port / "state", "4: ACTIVE");
    put(port / "link_layer", "Ethernet");
    if (!device.netdevs[i].empty()) put(ib / "device/net" / device.netdevs[i] / "dev_port", std::to_string(i));
  }
}

}  // namespace softnic
