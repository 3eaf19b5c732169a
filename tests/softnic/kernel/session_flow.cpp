#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <cerrno>
#include <cstring>

#include "tests/softnic/kernel/session.h"

namespace softnic {
namespace {

template <std::size_t N, typename From>
void put(std::array<std::uint8_t, N>& to, const From& from) {
  static_assert(sizeof from <= N);
  std::memcpy(to.data(), &from, sizeof from);
}

template <typename Spec>
bool load(std::span<const std::uint8_t> bytes, Spec& spec) {
  if (bytes.size() != sizeof spec) return false;
  std::memcpy(static_cast<void*>(&spec), bytes.data(), sizeof spec);
  return true;
}

// mlx5 matches no TTL, no IPv4 flags and no hop limit (mlx5_ib refuses masks behind the last field it knows).
bool beyond_mlx5(const Rule& rule) { return rule.mask.ttl != 0 || rule.mask.ip_flags != 0; }

bool add_ethernet(std::span<const std::uint8_t> bytes, Rule& rule) {
  ib_uverbs_flow_spec_eth spec{};
  if (!load(bytes, spec)) return false;
  const auto fill = [](FlowKey& key, const ib_uverbs_flow_eth_filter& filter) {
    put(key.dst_mac, filter.dst_mac);
    put(key.src_mac, filter.src_mac);
    put(key.ether_type, filter.ether_type);
    put(key.vlan_tag, filter.vlan_tag);
  };
  fill(rule.value, spec.val);
  fill(rule.mask, spec.mask);
  // Asking for any bit of the tag asks for a tag.
  if (spec.mask.vlan_tag != 0) {
    rule.value.kinds |= FlowKey::kTagged;
    rule.mask.kinds |= FlowKey::kTagged;
  }
  return true;
}

bool add_ipv4(std::span<const std::uint8_t> bytes, Rule& rule) {
  ib_uverbs_flow_spec_ipv4 spec{};
  if (!load(bytes, spec)) return false;
  const auto fill = [](FlowKey& key, const ib_uverbs_flow_ipv4_filter& filter) {
    put(key.src_ip, filter.src_ip);
    put(key.dst_ip, filter.dst_ip);
    key.protocol = filter.proto;
    key.tos = filter.tos;
    key.ttl = filter.ttl;
    key.ip_flags = filter.flags;
  };
  fill(rule.value, spec.val);
  fill(rule.mask, spec.mask);
  rule.value.kinds |= FlowKey::kIpv4;
  rule.mask.kinds |= FlowKey::kIpv4;
  return true;
}

bool add_ipv6(std::span<const std::uint8_t> bytes, Rule& rule) {
  ib_uverbs_flow_spec_ipv6 spec{};
  if (!load(bytes, spec)) return false;
  const auto fill = [](FlowKey& key, const ib_uverbs_flow_ipv6_filter& filter) {
    put(key.src_ip, filter.src_ip);
    put(key.dst_ip, filter.dst_ip);
    put(key.flow_label, filter.flow_label);
    key.protocol = filter.next_hdr;
    key.tos = filter.traffic_class;
    key.ttl = filter.hop_limit;
  };
  fill(rule.value, spec.val);
  fill(rule.mask, spec.mask);
  rule.value.kinds |= FlowKey::kIpv6;
  rule.mask.kinds |= FlowKey::kIpv6;
  return true;
}

bool add_ports(std::span<const std::uint8_t> bytes, std::uint8_t kind, Rule& rule) {
  ib_uverbs_flow_spec_tcp_udp spec{};
  if (!load(bytes, spec)) return false;
  put(rule.value.dst_port, spec.val.dst_port);
  put(rule.value.src_port, spec.val.src_port);
  put(rule.mask.dst_port, spec.mask.dst_port);
  put(rule.mask.src_port, spec.mask.src_port);
  rule.value.kinds |= kind;
  rule.mask.kinds |= kind;
  return true;
}

// One specification. @return 0, EINVAL for a wrong size, EOPNOTSUPP for what the model does not do.
int add_spec(std::uint32_t type, std::span<const std::uint8_t> bytes, Rule& rule) {
  switch (type) {
    case IBV_FLOW_SPEC_ETH:
      return add_ethernet(bytes, rule) ? 0 : EINVAL;
    case IBV_FLOW_SPEC_IPV4:
    case IBV_FLOW_SPEC_IPV4_EXT:
      return add_ipv4(bytes, rule) ? 0 : EINVAL;
    case IBV_FLOW_SPEC_IPV6:
      return add_ipv6(bytes, rule) ? 0 : EINVAL;
    case IBV_FLOW_SPEC_TCP:
      return add_ports(bytes, FlowKey::kTcp, rule) ? 0 : EINVAL;
    case IBV_FLOW_SPEC_UDP:
      return add_ports(bytes, FlowKey::kUdp, rule) ? 0 : EINVAL;
    case IBV_FLOW_SPEC_ACTION_TAG: {
      ib_uverbs_flow_spec_action_tag spec{};
      if (!load(bytes, spec) || spec.tag_id > 0xffffff) return EINVAL;
      rule.tagged = true;
      rule.tag = spec.tag_id;
      return 0;
    }
    case IBV_FLOW_SPEC_ACTION_DROP:
      rule.drop = true;
      return 0;
    default:
      return EOPNOTSUPP;
  }
}

int read_specs(std::span<const std::uint8_t> bytes, std::uint8_t count, Rule& rule) {
  constexpr std::uint8_t kMostSpecs = 10;
  if (count > kMostSpecs) return EINVAL;
  for (std::uint8_t i = 0; i < count; ++i) {
    ib_uverbs_flow_spec_hdr header{};
    if (bytes.size() < sizeof header) return EINVAL;
    std::memcpy(static_cast<void*>(&header), bytes.data(), sizeof header);
    if (header.size < sizeof header || header.size > bytes.size()) return EINVAL;
    if (const int error = add_spec(header.type, bytes.first(header.size), rule); error != 0) return error;
    bytes = bytes.subspan(header.size);
  }
  return beyond_mlx5(rule) ? EOPNOTSUPP : 0;
}

}  // namespace

int Session::create_flow(Command& command) {
  struct Core {
    std::uint32_t comp_mask;
    std::uint32_t qp_handle;
  } core{};
  ib_uverbs_flow_attr attr;  // ends with an array of no size, which not every compiler initializes
  if (!command.read(core) || core.comp_mask != 0) return EINVAL;
  const auto rest = command.behind(sizeof core);
  if (rest.size() < sizeof attr) return EINVAL;
  std::memcpy(static_cast<void*>(&attr), rest.data(), sizeof attr);
  const auto qp = nic_.qps.find(core.qp_handle);
  if ((board_.features & Feature::kFlow) == 0) return EOPNOTSUPP;
  if (qp == nic_.qps.end() || attr.port == 0 || attr.port > board_.ports || attr.type > IBV_FLOW_ATTR_SNIFFER)
    return EINVAL;
  if ((attr.flags & ~std::uint32_t{IBV_FLOW_ATTR_FLAGS_DONT_TRAP}) != 0) return EOPNOTSUPP;
  Rule rule;
  rule.kind = static_cast<RuleKind>(attr.type);
  rule.port = attr.port;
  rule.priority = attr.priority;
  rule.dont_trap = (attr.flags & IBV_FLOW_ATTR_FLAGS_DONT_TRAP) != 0;
  rule.queue.queue = core.qp_handle;
  if (rule.dont_trap && rule.kind != RuleKind::normal) return EINVAL;
  if (const int error = read_specs(rest.subspan(sizeof attr), attr.num_of_specs, rule); error != 0) return error;
  const auto [error, id] = fabric_.add_rule(rule);
  if (error != 0) return error;
  const std::uint32_t handle = next_handle_++;
  flows_[handle] = id;
  flow_queue_[handle] = core.qp_handle;
  command.respond(ib_uverbs_create_flow_resp{0, handle});
  return 0;
}

int Session::destroy_flow(Command& command) {
  ib_uverbs_destroy_flow core{};
  if (!command.read(core)) return EINVAL;
  const auto found = flows_.find(core.flow_handle);
  if (found == flows_.end()) return EINVAL;
  const int error = fabric_.remove_rule(found->second);
  flow_queue_.erase(found->first);
  flows_.erase(found);
  return error;
}

}  // namespace softnic
