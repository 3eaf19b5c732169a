#include "netlink/rdma.h"

#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <tuple>

#include "netlink/handle.h"
#include "vswitch/base/error.h"

namespace vswitch {
namespace {

namespace fs = std::filesystem;

using Attributes = std::array<nlattr*, RDMA_NLDEV_ATTR_MAX>;

bool read_attributes(nlmsghdr* message, Attributes& attributes) {
  attributes = {};
  return nlmsg_parse(message, 0, attributes.data(), RDMA_NLDEV_ATTR_MAX - 1, nullptr) == 0;
}

std::uint32_t number(const nlattr* attribute) {
  return attribute != nullptr && nla_len(attribute) == sizeof(std::uint32_t) ? nla_get_u32(attribute) : 0;
}

std::string text(const nlattr* attribute) {
  if (attribute == nullptr) return {};
  const char* bytes = static_cast<const char*>(nla_data(attribute));
  const auto length = static_cast<std::size_t>(nla_len(attribute));
  return {bytes, strnlen(bytes, length)};
}

/// A socket of NETLINK_RDMA; empty where the kernel has none.
Nl<nl_sock> open_nldev() {
  Nl<nl_sock> socket(nl_socket_alloc());
  if (!socket || nl_connect(socket.get(), NETLINK_RDMA) != 0) return nullptr;
  return socket;
}

/// Sends a dump request and hands each answer to `each`.
void dump(nl_sock* socket, int command, std::optional<std::uint32_t> device,
          const std::function<void(nlmsghdr*)>& each) {
  const int type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command);
  Nl<nl_msg> request(nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_DUMP));
  if (!request) throw Error(ENOMEM, "ask for", "RDMA devices");
  if (device) nla_put_u32(request.get(), RDMA_NLDEV_ATTR_DEV_INDEX, *device);
  const auto forward = [](nl_msg* message, void* argument) -> int {
    (*static_cast<const std::function<void(nlmsghdr*)>*>(argument))(nlmsg_hdr(message));
    return NL_OK;
  };
  nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, forward, const_cast<void*>(static_cast<const void*>(&each)));
  int status = nl_send_auto(socket, request.get());
  if (status >= 0) status = nl_recvmsgs_default(socket);
  if (status < 0) throw Error(0, "ask the kernel for", "RDMA devices", nl_geterror(status));
}

std::vector<RdmaPort> ports_by_netlink(nl_sock* socket) {
  std::vector<std::uint32_t> devices;
  dump(socket, RDMA_NLDEV_CMD_GET, std::nullopt, [&devices](nlmsghdr* message) {
    Attributes attributes;
    if (!read_attributes(message, attributes) || attributes[RDMA_NLDEV_ATTR_DEV_INDEX] == nullptr) return;
    devices.push_back(number(attributes[RDMA_NLDEV_ATTR_DEV_INDEX]));
  });
  std::vector<RdmaPort> ports;
  for (const std::uint32_t device : devices) {
    dump(socket, RDMA_NLDEV_CMD_PORT_GET, device, [&ports](nlmsghdr* message) {
      if (auto port = nldev::parse_port(message)) ports.push_back(std::move(*port));
    });
  }
  return ports;
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// The netdev of any of the port's GIDs: each names one, and those that are not set cannot be read.
std::string netdev_of(const fs::path& port) {
  std::error_code none;
  for (const fs::directory_entry& gid : fs::directory_iterator(port / "gid_attrs/ndevs", none)) {
    if (std::string name = first_line(gid.path()); !name.empty()) return name;
  }
  return {};
}

std::vector<RdmaPort> ports_by_sysfs() {
  const char* given = std::getenv("SYSFS_PATH");
  const fs::path root = fs::path(given != nullptr ? given : "/sys") / "class/infiniband";
  std::vector<RdmaPort> ports;
  std::error_code none;
  for (const fs::directory_entry& device : fs::directory_iterator(root, none)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(device.path() / "ports", none)) {
      RdmaPort port{device.path().filename(), 0, netdev_of(entry.path())};
      const std::string name = entry.path().filename();
      std::from_chars(name.data(), name.data() + name.size(), port.port);
      if (port.port != 0) ports.push_back(std::move(port));
    }
  }
  std::sort(ports.begin(), ports.end(), [](const RdmaPort& a, const RdmaPort& b) {
    return std::tie(a.device, a.port) < std::tie(b.device, b.port);
  });
  return ports;
}

}  // namespace

std::optional<RdmaPort> nldev::parse_port(nlmsghdr* message) {
  Attributes attributes;
  if (!read_attributes(message, attributes)) return std::nullopt;
  RdmaPort port{text(attributes[RDMA_NLDEV_ATTR_DEV_NAME]), number(attributes[RDMA_NLDEV_ATTR_PORT_INDEX]),
                text(attributes[RDMA_NLDEV_ATTR_NDEV_NAME])};
  if (port.device.empty() || port.port == 0) return std::nullopt;
  return port;
}

std::vector<RdmaPort> rdma_ports() {
  const Nl<nl_sock> socket = open_nldev();
  return socket ? ports_by_netlink(socket.get()) : ports_by_sysfs();
}

}  // namespace vswitch
