#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/mlx5-abi.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "tests/softnic/kernel/session.h"

namespace softnic {
namespace {

constexpr std::uint32_t kMaxStrides = 32768;
constexpr std::uint32_t kMaxLogTable = 11;
constexpr std::uint32_t kStrip = IBV_WQ_FLAGS_CVLAN_STRIPPING;
constexpr std::uint32_t kAttributes = IBV_WQ_ATTR_STATE | IBV_WQ_ATTR_CURR_STATE | IBV_WQ_ATTR_FLAGS;

}  // namespace

int Session::create_wq(Command& command) {
  ib_uverbs_ex_create_wq core{};
  mlx5_ib_create_wq driver{};
  if (!command.read(core) || core.comp_mask != 0) return EINVAL;
  command.read_driver(driver);
  if ((board_.features & Feature::kRss) == 0 || core.wq_type != IBV_WQT_RQ || driver.comp_mask != 0 ||
      (core.create_flags & ~kStrip) != 0) {
    return EOPNOTSUPP;
  }
  const auto domain = domains_.find(core.pd_handle);
  const auto cq = nic_.cqs.find(core.cq_handle);
  if (domain == domains_.end() || cq == nic_.cqs.end() || driver.buf_addr == 0 || driver.db_addr == 0 ||
      !std::has_single_bit(driver.rq_wqe_count) || driver.rq_wqe_count > kMaxStrides || driver.rq_wqe_shift < 4 ||
      driver.rq_wqe_shift > 10) {
    return EINVAL;
  }
  const std::uint32_t number = fabric_.allocate_queue();
  if (number == 0) return ENOMEM;
  const bool strip = (core.create_flags & kStrip) != 0;
  const ReceiveQueue::Layout layout{reinterpret_cast<std::uint8_t*>(driver.buf_addr), driver.rq_wqe_count,
                                    driver.rq_wqe_shift, reinterpret_cast<std::uint32_t*>(driver.db_addr)};
  const ReceiveQueue::Identity identity{number, driver.user_index, core.pd_handle, strip};
  auto wq = std::make_unique<WorkQueue>();
  wq->number = number;
  wq->cookie = core.user_handle;
  wq->cq = core.cq_handle;
  wq->domain = core.pd_handle;
  wq->queue = std::make_unique<ReceiveQueue>(layout, identity, *cq->second, nic_.memory, board_);
  nic_.wqs[number] = std::move(wq);
  ++domain->second;
  ++cq_users_[core.cq_handle];
  ib_uverbs_ex_create_wq_resp response{};
  response.response_length = sizeof response;
  response.wq_handle = response.wqn = number;
  response.max_wr = core.max_wr;
  response.max_sge = core.max_sge;
  command.respond(response);
  command.respond_driver(mlx5_ib_create_wq_resp{sizeof(mlx5_ib_create_wq_resp), 0});
  return 0;
}

int Session::modify_wq(Command& command) {
  ib_uverbs_ex_modify_wq core{};
  if (!command.read(core)) return EINVAL;
  const auto found = nic_.wqs.find(core.wq_handle);
  if (found == nic_.wqs.end() || core.attr_mask == 0 || (core.attr_mask & ~kAttributes) != 0) {
    return EINVAL;
  }
  WorkQueue& wq = *found->second;
  if ((core.attr_mask & IBV_WQ_ATTR_FLAGS) != 0) {
    if ((core.flags_mask & ~kStrip) != 0) return EOPNOTSUPP;
    if (core.flags_mask != 0) wq.queue->set_strip_vlan((core.flags & kStrip) != 0);
  }
  if ((core.attr_mask & IBV_WQ_ATTR_STATE) != 0) {
    if (core.wq_state > IBV_WQS_ERR) return EINVAL;
    nic_.set_state(wq, core.wq_state == IBV_WQS_RDY, core.wq_state == IBV_WQS_ERR);
  }
  return 0;
}

int Session::destroy_wq(Command& command) {
  ib_uverbs_ex_destroy_wq core{};
  if (!command.read(core)) return EINVAL;
  const auto found = nic_.wqs.find(core.wq_handle);
  if (found == nic_.wqs.end()) return EINVAL;
  const WorkQueue& wq = *found->second;
  if (wq.users != 0) return EBUSY;
  --domains_[wq.domain];
  --cq_users_[wq.cq];
  const std::uint32_t read = forget_async(wq.cookie);
  fabric_.release_queue(wq.number);
  nic_.write_completions();
  nic_.wqs.erase(found);
  command.respond(ib_uverbs_ex_destroy_wq_resp{0, sizeof(ib_uverbs_ex_destroy_wq_resp), read, 0});
  return 0;
}

int Session::create_rwq_table(Command& command) {
  ib_uverbs_ex_create_rwq_ind_table core{};
  if (!command.read(core) || core.comp_mask != 0 || core.log_ind_tbl_size > kMaxLogTable) return EINVAL;
  const std::size_t count = std::size_t{1} << core.log_ind_tbl_size;
  const auto handles = command.behind(sizeof core);
  if (handles.size() < count * sizeof(std::uint32_t)) return EINVAL;
  std::vector<std::uint32_t> queues(count);
  std::memcpy(queues.data(), handles.data(), count * sizeof(std::uint32_t));
  for (const std::uint32_t number : queues) {
    if (nic_.wqs.count(number) == 0) return EINVAL;
  }
  for (const std::uint32_t number : queues) ++nic_.wqs[number]->users;
  const std::uint32_t handle = next_handle_++;
  tables_[handle] = std::move(queues);
  command.respond(
      ib_uverbs_ex_create_rwq_ind_table_resp{0, sizeof(ib_uverbs_ex_create_rwq_ind_table_resp), handle, handle});
  command.respond_driver(mlx5_ib_create_rwq_ind_tbl_resp{sizeof(mlx5_ib_create_rwq_ind_tbl_resp), 0});
  return 0;
}

int Session::destroy_rwq_table(Command& command) {
  ib_uverbs_ex_destroy_rwq_ind_table core{};
  if (!command.read(core)) return EINVAL;
  const auto found = tables_.find(core.ind_tbl_handle);
  if (found == tables_.end()) return EINVAL;
  if (table_users_[core.ind_tbl_handle] != 0) return EBUSY;
  for (const std::uint32_t number : found->second) --nic_.wqs[number]->users;
  table_users_.erase(core.ind_tbl_handle);
  tables_.erase(found);
  return 0;
}

}  // namespace softnic
