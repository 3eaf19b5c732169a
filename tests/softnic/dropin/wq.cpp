/// Work queues and their indirection tables: receiving by RSS.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <cerrno>
#include <memory>

#include "tests/softnic/dropin/context.h"
#include "tests/softnic/dropin/post.h"

namespace softnic::dropin {
namespace {

constexpr std::uint32_t kEx = IB_USER_VERBS_CMD_FLAG_EXTENDED;

ibv_wq* create_wq(ibv_context* handle, ibv_wq_init_attr* attr) {
  Context& context = context_of(handle);
  if (const int error = context.injected(kEx | IB_USER_VERBS_EX_CMD_CREATE_WQ)) return refuse(error);
  const std::uint32_t flags = (attr->comp_mask & IBV_WQ_INIT_ATTR_FLAGS) != 0 ? attr->create_flags : 0;
  const bool strip = (flags & IBV_WQ_FLAGS_CVLAN_STRIPPING) != 0;
  if (!context.offers(Feature::kRss) || attr->wq_type != IBV_WQT_RQ ||
      (flags & ~std::uint32_t{IBV_WQ_FLAGS_CVLAN_STRIPPING}) != 0 || (strip && !context.offers(Feature::kVlanStrip))) {
    return refuse(EOPNOTSUPP);
  }
  if (attr->pd == nullptr || attr->cq == nullptr || attr->max_wr == 0 || attr->max_wr > kMaxRequests ||
      attr->max_sge > kMaxPieces) {
    return refuse(EINVAL);
  }
  auto wq = std::make_unique<Wq>();
  wq->context = handle;
  wq->wq_context = attr->wq_context;
  wq->pd = attr->pd;
  wq->cq = attr->cq;
  wq->wq_num = wq->handle = context.fabric.allocate_queue();
  if (wq->wq_num == 0) return refuse(ENOMEM);
  wq->wq_type = IBV_WQT_RQ;
  wq->post_recv = post_wq_recv;
  const ReceiveQueue::Identity identity{wq->wq_num, attr->pd->handle, strip, context.offers(Feature::kChecksum)};
  const auto held = context.engine.lock();
  wq->queue.emplace(QueueLimits{attr->max_wr, attr->max_sge, 0, 0}, identity, cq_of(attr->cq).completions,
                    context.engine.memory, *context.board);
  ++cq_of(attr->cq).users;
  ++static_cast<Pd*>(attr->pd)->users;
  context.engine.wqs.insert(wq.get());
  return wq.release();
}

int modify_wq(ibv_wq* handle, ibv_wq_attr* attr) {
  constexpr std::uint32_t kMask = IBV_WQ_ATTR_STATE | IBV_WQ_ATTR_CURR_STATE | IBV_WQ_ATTR_FLAGS;
  Wq& wq = static_cast<Wq&>(*handle);
  Context& context = context_of(handle->context);
  const auto held = context.engine.lock();
  if (attr->attr_mask == 0 || (attr->attr_mask & ~kMask) != 0) return EINVAL;
  if ((attr->attr_mask & IBV_WQ_ATTR_CURR_STATE) != 0 && attr->curr_wq_state != wq.state) return EINVAL;
  if ((attr->attr_mask & IBV_WQ_ATTR_FLAGS) != 0) {
    if ((attr->flags_mask & ~std::uint32_t{IBV_WQ_FLAGS_CVLAN_STRIPPING}) != 0) return EOPNOTSUPP;
    if (attr->flags_mask != 0) wq.queue->set_strip_vlan((attr->flags & IBV_WQ_FLAGS_CVLAN_STRIPPING) != 0);
  }
  if ((attr->attr_mask & IBV_WQ_ATTR_STATE) != 0) {
    if (attr->wq_state > IBV_WQS_ERR) return EINVAL;
    context.engine.set_state(wq, attr->wq_state);
  }
  return 0;
}

int destroy_wq(ibv_wq* handle) {
  Wq& wq = static_cast<Wq&>(*handle);
  Context& context = context_of(handle->context);
  {
    const auto held = context.engine.lock();
    if (wq.users != 0) return EBUSY;
    --cq_of(wq.cq).users;
    --static_cast<Pd*>(wq.pd)->users;
    context.engine.wqs.erase(&wq);
    wq.queue.reset();
    context.async.forget(reinterpret_cast<std::uint64_t>(&wq));
  }
  wait_acknowledged(wq.mutex, wq.cond, wq.events_completed, wq.taken.async);
  const std::unique_ptr<Wq> gone(&wq);
  return 0;
}

ibv_rwq_ind_table* create_rwq_ind_table(ibv_context* handle, ibv_rwq_ind_table_init_attr* attr) {
  Context& context = context_of(handle);
  if (const int error = context.injected(kEx | IB_USER_VERBS_EX_CMD_CREATE_RWQ_IND_TBL)) return refuse(error);
  if (!context.offers(Feature::kRss)) return refuse(EOPNOTSUPP);
  if (attr->comp_mask != 0 || attr->log_ind_tbl_size > 31 || 1U << attr->log_ind_tbl_size > kMaxTable) {
    return refuse(EINVAL);
  }
  auto table = std::make_unique<Table>();
  for (std::uint32_t i = 0; i < 1U << attr->log_ind_tbl_size; ++i) {
    if (attr->ind_tbl[i] == nullptr) return refuse(EINVAL);
    table->queues.push_back(static_cast<Wq*>(attr->ind_tbl[i]));
  }
  const auto held = context.engine.lock();
  for (Wq* wq : table->queues) ++wq->users;
  table->context = handle;
  table->ind_tbl_handle = table->ind_tbl_num = static_cast<int>(context.next_handle++);
  return table.release();
}

int destroy_rwq_ind_table(ibv_rwq_ind_table* handle) {
  std::unique_ptr<Table> gone(static_cast<Table*>(handle));
  const auto held = context_of(handle->context).engine.lock();
  if (gone->users != 0) {
    static_cast<void>(gone.release());
    return EBUSY;
  }
  for (Wq* wq : gone->queues) --wq->users;
  return 0;
}

}  // namespace

void set_wq_calls(Context& context) {
  context.create_wq = create_wq;
  context.modify_wq = modify_wq;
  context.destroy_wq = destroy_wq;
  context.create_rwq_ind_table = create_rwq_ind_table;
  context.destroy_rwq_ind_table = destroy_rwq_ind_table;
}

}  // namespace softnic::dropin
