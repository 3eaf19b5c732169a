/// Queue pairs: creating, modifying, asking and destroying them.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "tests/softnic/core/rss.h"
#include "tests/softnic/dropin/context.h"
#include "tests/softnic/dropin/post.h"

namespace softnic::dropin {
namespace {

constexpr std::uint32_t kEx = IB_USER_VERBS_CMD_FLAG_EXTENDED;
constexpr std::uint32_t kKnown = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_MAX_TSO_HEADER |
                                 IBV_QP_INIT_ATTR_IND_TABLE | IBV_QP_INIT_ATTR_RX_HASH |
                                 IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
constexpr std::uint32_t kCreateFlags = IBV_QP_CREATE_CVLAN_STRIPPING | IBV_QP_CREATE_BLOCK_SELF_MCAST_LB;
constexpr std::uint64_t kSendOps = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_TSO;

/// The fields that `comp_mask` does not name are zero.
ibv_qp_init_attr_ex clean(const ibv_qp_init_attr_ex& given) {
  ibv_qp_init_attr_ex out = given;
  const auto has = [&given](std::uint32_t bit) { return (given.comp_mask & bit) != 0; };
  if (!has(IBV_QP_INIT_ATTR_CREATE_FLAGS)) out.create_flags = 0;
  if (!has(IBV_QP_INIT_ATTR_MAX_TSO_HEADER)) out.max_tso_header = 0;
  if (!has(IBV_QP_INIT_ATTR_IND_TABLE)) out.rwq_ind_tbl = nullptr;
  if (!has(IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)) out.send_ops_flags = 0;
  return out;
}

int check(const Context& context, const ibv_qp_init_attr_ex& attr) {
  const ibv_qp_cap& cap = attr.cap;
  if (attr.qp_type != IBV_QPT_RAW_PACKET || !context.offers(Feature::kRawPacket)) return EOPNOTSUPP;
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_PD) == 0 || attr.pd == nullptr || (attr.comp_mask & ~kKnown) != 0 ||
      attr.srq != nullptr || (attr.create_flags & ~kCreateFlags) != 0) {
    return EINVAL;
  }
  const bool tso = attr.max_tso_header != 0 || (attr.send_ops_flags & IBV_QP_EX_WITH_TSO) != 0;
  if ((attr.send_ops_flags & ~kSendOps) != 0 || (tso && !context.offers(Feature::kTso))) return EOPNOTSUPP;
  if ((attr.create_flags & IBV_QP_CREATE_CVLAN_STRIPPING) != 0 && !context.offers(Feature::kVlanStrip)) {
    return EOPNOTSUPP;
  }
  if (attr.rwq_ind_tbl != nullptr) return context.offers(Feature::kRss) ? 0 : EOPNOTSUPP;
  const bool fits = cap.max_send_wr <= kMaxRequests && cap.max_recv_wr <= kMaxRequests &&
                    cap.max_send_sge <= kMaxPieces && cap.max_recv_sge <= kMaxPieces &&
                    cap.max_inline_data <= kMaxInline && attr.max_tso_header <= kMaxTsoHeader;
  const bool queues =
      (cap.max_send_wr == 0 || attr.send_cq != nullptr) && (cap.max_recv_wr == 0 || attr.recv_cq != nullptr);
  return fits && queues ? 0 : EINVAL;
}

int make_rss(const ibv_qp_init_attr_ex& attr, Qp& qp) {
  const ibv_rx_hash_conf& hash = attr.rx_hash_conf;
  const std::uint64_t fields = hash.rx_hash_fields_mask;
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_RX_HASH) == 0) return EINVAL;
  if (hash.rx_hash_function != IBV_RX_HASH_FUNC_TOEPLITZ || (fields & ~HashField::kAll) != 0) return EOPNOTSUPP;
  // verbs.h: not IPv4 and IPv6 in one queue pair, nor TCP and UDP.
  constexpr std::uint64_t kIpv4 = HashField::kSrcIpv4 | HashField::kDstIpv4;
  constexpr std::uint64_t kIpv6 = HashField::kSrcIpv6 | HashField::kDstIpv6;
  constexpr std::uint64_t kTcp = HashField::kSrcPortTcp | HashField::kDstPortTcp;
  constexpr std::uint64_t kUdp = HashField::kSrcPortUdp | HashField::kDstPortUdp;
  Rss rss;
  if (((fields & kIpv4) != 0 && (fields & kIpv6) != 0) || ((fields & kTcp) != 0 && (fields & kUdp) != 0) ||
      hash.rx_hash_key_len != rss.key.size() || hash.rx_hash_key == nullptr) {
    return EINVAL;
  }
  rss.fields = fields;
  std::copy_n(hash.rx_hash_key, rss.key.size(), rss.key.begin());
  rss.table = static_cast<Table*>(attr.rwq_ind_tbl);
  qp.rss = rss;
  qp.now = qp.qp_base.state = IBV_QPS_RTR;  // it has no states of its own: its WQs have
  qp.port = 0;
  return 0;
}

