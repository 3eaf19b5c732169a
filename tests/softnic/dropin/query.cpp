/// What the device says of itself.
#include <infiniband/verbs.h>
#include <net/if.h>
#include <rdma/ib_user_verbs.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/softnic/dropin/context.h"

#undef ibv_query_port

namespace softnic::dropin {
namespace {

constexpr std::uint32_t kEx = IB_USER_VERBS_CMD_FLAG_EXTENDED;
constexpr std::uint32_t kRawPacket = 1U << IBV_QPT_RAW_PACKET;
constexpr std::uint32_t kVendor = 0x5001c;  // nobody's
constexpr std::uint64_t kGuid = 0x025000fffe000001;
constexpr std::uint32_t kGidTypeIb = 0;  // of RoCE v1 as sysfs says it
constexpr std::uint16_t kDefaultPkey = 0xffff;

__be64 big_endian(std::uint64_t value) { return __builtin_bswap64(value); }

bool has_port(const Context& context, std::uint32_t port) { return port != 0 && port <= context.board->ports; }

ibv_device_attr plain_attributes(const Context& context) {
  ibv_device_attr out{};
  std::strcpy(out.fw_ver, "1.0");
  out.node_guid = out.sys_image_guid = big_endian(kGuid);
  out.max_mr_size = ~std::uint64_t{0};
  out.page_size_cap = 0xfffff000;
  out.vendor_id = kVendor;
  out.vendor_part_id = 1;
  out.max_qp = out.max_cq = 4096;
  out.max_qp_wr = kMaxRequests;
  out.device_cap_flags = IBV_DEVICE_PORT_ACTIVE_EVENT | IBV_DEVICE_SYS_IMAGE_GUID;
  if (context.offers(Feature::kChecksum)) out.device_cap_flags |= IBV_DEVICE_RAW_IP_CSUM;
  if (context.offers(Feature::kFlow)) out.device_cap_flags |= IBV_DEVICE_MANAGED_FLOW_STEERING;
  out.max_sge = kMaxPieces;
  out.max_cqe = static_cast<int>(context.board->max_cqe);
  out.max_mr = out.max_pd = 1 << 20;
  out.max_raw_ethy_qp = context.offers(Feature::kRawPacket) ? 4096 : 0;
  out.max_mcast_grp = out.max_mcast_qp_attach = out.max_total_mcast_qp_attach = 4096;
  out.max_pkeys = 1;
  out.phys_port_cnt = static_cast<std::uint8_t>(context.board->ports);
  return out;
}

ibv_device_attr_ex all_attributes(const Context& context) {
  ibv_device_attr_ex out{};
  out.orig_attr = plain_attributes(context);
  out.completion_timestamp_mask = ~std::uint64_t{0};
  out.hca_core_clock = 1'000'000;  // kHz: CLOCK_MONOTONIC
  out.device_cap_flags_ex = out.orig_attr.device_cap_flags;
  if (context.offers(Feature::kTso)) out.tso_caps = {kMaxTso, kRawPacket};
  if (context.offers(Feature::kRss)) {
    out.rss_caps.supported_qpts = kRawPacket;
    out.rss_caps.max_rwq_indirection_tables = 4096;
    out.rss_caps.max_rwq_indirection_table_size = kMaxTable;
    out.rss_caps.rx_hash_fields_mask = 0xff;
    out.rss_caps.rx_hash_function = IBV_RX_HASH_FUNC_TOEPLITZ;
    out.max_wq_type_rq = 4096;
  }
  if (context.offers(Feature::kPacing)) out.packet_pacing_caps = {1, kMaxKbps, kRawPacket};
  if (context.offers(Feature::kVlanStrip)) out.raw_packet_caps |= IBV_RAW_PACKET_CAP_CVLAN_STRIPPING;
  if (context.offers(Feature::kChecksum)) out.raw_packet_caps |= IBV_RAW_PACKET_CAP_IP_CSUM;
  out.phys_port_cnt_ex = context.board->ports;
  return out;
}

int query_device_ex(ibv_context* context, const ibv_query_device_ex_input* input, ibv_device_attr_ex* out,
                    std::size_t bytes) {
  Context& device = context_of(context);
  if (input != nullptr && input->comp_mask != 0) return EINVAL;
  if (const int error = device.injected(kEx | IB_USER_VERBS_EX_CMD_QUERY_DEVICE, IB_USER_VERBS_CMD_QUERY_DEVICE)) {
    return error;
  }
  const ibv_device_attr_ex all = all_attributes(device);
  std::memset(static_cast<void*>(out), 0, bytes);
  std::memcpy(static_cast<void*>(out), &all, std::min(bytes, sizeof all));
  return 0;
}

int query_port(ibv_context* context, std::uint8_t number, ibv_port_attr* out, std::size_t bytes) {
  Context& device = context_of(context);
  if (!has_port(device, number)) return EINVAL;
  if (const int error = device.injected(IB_USER_VERBS_CMD_QUERY_PORT)) return error;
  const std::size_t index = number - 1U;
  const bool up = device.board->carrier[index] != 0 && device.board->link_down[index] == 0;
  ibv_port_attr port{};
  port.state = up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  port.max_mtu = IBV_MTU_4096;
  port.active_mtu = device.board->mtu >= 4096 + 64 ? IBV_MTU_4096 : IBV_MTU_1024;
  port.gid_tbl_len = 1;
  port.port_cap_flags = IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
  port.max_msg_sz = 0x40000000;
  port.pkey_tbl_len = 1;
  port.max_vl_num = 1;
  port.active_width = 2;   // 4 lanes
  port.active_speed = 32;  // of 25 Gbit/s
  port.phys_state = up ? 5 : 3;
  port.link_layer = IBV_LINK_LAYER_ETHERNET;
  std::memset(static_cast<void*>(out), 0, bytes);
  std::memcpy(static_cast<void*>(out), &port, std::min(bytes, sizeof port));
  return 0;
}

int query_rt_values(ibv_context*, ibv_values_ex* values) {
  if ((values->comp_mask & ~std::uint32_t{IBV_VALUES_MASK_RAW_CLOCK}) != 0) return EINVAL;
  clock_gettime(CLOCK_MONOTONIC, &values->raw_clock);
  return 0;
}

std::uint32_t netdev_index(const ibv_context* context, std::uint32_t port) {
  std::ifstream file(std::filesystem::path(context->device->ibdev_path) / "ports" / std::to_string(port) /
                     "gid_attrs/ndevs/0");
  std::string netdev;
  std::getline(file, netdev);
  return netdev.empty() ? 0 : if_nametoindex(netdev.c_str());
}

ibv_gid gid() {
  ibv_gid out{};
  out.global.subnet_prefix = big_endian(0xfe80000000000000);
  out.global.interface_id = big_endian(kGuid ^ std::uint64_t{2} << 56);
  return out;
}

ibv_gid_entry gid_entry(ibv_context* context, std::uint32_t port) {
  ibv_gid_entry out{};
  out.gid = gid();
  out.port_num = port;
  out.gid_type = IBV_GID_TYPE_ROCE_V1;
  out.ndev_ifindex = netdev_index(context, port);
  return out;
}

}  // namespace

void set_query_calls(Context& context) {
  context.query_device_ex = query_device_ex;
  context.query_port = query_port;
  context.query_rt_values = query_rt_values;
}

}  // namespace softnic::dropin

