/// Flow rules and multicast groups.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "tests/softnic/dropin/context.h"

namespace softnic::dropin {
namespace {

constexpr std::uint32_t kMostTag = 0xffffff;
constexpr std::uint8_t kMostSpecs = 10;

template <std::size_t N, typename From>
void put(std::array<std::uint8_t, N>& to, const From& from) {
  static_assert(sizeof from <= N);
  std::memcpy(to.data(), &from, sizeof from);
}

void fill(FlowKey& key, const ibv_flow_eth_filter& filter) {
  put(key.dst_mac, filter.dst_mac);
  put(key.src_mac, filter.src_mac);
  put(key.ether_type, filter.ether_type);
  put(key.vlan_tag, filter.vlan_tag);
}

void fill(FlowKey& key, const ibv_flow_ipv4_filter& filter) {
  put(key.src_ip, filter.src_ip);
  put(key.dst_ip, filter.dst_ip);
}

void fill(FlowKey& key, const ibv_flow_ipv4_ext_filter& filter) {
  put(key.src_ip, filter.src_ip);
  put(key.dst_ip, filter.dst_ip);
  key.protocol = filter.proto;
  key.tos = filter.tos;
  key.ttl = filter.ttl;
  key.ip_flags = filter.flags;
}

void fill(FlowKey& key, const ibv_flow_ipv6_filter& filter) {
  put(key.src_ip, filter.src_ip);
  put(key.dst_ip, filter.dst_ip);
  put(key.flow_label, filter.flow_label);
  key.protocol = filter.next_hdr;
  key.tos = filter.traffic_class;
  key.ttl = filter.hop_limit;
}

void fill(FlowKey& key, const ibv_flow_tcp_udp_filter& filter) {
  put(key.dst_port, filter.dst_port);
  put(key.src_port, filter.src_port);
}

/// A specification with value and mask, that asks for the headers of `kinds`. @return 0, or EINVAL for a wrong size.
template <typename Spec>
int add_filter(const std::uint8_t* at, std::size_t bytes, std::uint8_t kinds, Rule& rule) {
  Spec spec{};
  if (bytes != sizeof spec) return EINVAL;
  std::memcpy(static_cast<void*>(&spec), at, sizeof spec);
  fill(rule.value, spec.val);
  fill(rule.mask, spec.mask);
  rule.value.kinds |= kinds;
  rule.mask.kinds |= kinds;
  return 0;
}

int add_tag(const std::uint8_t* at, std::size_t bytes, Rule& rule) {
  ibv_flow_spec_action_tag spec{};
  if (bytes != sizeof spec) return EINVAL;
  std::memcpy(static_cast<void*>(&spec), at, sizeof spec);
  if (spec.tag_id > kMostTag) return EINVAL;
  rule.tagged = true;
  rule.tag = spec.tag_id;
  return 0;
}

// @return EOPNOTSUPP for what the model does not do.
int add_spec(ibv_flow_spec_type type, const std::uint8_t* at, std::size_t bytes, Rule& rule) {
  switch (type) {
    case IBV_FLOW_SPEC_ETH: {
      const int error = add_filter<ibv_flow_spec_eth>(at, bytes, 0, rule);
      // Asking for any bit of the tag asks for a tag.
      if (load_be16(rule.mask.vlan_tag.data()) != 0) {
        rule.value.kinds |= FlowKey::kTagged;
        rule.mask.kinds |= FlowKey::kTagged;
      }
      return error;
    }
    case IBV_FLOW_SPEC_IPV4:
      return add_filter<ibv_flow_spec_ipv4>(at, bytes, FlowKey::kIpv4, rule);
    case IBV_FLOW_SPEC_IPV4_EXT:
      return add_filter<ibv_flow_spec_ipv4_ext>(at, bytes, FlowKey::kIpv4, rule);
    case IBV_FLOW_SPEC_IPV6:
      return add_filter<ibv_flow_spec_ipv6>(at, bytes, FlowKey::kIpv6, rule);
    case IBV_FLOW_SPEC_TCP:
      return add_filter<ibv_flow_spec_tcp_udp>(at, bytes, FlowKey::kTcp, rule);
    case IBV_FLOW_SPEC_UDP:
      return add_filter<ibv_flow_spec_tcp_udp>(at, bytes, FlowKey::kUdp, rule);
    case IBV_FLOW_SPEC_ACTION_TAG:
      return add_tag(at, bytes, rule);
    case IBV_FLOW_SPEC_ACTION_DROP:
      rule.drop = true;
      return 0;
    default:
      return EOPNOTSUPP;
  }
}

// What follows the attributes. Their own size is not looked at: clients leave it 0 where there is nothing to say.
int read_specs(const ibv_flow_attr& attr, Rule& rule) {
  if (attr.num_of_specs > kMostSpecs) return EINVAL;
  const auto* at = reinterpret_cast<const std::uint8_t*>(&attr + 1);
  for (std::uint8_t i = 0; i < attr.num_of_specs; ++i) {
    ibv_flow_spec_action_drop header{};  // type and size, as all begin
    std::memcpy(static_cast<void*>(&header), at, sizeof header);
    if (header.size < sizeof header.type + sizeof header.size) return EINVAL;
    if (const int error = add_spec(header.type, at, header.size, rule)) return error;
    at += header.size;
  }
  return 0;
}

ibv_flow* create_flow(ibv_qp* handle, ibv_flow_attr* attr) {
  Context& context = context_of(handle->context);
  Qp& qp = qp_of(handle);
  if (const int error = context.injected(IB_USER_VERBS_CMD_FLAG_EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_FLOW)) {
    return refuse(error);
  }
  if (!context.offers(Feature::kFlow)) return refuse(EOPNOTSUPP);
  if ((attr->flags & ~std::uint32_t{IBV_FLOW_ATTR_FLAGS_DONT_TRAP}) != 0) return refuse(EOPNOTSUPP);
  Rule rule;
  rule.dont_trap = (attr->flags & IBV_FLOW_ATTR_FLAGS_DONT_TRAP) != 0;
  if (attr->port == 0 || attr->port > context.board->ports || attr->type > IBV_FLOW_ATTR_SNIFFER ||
      (rule.dont_trap && attr->type != IBV_FLOW_ATTR_NORMAL)) {
    return refuse(EINVAL);
  }
  rule.kind = static_cast<RuleKind>(attr->type);
  rule.port = attr->port;
  rule.priority = attr->priority;
  rule.queue.queue = handle->qp_num;
  if (const int error = read_specs(*attr, rule)) return refuse(error);
  auto flow = std::make_unique<Flow>();
  const auto [error, id] = context.fabric.add_rule(rule);
  if (error != 0) return refuse(error);
  const auto held = context.engine.lock();
  flow->context = handle->context;
  flow->handle = context.next_handle++;
  flow->rule = id;
  flow->queue = &qp;
  ++qp.flows;
  return flow.release();
}

int destroy_flow(ibv_flow* handle) {
  const std::unique_ptr<Flow> gone(static_cast<Flow*>(handle));
  Context& context = context_of(handle->context);
  const int error = context.fabric.remove_rule(gone->rule);
  const auto held = context.engine.lock();
  --gone->queue->flows;
  return error;
}

}  // namespace

void set_flow_calls(Context& context) {
  context.ibv_create_flow = create_flow;
  context.ibv_destroy_flow = destroy_flow;
  // Where programs of the first days of flow steering look for the same calls.
  context.ABI_placeholder1 = reinterpret_cast<void (*)()>(create_flow);
  context.ABI_placeholder2 = reinterpret_cast<void (*)()>(destroy_flow);
}

}  // namespace softnic::dropin