void make_queues(Context& context, const ibv_qp_init_attr_ex& attr, Qp& qp) {
  const ibv_qp_cap& cap = attr.cap;
  const std::uint32_t number = qp.qp_base.qp_num;
  const bool checksums = context.offers(Feature::kChecksum);
  const MemoryTable& memory = context.engine.memory;
  if (cap.max_send_wr != 0) {
    const SendQueue::Identity identity{number, attr.pd->handle, kMaxTso, checksums, attr.sq_sig_all != 0};
    qp.send.emplace(QueueLimits{cap.max_send_wr, cap.max_send_sge, cap.max_inline_data, attr.max_tso_header}, identity,
                    cq_of(attr.send_cq).completions, memory, *context.board);
    ++cq_of(attr.send_cq).users;
  }
  if (cap.max_recv_wr != 0) {
    const bool strip = (attr.create_flags & IBV_QP_CREATE_CVLAN_STRIPPING) != 0;
    const ReceiveQueue::Identity identity{number, attr.pd->handle, strip, checksums};
    qp.receive.emplace(QueueLimits{cap.max_recv_wr, cap.max_recv_sge, 0, 0}, identity, cq_of(attr.recv_cq).completions,
                       memory, *context.board);
    ++cq_of(attr.recv_cq).users;
  }
}

ibv_qp* make_qp(ibv_context* handle, const ibv_qp_init_attr_ex& given) {
  Context& context = context_of(handle);
  const ibv_qp_init_attr_ex attr = clean(given);
  if (const int error = check(context, attr)) return refuse(error);
  auto qp = std::make_unique<Qp>();
  if (attr.rwq_ind_tbl != nullptr) {
    if (const int error = make_rss(attr, *qp)) return refuse(error);
  }
  ibv_qp& base = qp->qp_base;
  base.context = handle;
  base.qp_context = attr.qp_context;
  base.pd = attr.pd;
  base.send_cq = attr.send_cq;
  base.recv_cq = attr.recv_cq;
  base.qp_type = attr.qp_type;
  base.qp_num = base.handle = context.fabric.allocate_queue();
  if (base.qp_num == 0) return refuse(ENOMEM);
  pthread_mutex_init(&base.mutex, nullptr);
  pthread_cond_init(&base.cond, nullptr);
  qp->signal_all = attr.sq_sig_all != 0;
  qp->send_ops = attr.send_ops_flags;
  if (qp->send_ops != 0) set_work_request_calls(*qp);
  const auto held = context.engine.lock();
  if (qp->rss) {
    ++qp->rss->table->users;
  } else {
    make_queues(context, attr, *qp);
  }
  ++static_cast<Pd*>(attr.pd)->users;
  context.engine.qps[base.qp_num] = qp.get();
  return &qp.release()->qp_base;
}

ibv_qp* create_qp_ex(ibv_context* context, ibv_qp_init_attr_ex* attr) {
  if (const int error =
          context_of(context).injected(kEx | IB_USER_VERBS_EX_CMD_CREATE_QP, IB_USER_VERBS_CMD_CREATE_QP)) {
    return refuse(error);
  }
  return make_qp(context, *attr);
}

// Up by one step, or from anywhere to RESET or ERR: "Modify Queue Pair" of the InfiniBand specification.
bool allowed(ibv_qp_state from, ibv_qp_state to) {
  if (to == IBV_QPS_RESET || to == IBV_QPS_ERR || from == to) return true;
  return to <= IBV_QPS_RTS && to == from + 1;
}

int change_rate(const Context& context, Qp& qp, ibv_qp_state state, std::uint32_t kbps) {
  if (!context.offers(Feature::kPacing) || !qp.send || state != IBV_QPS_RTS || kbps > kMaxKbps) return EINVAL;
  qp.rate_kbps = kbps;
  qp.send->set_rate(kbps);
  return 0;
}

int modify_qp_rate_limit(ibv_qp* handle, ibv_qp_rate_limit_attr* attr) {
  Context& context = context_of(handle->context);
  if (const int error = context.injected(kEx | IB_USER_VERBS_EX_CMD_MODIFY_QP, IB_USER_VERBS_CMD_MODIFY_QP)) {
    return error;
  }
  const auto held = context.engine.lock();
  if (attr->comp_mask != 0) return EINVAL;
  return change_rate(context, qp_of(handle), qp_of(handle).now, attr->rate_limit);
}

}  // namespace

