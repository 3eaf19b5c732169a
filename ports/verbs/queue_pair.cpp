#include "ports/verbs/queue_pair.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>

#include "ports/verbs/flow.h"
#include "vswitch/base/error.h"

namespace vswitch::verbs {
namespace {

void modify(const Device& device, ibv_qp* qp, ibv_qp_state state, int more = 0) {
  ibv_qp_attr attributes{};
  attributes.qp_state = state;
  attributes.port_num = device.port();
  if (const int error = ibv_modify_qp(qp, &attributes, IBV_QP_STATE | more); error != 0) {
    throw Error(error, "change the state of a queue pair on", device.name());
  }
}

}  // namespace

Verbs<ibv_qp> create_queue_pair(const Device& device, const QueuePairRequest& request) {
  ibv_qp_init_attr_ex attributes{};
  attributes.qp_type = IBV_QPT_RAW_PACKET;
  attributes.pd = device.domain();
  attributes.comp_mask = IBV_QP_INIT_ATTR_PD;
  attributes.send_cq = request.send_cq;
  attributes.recv_cq = request.receive_cq;
  attributes.cap.max_send_wr = request.send_requests;
  attributes.cap.max_send_sge = request.send_requests != 0 ? kSendPieces : 0;
  attributes.cap.max_recv_wr = request.receive_requests;
  attributes.cap.max_recv_sge = request.receive_requests != 0 ? 1 : 0;
  if (request.tso_header_bytes != 0) {
    attributes.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
    attributes.max_tso_header = static_cast<std::uint16_t>(request.tso_header_bytes);
  }
  if (request.vlan_strip) {
    attributes.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
    attributes.create_flags = IBV_QP_CREATE_CVLAN_STRIPPING;
  }
  Verbs<ibv_qp> qp(ibv_create_qp_ex(device.context(), &attributes));
  if (!qp) {
    const char* hint = "";
    if (errno == EPERM)
      hint = "raw packets need the capability CAP_NET_RAW: run vswitchd as root or by its systemd unit";
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) {
      hint = "the device has no raw packet queue pairs; use \"driver\": \"af_packet\"";
    }
    if (errno == ENOMEM) hint = "the device or the limit of locked memory (LimitMEMLOCK=) has no room for more";
    throw_errno("create a raw packet queue pair on", device.name(), hint);
  }
  return qp;
}

void bring_up(const Device& device, ibv_qp* qp) {
  modify(device, qp, IBV_QPS_INIT, IBV_QP_PORT);
  modify(device, qp, IBV_QPS_RTR);
  modify(device, qp, IBV_QPS_RTS);
}

void try_raw_packet(const Device& device) {
  constexpr int kEntries = 16;
  const Verbs<ibv_cq> cq(ibv_create_cq(device.context(), kEntries, nullptr, nullptr, 0));
  if (!cq) throw_errno("create a completion queue on", device.name());
  QueuePairRequest request;
  request.send_cq = request.receive_cq = cq.get();
  request.send_requests = request.receive_requests = kEntries / 2;
  const Verbs<ibv_qp> qp = create_queue_pair(device, request);
  bring_up(device, qp.get());
  std::array<std::byte, 64> memory{};
  const Verbs<ibv_mr> region = device.register_memory(memory.data(), memory.size(), true);
  // An address that nobody may have: group bit clear, "locally administered" set, rest the kind of rule.
  FlowRule rule;
  rule.mac.bytes = {0x02, 0x76, 0x73, 0x77, 0x00, 0x01};
  const Verbs<ibv_flow> unicast = create_flow(device, qp.get(), rule, true);
  rule.kind = FlowRule::Kind::source;
  rule.source = rule.mac;
  const Verbs<ibv_flow> shared = create_flow(device, qp.get(), rule, true);
}

}  // namespace vswitch::verbs