using namespace softnic;
using namespace softnic::dropin;

// A group of Ethernet multicast: its address is the end of the GID.
int ibv_attach_mcast(ibv_qp* handle, const ibv_gid* gid, std::uint16_t) {
  constexpr std::size_t kMacAt = 10;
  Context& context = context_of(handle->context);
  Qp& qp = qp_of(handle);
  if ((gid->raw[kMacAt] & 1) == 0) return EINVAL;
  Rule rule;
  rule.port = qp.port == 0 ? std::uint8_t{1} : qp.port;
  rule.queue.queue = handle->qp_num;
  std::copy_n(&gid->raw[kMacAt], rule.value.dst_mac.size(), rule.value.dst_mac.begin());
  rule.mask.dst_mac.fill(0xff);
  const auto [error, id] = context.fabric.add_rule(rule);
  if (error != 0) return error;
  const auto held = context.engine.lock();
  qp.groups.emplace_back(*gid, id);
  return 0;
}

int ibv_detach_mcast(ibv_qp* handle, const ibv_gid* gid, std::uint16_t) {
  Context& context = context_of(handle->context);
  auto& groups = qp_of(handle).groups;
  const auto held = context.engine.lock();
  const auto found = std::find_if(groups.begin(), groups.end(), [gid](const auto& group) {
    return std::memcmp(group.first.raw, gid->raw, sizeof gid->raw) == 0;
  });
  if (found == groups.end()) return EINVAL;
  const int error = context.fabric.remove_rule(found->second);
  groups.erase(found);
  return error;
}
