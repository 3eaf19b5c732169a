#include "tests/softnic/dropin/post.h"

#include <cerrno>

#include "tests/softnic/core/violation.h"
#include "tests/softnic/dropin/context.h"

namespace softnic::dropin {
namespace {

Context& context_of(const Qp& qp) { return dropin::context_of(qp.qp_base.context); }

void append(SendRequest& request, const void* at, std::size_t bytes) {
  const auto* from = static_cast<const std::uint8_t*>(at);
  request.copied.insert(request.copied.end(), from, from + bytes);
}

SendRequest copy_of(const ibv_send_wr& given) {
  SendRequest out;
  out.id = given.wr_id;
  out.opcode = given.opcode;
  out.flags = given.send_flags;
  if (given.opcode == IBV_WR_TSO) {
    append(out, given.tso.hdr, given.tso.hdr_sz);
    out.mss = given.tso.mss;
  }
  for (int i = 0; i < given.num_sge; ++i) {
    const ibv_sge& piece = given.sg_list[i];
    if ((given.send_flags & IBV_SEND_INLINE) != 0 && given.opcode != IBV_WR_TSO) {
      append(out, reinterpret_cast<const void*>(piece.addr), piece.length);
    } else {
      out.pieces.push_back(piece);
    }
  }
  return out;
}

// In states in which a queue pair does not send yet, posting is refused; in the error state requests are flushed.
bool may_send(const Qp& qp) { return qp.send && (qp.now == IBV_QPS_RTS || qp.now == IBV_QPS_ERR); }

/// @return 0 or the errno; then `*bad` is the first that was not posted. `bad` may be missing: some clients pass none.
template <typename Request, typename Post>
int post_chain(Request* request, Request** bad, const Post& post) {
  for (; request != nullptr; request = request->next) {
    const int error = post(*request);
    if (error == 0) continue;
    if (bad != nullptr) *bad = request;
    return error;
  }
  return 0;
}

}  // namespace

int post_send(ibv_qp* handle, ibv_send_wr* request, ibv_send_wr** bad) {
  Qp& qp = qp_of(handle);
  Context& context = context_of(qp);
  const auto held = context.engine.lock();
  const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
  context.board->count(Counter::doorbells);
  const int error = post_chain(request, bad, [&](const ibv_send_wr& one) {
    if (!may_send(qp) || one.num_sge < 0) return EINVAL;
    SendRequest copied = copy_of(one);
    const int wrong = qp.send->check(copied);
    if (wrong == 0) qp.send->post(std::move(copied), now);
    return wrong;
  });
  context.engine.sent(qp);
  return error;
}

int post_recv(ibv_qp* handle, ibv_recv_wr* request, ibv_recv_wr** bad) {
  Qp& qp = qp_of(handle);
  Context& context = context_of(qp);
  const auto held = context.engine.lock();
  const int error = post_chain(request, bad, [&](const ibv_recv_wr& one) {
    return qp.receive && qp.now != IBV_QPS_RESET ? qp.receive->post(one) : EINVAL;
  });
  context.engine.settle(qp);
  return error;
}

int post_wq_recv(ibv_wq* handle, ibv_recv_wr* request, ibv_recv_wr** bad) {
  Wq& wq = static_cast<Wq&>(*handle);
  const auto held = dropin::context_of(handle->context).engine.lock();
  const int error = post_chain(request, bad, [&](const ibv_recv_wr& one) { return wq.queue->post(one); });
  if (wq.state == IBV_WQS_ERR) wq.queue->flush();
  return error;
}

namespace {

// ibv_wr_*: requests are gathered without the lock, and posted together.

/// The request that the setters are about; nullptr (and a violation) where there is none.
SendRequest* latest(Qp& qp, const char* call) {
  if (qp.batch.open && !qp.batch.requests.empty()) return &qp.batch.requests.back();
  violation(*context_of(qp).board, "queue %u: %s without a request of ibv_wr_start", qp.qp_base.qp_num, call);
  qp.batch.error = EINVAL;
  return nullptr;
}

SendRequest* add(ibv_qp_ex* handle, std::uint64_t operation, const char* call) {
  Qp& qp = qp_of(handle);
  if (!qp.batch.open || (qp.send_ops & operation) == 0) {
    violation(*context_of(qp).board, "queue %u: %s %s", qp.qp_base.qp_num, call,
              qp.batch.open ? "is not among its send_ops_flags" : "without ibv_wr_start");
    qp.batch.error = EINVAL;
    return nullptr;
  }
  SendRequest& request = qp.batch.requests.emplace_back();
  request.id = handle->wr_id;
  request.flags = handle->wr_flags;
  return &request;
}

void wr_start(ibv_qp_ex* handle) {
  Qp& qp = qp_of(handle);
  if (qp.batch.open) {
    violation(*context_of(qp).board, "queue %u: ibv_wr_start twice", qp.qp_base.qp_num);
  }
  qp.batch.open = true;
  qp.batch.error = 0;
  qp.batch.requests.clear();
}

void wr_send(ibv_qp_ex* qp) { add(qp, IBV_QP_EX_WITH_SEND, "ibv_wr_send"); }

void wr_send_tso(ibv_qp_ex* qp, void* header, std::uint16_t bytes, std::uint16_t mss) {
  SendRequest* request = add(qp, IBV_QP_EX_WITH_TSO, "ibv_wr_send_tso");
  if (request == nullptr) return;
  request->opcode = IBV_WR_TSO;
  request->mss = mss;
  append(*request, header, bytes);
}

void wr_set_sge_list(ibv_qp_ex* qp, std::size_t count, const ibv_sge* pieces) {
  if (SendRequest* request = latest(qp_of(qp), "ibv_wr_set_sge")) request->pieces.assign(pieces, pieces + count);
}

void wr_set_sge(ibv_qp_ex* qp, std::uint32_t key, std::uint64_t at, std::uint32_t bytes) {
  const ibv_sge piece{at, bytes, key};
  wr_set_sge_list(qp, 1, &piece);
}

void wr_set_inline_data_list(ibv_qp_ex* handle, std::size_t count, const ibv_data_buf* parts) {
  Qp& qp = qp_of(handle);
  SendRequest* request = latest(qp, "ibv_wr_set_inline_data");
  if (request == nullptr) return;
  if (request->opcode == IBV_WR_TSO) {
    violation(*context_of(qp).board, "queue %u: inline data in a request of ibv_wr_send_tso", qp.qp_base.qp_num);
    qp.batch.error = EINVAL;
    return;
  }
  for (std::size_t i = 0; i < count; ++i) append(*request, parts[i].addr, parts[i].length);
}

void wr_set_inline_data(ibv_qp_ex* qp, void* at, std::size_t bytes) {
  const ibv_data_buf part{at, bytes};
  wr_set_inline_data_list(qp, 1, &part);
}

int wr_complete(ibv_qp_ex* handle) {
  Qp& qp = qp_of(handle);
  Context& context = context_of(qp);
  if (!qp.batch.open) {
    violation(*context.board, "queue %u: ibv_wr_complete without ibv_wr_start", qp.qp_base.qp_num);
    return EINVAL;
  }
  Batch batch = std::move(qp.batch);
  qp.batch = {};
  if (batch.error != 0) return batch.error;
  const auto held = context.engine.lock();
  if (!may_send(qp)) return EINVAL;
  if (batch.requests.size() > qp.send->room()) return ENOMEM;
  for (const SendRequest& request : batch.requests) {
    if (const int error = qp.send->check(request)) return error;
  }
  const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
  context.board->count(Counter::doorbells);
  for (SendRequest& request : batch.requests) qp.send->post(std::move(request), now);
  context.engine.sent(qp);
  return 0;
}

void wr_abort(ibv_qp_ex* handle) { qp_of(handle).batch = {}; }

}  // namespace

void set_work_request_calls(Qp& qp) {
  qp.wr_start = wr_start;
  qp.wr_send = wr_send;
  qp.wr_send_tso = wr_send_tso;
  qp.wr_set_sge = wr_set_sge;
  qp.wr_set_sge_list = wr_set_sge_list;
  qp.wr_set_inline_data = wr_set_inline_data;
  qp.wr_set_inline_data_list = wr_set_inline_data_list;
  qp.wr_complete = wr_complete;
  qp.wr_abort = wr_abort;
}

}  // namespace softnic::dropin
