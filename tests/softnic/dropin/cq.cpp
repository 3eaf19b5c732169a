/// Completion queues: creating and polling them.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "tests/softnic/core/violation.h"
#include "tests/softnic/dropin/context.h"

namespace softnic::dropin {
namespace {

constexpr std::uint32_t kEx = IB_USER_VERBS_CMD_FLAG_EXTENDED;
constexpr std::uint64_t kFields = std::uint64_t{IBV_WC_STANDARD_FLAGS} | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                                  IBV_WC_EX_WITH_CVLAN | IBV_WC_EX_WITH_FLOW_TAG |
                                  IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;

Context& context_of(const Cq& cq) { return dropin::context_of(cq.context); }

bool next(Context& context, Cq& cq, Completion& out) {
  if (cq.completions.take(out)) return true;
  context.engine.pump();
  cq.completions.release_some();
  return cq.completions.take(out);
}

int poll_cq(ibv_cq* handle, int most, ibv_wc* out) {
  Cq& cq = cq_of(handle);
  Context& context = context_of(cq);
  const auto held = context.engine.lock();
  Completion one;
  int taken = 0;
  // Waiting work is looked for once a call.
  for (; taken < most && (taken == 0 ? next(context, cq, one) : cq.completions.take(one)); ++taken) {
    ibv_wc& wc = out[taken];
    wc = {};
    wc.wr_id = one.id;
    wc.status = one.status;
    wc.opcode = one.opcode;
    wc.vendor_err = one.vendor_error;
    wc.byte_len = one.bytes;
    wc.qp_num = one.queue;
    wc.wc_flags = one.flags;
  }
  return taken;
}

int req_notify_cq(ibv_cq* handle, int solicited_only) {
  Cq& cq = cq_of(handle);
  Context& context = context_of(cq);
  const auto held = context.engine.lock();
  cq.completions.arm(solicited_only != 0);
  context.engine.watch();
  return 0;
}

// ibv_start_poll and what belongs to it. Another thread's turn is waited for; one's own second start is an error of
// the program.

int take_current(Cq& cq) {
  Context& context = context_of(cq);
  const auto held = context.engine.lock();
  if (!next(context, cq, cq.current)) return ENOENT;
  cq.status = cq.current.status;
  cq.wr_id = cq.current.id;
  return 0;
}

bool polling_here(const Cq& cq) { return cq.poller.load() == std::this_thread::get_id(); }

void end_poll(ibv_cq_ex* handle) {
  Cq& cq = cq_of(handle);
  if (!polling_here(cq)) {
    violation(*context_of(cq).board, "completion queue %u: ibv_end_poll without a successful ibv_start_poll",
              cq.handle);
    return;
  }
  cq.poller = std::thread::id{};
  cq.polling.unlock();
}

int start_poll(ibv_cq_ex* handle, ibv_poll_cq_attr* attr) {
  Cq& cq = cq_of(handle);
  if (attr != nullptr && attr->comp_mask != 0) return EINVAL;
  if (polling_here(cq)) {
    violation(*context_of(cq).board, "completion queue %u: ibv_start_poll again before ibv_end_poll", cq.handle);
    end_poll(handle);
  }
  cq.polling.lock();
  cq.poller = std::this_thread::get_id();
  const int error = take_current(cq);
  if (error != 0) end_poll(handle);
  return error;
}

int next_poll(ibv_cq_ex* handle) {
  Cq& cq = cq_of(handle);
  if (polling_here(cq)) return take_current(cq);
  violation(*context_of(cq).board, "completion queue %u: ibv_next_poll without ibv_start_poll", cq.handle);
  return ENOENT;
}

/// The current completion, for a read of `field`; 0: one that is always there.
const Completion& current(ibv_cq_ex* handle, std::uint64_t field, const char* name) {
  const Cq& cq = cq_of(handle);
  if (!polling_here(cq)) {
    violation(*context_of(cq).board, "completion queue %u: %s is read outside of a poll", cq.handle, name);
  }
  if ((cq.fields & field) != field) {
    violation(*context_of(cq).board, "completion queue %u: %s is read, but was not asked for", cq.handle, name);
  }
  return cq.current;
}

ibv_wc_opcode read_opcode(ibv_cq_ex* cq) { return current(cq, 0, "opcode").opcode; }
std::uint32_t read_vendor_err(ibv_cq_ex* cq) { return current(cq, 0, "vendor_err").vendor_error; }
unsigned read_wc_flags(ibv_cq_ex* cq) { return current(cq, 0, "wc_flags").flags; }
std::uint32_t read_byte_len(ibv_cq_ex* cq) { return current(cq, IBV_WC_EX_WITH_BYTE_LEN, "byte_len").bytes; }
std::uint32_t read_qp_num(ibv_cq_ex* cq) { return current(cq, IBV_WC_EX_WITH_QP_NUM, "qp_num").queue; }
std::uint16_t read_cvlan(ibv_cq_ex* cq) { return current(cq, IBV_WC_EX_WITH_CVLAN, "cvlan").vlan; }
std::uint32_t read_flow_tag(ibv_cq_ex* cq) { return current(cq, IBV_WC_EX_WITH_FLOW_TAG, "flow_tag").tag; }
std::uint64_t read_completion_ts(ibv_cq_ex* cq) {
  return current(cq, IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, "completion_ts").time_ns;
}
std::uint64_t read_wallclock(ibv_cq_ex* cq) {
  return current(cq, IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK, "completion_wallclock_ns").wall_ns;
}
// What only InfiniBand's transports fill in.
std::uint32_t read_zero32(ibv_cq_ex*) { return 0; }
std::uint8_t read_zero8(ibv_cq_ex*) { return 0; }

void set_reads(Cq& cq) {
  cq.start_poll = start_poll;
  cq.next_poll = next_poll;
  cq.end_poll = end_poll;
  cq.read_opcode = read_opcode;
  cq.read_vendor_err = read_vendor_err;
  cq.read_wc_flags = read_wc_flags;
  cq.read_byte_len = read_byte_len;
  cq.read_imm_data = read_zero32;
  cq.read_qp_num = read_qp_num;
  cq.read_src_qp = read_zero32;
  cq.read_slid = read_zero32;
  cq.read_sl = read_zero8;
  cq.read_dlid_path_bits = read_zero8;
  cq.read_completion_ts = read_completion_ts;
  cq.read_cvlan = read_cvlan;
  cq.read_flow_tag = read_flow_tag;
  cq.read_completion_wallclock_ns = read_wallclock;
}

Cq* make_cq(ibv_context* handle, std::int64_t entries, void* cookie, ibv_comp_channel* channel, std::int64_t vector) {
  Context& context = dropin::context_of(handle);
  if (entries <= 0 || entries > context.board->max_cqe || vector < 0 || vector >= kVectors) return refuse(EINVAL);
  const int fd = channel == nullptr ? -1 : static_cast<Channel*>(channel)->pipe.write_fd();
  auto cq = std::make_unique<Cq>(static_cast<std::size_t>(entries), fd, *context.board);
  cq->context = handle;
  cq->channel = channel;
  cq->cq_context = cookie;
  cq->cqe = static_cast<int>(entries);
  pthread_mutex_init(&cq->mutex, nullptr);
  pthread_cond_init(&cq->cond, nullptr);
  const auto held = context.engine.lock();
  cq->handle = context.next_handle++;
  if (channel != nullptr) ++channel->refcnt;
  context.engine.cqs.insert(cq.get());
  return cq.release();
}

ibv_cq_ex* create_cq_ex(ibv_context* context, ibv_cq_init_attr_ex* attr) {
  constexpr std::uint32_t kFlags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
  const std::uint32_t flags = (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS) != 0 ? attr->flags : 0;
  if (!dropin::context_of(context).offers(Feature::kExtendedCq)) return refuse(EOPNOTSUPP);
  if (const int error =
          dropin::context_of(context).injected(kEx | IB_USER_VERBS_EX_CMD_CREATE_CQ, IB_USER_VERBS_CMD_CREATE_CQ)) {
    return refuse(error);
  }
  if ((attr->comp_mask & ~std::uint32_t{IBV_CQ_INIT_ATTR_MASK_FLAGS}) != 0) return refuse(EINVAL);
  if ((attr->wc_flags & ~kFields) != 0 || (flags & ~kFlags) != 0) return refuse(EOPNOTSUPP);
  Cq* cq = make_cq(context, attr->cqe, attr->cq_context, attr->channel, attr->comp_vector);
  if (cq == nullptr) return nullptr;
  cq->fields = attr->wc_flags;
  set_reads(*cq);
  return cq;
}

// Moderation only delays events; the model sends them at once, which it allows.
int modify_cq(ibv_cq*, ibv_modify_cq_attr* attr) {
  return (attr->attr_mask & ~std::uint32_t{IBV_CQ_ATTR_MODERATE}) == 0 ? 0 : EINVAL;
}

}  // namespace

void set_cq_calls(Context& context) {
  context.context.ops.poll_cq = poll_cq;
  context.context.ops.req_notify_cq = req_notify_cq;
  context.create_cq_ex = create_cq_ex;
  context.modify_cq = modify_cq;
}

}  // namespace softnic::dropin