void set_qp_calls(Context& context) {
  context.create_qp_ex = create_qp_ex;
  context.modify_qp_rate_limit = modify_qp_rate_limit;
  context.context.ops.post_send = post_send;
  context.context.ops.post_recv = post_recv;
}

}  // namespace softnic::dropin

using namespace softnic::dropin;

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* attr) {
  if (const int error = context_of(pd->context).injected(IB_USER_VERBS_CMD_CREATE_QP)) return refuse(error);
  ibv_qp_init_attr_ex all{};
  all.qp_context = attr->qp_context;
  all.send_cq = attr->send_cq;
  all.recv_cq = attr->recv_cq;
  all.srq = attr->srq;
  all.cap = attr->cap;
  all.qp_type = attr->qp_type;
  all.sq_sig_all = attr->sq_sig_all;
  all.comp_mask = IBV_QP_INIT_ATTR_PD;
  all.pd = pd;
  return make_qp(pd->context, all);
}

ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp* qp) { return qp_of(qp).send_ops != 0 ? reinterpret_cast<ibv_qp_ex*>(qp) : nullptr; }

int ibv_modify_qp(ibv_qp* handle, ibv_qp_attr* attr, int bits) {
  const auto mask = static_cast<unsigned>(bits);
  Qp& qp = qp_of(handle);
  Context& context = context_of(handle->context);
  if (const int error = context.injected(IB_USER_VERBS_CMD_MODIFY_QP, kEx | IB_USER_VERBS_EX_CMD_MODIFY_QP)) {
    return error;
  }
  if (qp.rss) return EOPNOTSUPP;
  const auto held = context.engine.lock();
  constexpr unsigned kMask = IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_PORT | IBV_QP_RATE_LIMIT;
  if ((mask & ~kMask) != 0 || ((mask & IBV_QP_CUR_STATE) != 0 && attr->cur_qp_state != qp.now)) return EINVAL;
  const ibv_qp_state state = (mask & IBV_QP_STATE) != 0 ? attr->qp_state : qp.now;
  if (state > IBV_QPS_ERR || !allowed(qp.now, state)) return EINVAL;
  if (qp.now == IBV_QPS_RESET && state == IBV_QPS_INIT && (mask & IBV_QP_PORT) == 0) return EINVAL;
  if ((mask & IBV_QP_PORT) != 0 && (attr->port_num == 0 || attr->port_num > context.board->ports)) return EINVAL;
  if ((mask & IBV_QP_RATE_LIMIT) != 0) {
    if (const int error = change_rate(context, qp, state, attr->rate_limit)) return error;
  }
  if ((mask & IBV_QP_PORT) != 0) qp.port = attr->port_num;
  if ((mask & IBV_QP_STATE) != 0) context.engine.set_state(qp, state);
  handle->state = state;
  return 0;
}

int ibv_query_qp(ibv_qp* handle, ibv_qp_attr* attr, int, ibv_qp_init_attr* init) {
  Qp& qp = qp_of(handle);
  const auto held = context_of(handle->context).engine.lock();
  *attr = {};
  attr->qp_state = attr->cur_qp_state = handle->state = qp.now;
  attr->port_num = qp.port;
  attr->rate_limit = qp.rate_kbps;
  if (qp.send) {
    attr->cap.max_send_wr = qp.send->limits().requests;
    attr->cap.max_send_sge = qp.send->limits().pieces;
    attr->cap.max_inline_data = qp.send->limits().inline_bytes;
  }
  if (qp.receive) {
    attr->cap.max_recv_wr = qp.receive->limits().requests;
    attr->cap.max_recv_sge = qp.receive->limits().pieces;
  }
  *init = {};
  init->qp_context = handle->qp_context;
  init->send_cq = handle->send_cq;
  init->recv_cq = handle->recv_cq;
  init->cap = attr->cap;
  init->qp_type = handle->qp_type;
  init->sq_sig_all = qp.signal_all ? 1 : 0;
  return 0;
}

int ibv_destroy_qp(ibv_qp* handle) {
  Qp& qp = qp_of(handle);
  Context& context = context_of(handle->context);
  {
    const auto held = context.engine.lock();
    if (qp.flows != 0) return EBUSY;
    context.fabric.release_queue(handle->qp_num);
    context.engine.qps.erase(handle->qp_num);
    if (qp.send) --cq_of(handle->send_cq).users;
    if (qp.receive) --cq_of(handle->recv_cq).users;
    if (qp.rss) --qp.rss->table->users;
    --static_cast<Pd*>(handle->pd)->users;
    qp.send.reset();
    qp.receive.reset();
    context.async.forget(reinterpret_cast<std::uint64_t>(&qp));
  }
  wait_acknowledged(handle->mutex, handle->cond, handle->events_completed, qp.taken.async);
  const std::unique_ptr<Qp> gone(&qp);
  return 0;
}
