#include "ports/verbs/device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ports/verbs/flow.h"
#include "ports/verbs/queue_pair.h"
#include "ports/verbs/queue_set.h"
#include "vswitch/base/error.h"

namespace vswitch::verbs {
namespace {

constexpr std::uint32_t kRawPacket = 1U << IBV_QPT_RAW_PACKET;
constexpr std::uint32_t kLongestTso = 65'536;

struct DeviceList {
  DeviceList() : devices(ibv_get_device_list(&count)) {}
  ~DeviceList() {
    if (devices != nullptr) ibv_free_device_list(devices);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;
  int count = 0;
  ibv_device** devices;
};

Verbs<ibv_context> open_device(const std::string& name) {
  const DeviceList list;
  for (int i = 0; i < list.count; ++i) {
    if (name != ibv_get_device_name(list.devices[i])) continue;
    Verbs<ibv_context> context(ibv_open_device(list.devices[i]));
    if (!context) {
      throw_errno("open RDMA device", name,
                  errno == EACCES || errno == EPERM
                      ? "vswitchd may not open /dev/infiniband/uverbs*: run it as root, or "
                        "let its user into the group that owns them"
                      : "");
    }
    return context;
  }
  throw Error(ENODEV, "use RDMA device", name,
              "libibverbs does not know it: install ibverbs-providers, load the kernel module ib_uverbs");
}

}  // namespace

Device::Device(const RdmaPort& port)
    : port_(port), context_(open_device(port.device)), domain_(ibv_alloc_pd(context_.get())) {
  if (!domain_) throw_errno("allocate a protection domain on", port_.device);
  ask_capabilities();
}

void Device::ask_capabilities() {
  ibv_device_attr_ex attributes{};
  if (const int error = ibv_query_device_ex(context_.get(), nullptr, &attributes); error != 0)
    throw Error(error, "ask for the capabilities of", port_.device);
  capabilities_.max_completions = static_cast<std::uint32_t>(std::max(attributes.orig_attr.max_cqe, 0));
  capabilities_.checksum = (attributes.raw_packet_caps & IBV_RAW_PACKET_CAP_IP_CSUM) != 0 ||
                           (attributes.orig_attr.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM) != 0;
  capabilities_.vlan_strip = (attributes.raw_packet_caps & IBV_RAW_PACKET_CAP_CVLAN_STRIPPING) != 0;
  const bool tso = (attributes.tso_caps.supported_qpts & kRawPacket) != 0 && attributes.tso_caps.max_tso >= kLongestTso;
  // A NIC that segments also sums what it makes; without that the segments would leave with wrong checksums.
  if (tso && capabilities_.checksum) capabilities_.max_tso = attributes.tso_caps.max_tso;
}

std::string Device::name() const { return port_.device + " port " + std::to_string(port_.port); }

bool Device::link_up() const {
  ibv_port_attr attributes{};
  return ibv_query_port(context_.get(), port(), &attributes) == 0 && attributes.state == IBV_PORT_ACTIVE;
}

Verbs<ibv_mr> Device::register_memory(void* bytes, std::size_t size, bool device_writes) const {
  // Not ibv_reg_mr's macro: its other branch needs a newer library for nothing that is used here.
  Verbs<ibv_mr> region((ibv_reg_mr)(domain_.get(), bytes, size, device_writes ? IBV_ACCESS_LOCAL_WRITE : 0));
  if (!region) {
    throw_errno("register " + std::to_string(size >> 10) + " KiB of memory with", port_.device,
                errno == ENOMEM || errno == EPERM
                    ? "the limit of locked memory is too low: LimitMEMLOCK=infinity in the systemd unit, `ulimit -l "
                      "unlimited`, or CAP_IPC_LOCK"
                    : "");
  }
  return region;
}

RdmaPort port_of_netdev(const std::string& netdev) {
  const std::vector<RdmaPort> all = rdma_ports();
  const auto found = std::find_if(all.begin(), all.end(), [&](const RdmaPort& p) { return p.netdev == netdev; });
  if (found != all.end()) return *found;
  throw Error(ENODEV, "find the RDMA device of netdev", netdev,
              all.empty() ? "this host has no RDMA device (`rdma link` lists them)"
                          : "no RDMA port belongs to it (`rdma link` lists them with their netdevs)");
}

std::string why_not(const std::string& netdev) {
  try {
    const Device device(port_of_netdev(netdev));
    try_raw_packet(device);
    static_cast<void>(QueueSet::most_pairs(device));
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace vswitch::verbs