using namespace softnic::dropin;

__be64 ibv_get_device_guid(ibv_device*) { return big_endian(kGuid); }

int ibv_query_device(ibv_context* context, ibv_device_attr* out) {
  Context& device = context_of(context);
  if (const int error = device.injected(IB_USER_VERBS_CMD_QUERY_DEVICE)) return error;
  *out = plain_attributes(device);
  return 0;
}

// For programs of the time when the struct ended ahead of port_cap_flags2.
int ibv_query_port(ibv_context* context, std::uint8_t number, _compat_ibv_port_attr* out) {
  ibv_port_attr port{};
  const int error = query_port(context, number, &port, sizeof port);
  if (error == 0) std::memcpy(static_cast<void*>(out), &port, offsetof(ibv_port_attr, port_cap_flags2));
  return error;
}

int ibv_query_gid(ibv_context* context, std::uint8_t port, int index, ibv_gid* out) {
  if (!has_port(context_of(context), port) || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *out = gid();
  return 0;
}

int _ibv_query_gid_ex(ibv_context* context, std::uint32_t port, std::uint32_t index, ibv_gid_entry* out,
                      std::uint32_t flags, std::size_t bytes) {
  if (flags != 0) return EOPNOTSUPP;
  if (!has_port(context_of(context), port)) return EINVAL;
  if (index != 0) return ENODATA;
  const ibv_gid_entry entry = gid_entry(context, port);
  std::memcpy(static_cast<void*>(out), &entry, std::min(bytes, sizeof entry));
  return 0;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* out, std::size_t most, std::uint32_t flags,
                             std::size_t bytes) {
  const Context& device = context_of(context);
  if (flags != 0) return -EOPNOTSUPP;
  if (bytes < sizeof(ibv_gid_entry) || device.board->ports > most) return -EINVAL;
  for (std::uint32_t port = 1; port <= device.board->ports; ++port) out[port - 1] = gid_entry(context, port);
  return device.board->ports;
}

extern "C" int ibv_query_gid_type(ibv_context* context, std::uint8_t port, unsigned index, std::uint32_t* type) {
  if (!has_port(context_of(context), port) || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *type = kGidTypeIb;
  return 0;
}

int ibv_query_pkey(ibv_context* context, std::uint8_t port, int index, __be16* out) {
  if (!has_port(context_of(context), port) || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *out = kDefaultPkey;
  return 0;
}

int ibv_get_pkey_index(ibv_context* context, std::uint8_t port, __be16 pkey) {
  return has_port(context_of(context), port) && pkey == kDefaultPkey ? 0 : -1;
}
