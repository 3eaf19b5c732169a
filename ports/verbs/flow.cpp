#include "ports/verbs/flow.h"

#include <arpa/inet.h>

#include <cerrno>
#include <cstring>

#include "vswitch/base/error.h"

namespace vswitch::verbs {
namespace {

constexpr std::uint16_t kVlanIdBits = 0x0fff;
constexpr std::uint8_t kGroupBit = 1;

struct FlowRequest {
  ibv_flow_attr attr;
  ibv_flow_spec_eth ethernet;
};
static_assert(sizeof(FlowRequest) == sizeof(ibv_flow_attr) + sizeof(ibv_flow_spec_eth), "read as one block");

void match(std::uint8_t (&value)[6], std::uint8_t (&mask)[6], const Mac& mac) {
  std::memcpy(value, mac.bytes.data(), sizeof(value));
  std::memset(mask, 0xff, sizeof(mask));
}

}  // namespace

std::string FlowRule::to_string() const {
  switch (kind) {
    case Kind::source_to_tenant:
      return "from " + source.to_string() + " to " + mac.to_string();
    case Kind::tenant_vlan:
      return "to " + mac.to_string() + " in VLAN " + std::to_string(vlan);
    case Kind::tenant:
      return "to " + mac.to_string();
    case Kind::source:
      return "from " + source.to_string();
    case Kind::multicast:
      return "to group addresses";
    case Kind::everything:
      return "of all frames";
  }
  return "?";
}

Verbs<ibv_flow> create_flow(const Device& device, ibv_qp* qp, const FlowRule& rule, bool shared) {
  FlowRequest request{};
  request.attr.type = IBV_FLOW_ATTR_NORMAL;
  request.attr.size = sizeof(request);
  request.attr.priority = static_cast<std::uint16_t>(2 * static_cast<unsigned>(rule.kind) + (shared ? 1 : 0));
  request.attr.num_of_specs = 1;
  request.attr.port = device.port();
  request.attr.flags = rule.traps() ? 0 : IBV_FLOW_ATTR_FLAGS_DONT_TRAP;
  request.ethernet.type = IBV_FLOW_SPEC_ETH;
  request.ethernet.size = sizeof(request.ethernet);
  ibv_flow_eth_filter& value = request.ethernet.val;
  ibv_flow_eth_filter& mask = request.ethernet.mask;
  if (rule.traps()) match(value.dst_mac, mask.dst_mac, rule.mac);
  if (rule.kind == FlowRule::Kind::source || rule.kind == FlowRule::Kind::source_to_tenant) {
    match(value.src_mac, mask.src_mac, rule.source);
  }
  if (rule.kind == FlowRule::Kind::source) mask.dst_mac[0] = kGroupBit;  // and the bit is 0: group frames come anyway
  if (rule.kind == FlowRule::Kind::multicast) value.dst_mac[0] = mask.dst_mac[0] = kGroupBit;
  if (rule.kind == FlowRule::Kind::tenant_vlan) {
    value.vlan_tag = htons(rule.vlan);
    mask.vlan_tag = htons(kVlanIdBits);
  }
  Verbs<ibv_flow> flow(ibv_create_flow(qp, &request.attr));
  if (!flow) {
    const bool refused = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
    throw_errno("add a flow rule " + rule.to_string() + " on", device.name(),
                refused ? "the device does not steer frames like that; use \"driver\": \"af_packet\""
                        : (errno == ENOMEM || errno == ENOSPC ? "the device has room for no more rules" : ""));
  }
  return flow;
}

}  // namespace vswitch::verbs