using namespace softnic::dropin;

ibv_cq* ibv_create_cq(ibv_context* context, int entries, void* cookie, ibv_comp_channel* channel, int vector) {
  if (const int error = context_of(context).injected(IB_USER_VERBS_CMD_CREATE_CQ)) return refuse(error);
  Cq* cq = make_cq(context, entries, cookie, channel, vector);
  return cq == nullptr ? nullptr : ibv_cq_ex_to_cq(cq);
}

int ibv_resize_cq(ibv_cq* handle, int entries) {
  Cq& cq = cq_of(handle);
  const auto held = context_of(cq).engine.lock();
  if (entries <= 0 || static_cast<std::uint32_t>(entries) > context_of(cq).board->max_cqe) return EINVAL;
  if (cq.completions.used() > static_cast<std::size_t>(entries)) return EINVAL;
  cq.completions.resize(static_cast<std::size_t>(entries));
  cq.cqe = entries;
  return 0;
}

int ibv_destroy_cq(ibv_cq* handle) {
  Cq& cq = cq_of(handle);
  Context& context = context_of(cq);
  const auto cookie = reinterpret_cast<std::uint64_t>(&cq);
  {
    const auto held = context.engine.lock();
    if (cq.users != 0) return EBUSY;
    context.engine.cqs.erase(&cq);
    if (cq.channel != nullptr) {
      static_cast<Channel*>(cq.channel)->pipe.forget(cookie);
      --cq.channel->refcnt;
    }
    context.async.forget(cookie);
  }
  wait_acknowledged(cq.mutex, cq.cond, cq.comp_events_completed, cq.taken.completion);
  wait_acknowledged(cq.mutex, cq.cond, cq.async_events_completed, cq.taken.async);
  const std::unique_ptr<Cq> gone(&cq);
  return 0;
}
