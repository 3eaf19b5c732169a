#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/mlx5-abi.h>

#include <bit>
#include <cerrno>
#include <optional>

#include "tests/softnic/kernel/session.h"

namespace softnic {
namespace {

constexpr std::uint32_t kMaxTso = 262144;
constexpr std::uint32_t kCreateFlags = IBV_QP_CREATE_CVLAN_STRIPPING | IBV_QP_CREATE_BLOCK_SELF_MCAST_LB;
constexpr std::uint32_t kMaxBlocks = 32768;
constexpr std::uint32_t kMaxKbps = 100'000'000;

ib_uverbs_ex_create_qp extend(const ib_uverbs_create_qp& core) {
  ib_uverbs_ex_create_qp out{};
  out.user_handle = core.user_handle;
  out.pd_handle = core.pd_handle;
  out.send_cq_handle = core.send_cq_handle;
  out.recv_cq_handle = core.recv_cq_handle;
  out.max_send_wr = core.max_send_wr;
  out.max_recv_wr = core.max_recv_wr;
  out.max_send_sge = core.max_send_sge;
  out.max_recv_sge = core.max_recv_sge;
  out.max_inline_data = core.max_inline_data;
  out.sq_sig_all = core.sq_sig_all;
  out.qp_type = core.qp_type;
  out.is_srq = core.is_srq;
  return out;
}

/// The limits as they were asked for: the driver has rounded them.
ib_uverbs_create_qp_resp grant(const ib_uverbs_ex_create_qp& core, std::uint32_t number) {
  ib_uverbs_create_qp_resp out{};
  out.qp_handle = out.qpn = number;
  out.max_send_wr = core.max_send_wr;
  out.max_recv_wr = core.max_recv_wr;
  out.max_send_sge = core.max_send_sge;
  out.max_recv_sge = core.max_recv_sge;
  out.max_inline_data = core.max_inline_data;
  return out;
}

bool power_of_two_up_to(std::uint32_t value, std::uint32_t most) { return std::has_single_bit(value) && value <= most; }

}  // namespace

int Session::make_qp(Command& command, const ib_uverbs_ex_create_qp& core, ib_uverbs_create_qp_resp& response,
                     mlx5_ib_create_qp_resp& driver_response) {
  mlx5_ib_create_qp driver{};
  command.read_driver(driver);
  if (core.qp_type != IBV_QPT_RAW_PACKET || (board_.features & Feature::kRawPacket) == 0) return EOPNOTSUPP;
  const auto domain = domains_.find(core.pd_handle);
  if (domain == domains_.end() || core.is_srq != 0 || (core.create_flags & ~kCreateFlags) != 0) return EINVAL;
  const bool strip = (core.create_flags & IBV_QP_CREATE_CVLAN_STRIPPING) != 0;
  if (strip && (board_.features & Feature::kVlanStrip) == 0) return EOPNOTSUPP;
  const auto send_cq = nic_.cqs.find(core.send_cq_handle);
  const auto receive_cq = nic_.cqs.find(core.recv_cq_handle);
  const bool sends = driver.sq_wqe_count != 0 && core.max_send_wr != 0;
  const bool receives = driver.rq_wqe_count != 0 && core.max_recv_wr != 0;
  if ((sends && send_cq == nic_.cqs.end()) || (receives && receive_cq == nic_.cqs.end()) || driver.db_addr == 0)
    return EINVAL;
  if (sends && (!power_of_two_up_to(driver.sq_wqe_count, kMaxBlocks) || driver.sq_buf_addr == 0)) return EINVAL;
  if (receives && (!power_of_two_up_to(driver.rq_wqe_count, kMaxBlocks) || driver.rq_wqe_shift < 4 ||
                   driver.rq_wqe_shift > 10 || driver.buf_addr == 0)) {
    return EINVAL;
  }
  const std::uint32_t number = fabric_.allocate_queue();
  if (number == 0) return ENOMEM;
  auto qp = std::make_unique<QueuePair>();
  qp->number = number;
  qp->cookie = core.user_handle;
  qp->domain = core.pd_handle;
  qp->send_cq = core.send_cq_handle;
  qp->receive_cq = core.recv_cq_handle;
  auto* record = reinterpret_cast<std::uint32_t*>(driver.db_addr);  // [0] receive, [1] send
  driver_response.bfreg_index = nic_.assign_doorbell(*qp);
  if (sends) {
    SendQueue::Identity identity;
    identity.queue = number;
    identity.user_index = driver.uidx;
    identity.domain = core.pd_handle;
    identity.min_inline = static_cast<std::uint16_t>(board_.min_inline);
    identity.max_tso = (board_.features & Feature::kTso) != 0 ? kMaxTso : 0;
    identity.checksums = (board_.features & Feature::kChecksum) != 0;
    const SendQueue::Layout layout{reinterpret_cast<std::uint8_t*>(driver.sq_buf_addr), driver.sq_wqe_count,
                                   &record[1]};
    qp->send = std::make_unique<SendQueue>(layout, identity, *qp->doorbell, *send_cq->second, nic_.memory, nic_.scratch,
                                           board_);
    ++cq_users_[core.send_cq_handle];
  }
  if (receives) {
    const ReceiveQueue::Layout layout{reinterpret_cast<std::uint8_t*>(driver.buf_addr), driver.rq_wqe_count,
                                      driver.rq_wqe_shift, &record[0]};
    const ReceiveQueue::Identity identity{number, driver.uidx, core.pd_handle, strip};
    qp->receive = std::make_unique<ReceiveQueue>(layout, identity, *receive_cq->second, nic_.memory, board_);
    ++cq_users_[core.recv_cq_handle];
  }
  ++domain->second;
  limits_[number] = {core.max_send_wr,
                     core.max_recv_wr,
                     core.max_send_sge,
                     core.max_recv_sge,
                     core.max_inline_data,
                     core.sq_sig_all != 0,
                     false};
  nic_.qps[number] = std::move(qp);
  response = grant(core, number);
  driver_response.comp_mask =
      MLX5_IB_CREATE_QP_RESP_MASK_TIRN | MLX5_IB_CREATE_QP_RESP_MASK_RQN | MLX5_IB_CREATE_QP_RESP_MASK_SQN;
  driver_response.tirn = driver_response.rqn = driver_response.sqn = number;
  return 0;
}

int Session::create_qp(Command& command) {
  ib_uverbs_create_qp core{};
  ib_uverbs_create_qp_resp response{};
  mlx5_ib_create_qp_resp driver{};
  if (!command.read(core)) return EINVAL;
  if (const int error = make_qp(command, extend(core), response, driver); error != 0) return error;
  command.respond(response);
  command.respond_driver(driver);
  return 0;
}

int Session::create_qp_ex(Command& command) {
  ib_uverbs_ex_create_qp core{};
  ib_uverbs_ex_create_qp_resp response{};
  mlx5_ib_create_qp_resp driver{};
  if (!command.read(core)) return EINVAL;
  if ((core.comp_mask & IB_UVERBS_CREATE_QP_MASK_IND_TABLE) != 0) return create_rss_qp(command, core);
  if (const int error = make_qp(command, core, response.base, driver); error != 0) return error;
  response.response_length = sizeof response;
  command.respond(response);
  command.respond_driver(driver);
  return 0;
}

int Session::create_rss_qp(Command& command, const ib_uverbs_ex_create_qp& core) {
  mlx5_ib_create_qp_rss driver{};
  command.read_driver(driver);
  constexpr std::uint8_t kKeyBytes = 40;
  const auto table = tables_.find(core.rwq_ind_tbl_handle);
  const auto domain = domains_.find(core.pd_handle);
  const bool offered = (board_.features & Feature::kRss) != 0 && (board_.features & Feature::kRawPacket) != 0;
  if (!offered || core.qp_type != IBV_QPT_RAW_PACKET || driver.rx_hash_function != MLX5_RX_HASH_FUNC_TOEPLITZ ||
      (driver.rx_hash_fields_mask & ~std::uint64_t{0xff}) != 0) {
    return EOPNOTSUPP;
  }
  if (table == tables_.end() || domain == domains_.end() || driver.rx_key_len != kKeyBytes) return EINVAL;
  const std::uint32_t number = fabric_.allocate_queue();
  if (number == 0) return ENOMEM;
  auto qp = std::make_unique<QueuePair>();
  qp->number = number;
  qp->cookie = core.user_handle;
  qp->domain = core.pd_handle;
  qp->state = QueueState::rtr;  // it has no states of its own: its WQs have
  qp->port = 0;
  qp->rss = std::make_unique<Rss>();
  qp->rss->fields = driver.rx_hash_fields_mask;
  qp->rss->key.assign(driver.rx_hash_key, driver.rx_hash_key + kKeyBytes);
  qp->rss->queues = table->second;
  qp->rss->table = core.rwq_ind_tbl_handle;
  ++table_users_[core.rwq_ind_tbl_handle];
  ++domain->second;
  limits_[number].rss = true;
  nic_.qps[number] = std::move(qp);
  ib_uverbs_ex_create_qp_resp response{};
  response.base.qp_handle = response.base.qpn = number;
  response.response_length = sizeof response;
  command.respond(response);
  command.respond_driver(mlx5_ib_create_qp_resp{});
  return 0;
}

namespace {

// The transitions of a raw packet queue pair, "Modify Queue Pair" of the InfiniBand specification: up by one step, or
// from anywhere to RESET or ERR.
bool allowed(QueueState from, QueueState to) {
  if (to == QueueState::reset || to == QueueState::err || from == to) return true;
  return (from == QueueState::reset && to == QueueState::init) || (from == QueueState::init && to == QueueState::rtr) ||
         (from == QueueState::rtr && to == QueueState::rts);
}

}  // namespace

int Session::change_qp(const ib_uverbs_modify_qp& core, std::uint32_t rate_kbps) {
  const auto found = nic_.qps.find(core.qp_handle);
  if (found == nic_.qps.end()) return EINVAL;
  QueuePair& qp = *found->second;
  if (qp.rss) return EOPNOTSUPP;
  const std::uint32_t mask = core.attr_mask;
  constexpr std::uint32_t kKnown = IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_PORT | IBV_QP_RATE_LIMIT;
  if ((mask & ~kKnown) != 0) return EINVAL;
  if ((mask & IBV_QP_CUR_STATE) != 0 && core.cur_qp_state != static_cast<std::uint8_t>(qp.state)) return EINVAL;
  std::optional<QueueState> state;
  if ((mask & IBV_QP_STATE) != 0) {
    if (core.qp_state > static_cast<std::uint8_t>(QueueState::err)) return EINVAL;
    state = static_cast<QueueState>(core.qp_state);
    if (!allowed(qp.state, *state)) return EINVAL;
    if (qp.state == QueueState::reset && *state == QueueState::init && (mask & IBV_QP_PORT) == 0) return EINVAL;
  }
  if ((mask & IBV_QP_RATE_LIMIT) != 0) {
    const bool sending = state.value_or(qp.state) == QueueState::rts;
    if ((board_.features & Feature::kPacing) == 0 || !qp.send || !sending || rate_kbps > kMaxKbps) return EINVAL;
    qp.rate_kbps = rate_kbps;
    qp.send->set_rate(rate_kbps);
  }
  if ((mask & IBV_QP_PORT) != 0) {
    if (core.port_num == 0 || core.port_num > board_.ports) return EINVAL;
    qp.port = core.port_num;
  }
  if (state) nic_.set_state(qp, *state);
  return 0;
}

int Session::modify_qp(Command& command) {
  ib_uverbs_modify_qp core{};
  return command.read(core) ? change_qp(core, 0) : EINVAL;
}

int Session::modify_qp_ex(Command& command) {
  ib_uverbs_ex_modify_qp core{};
  if (!command.read(core)) return EINVAL;
  if (const int error = change_qp(core.base, core.rate_limit); error != 0) return error;
  command.respond(ib_uverbs_ex_modify_qp_resp{0, sizeof(ib_uverbs_ex_modify_qp_resp)});
  mlx5_ib_modify_qp_resp driver{};
  driver.response_length = sizeof driver;
  command.respond_driver(driver);
  return 0;
}

int Session::query_qp(Command& command) {
  ib_uverbs_query_qp core{};
  if (!command.read(core)) return EINVAL;
  const auto found = nic_.qps.find(core.qp_handle);
  if (found == nic_.qps.end()) return EINVAL;
  const QueuePair& qp = *found->second;
  const Limits& limits = limits_[core.qp_handle];
  ib_uverbs_query_qp_resp response{};
  response.max_send_wr = limits.send_wr;
  response.max_recv_wr = limits.receive_wr;
  response.max_send_sge = limits.send_sge;
  response.max_recv_sge = limits.receive_sge;
  response.max_inline_data = limits.inline_data;
  response.qp_state = response.cur_qp_state = static_cast<std::uint8_t>(qp.state);
  response.port_num = qp.port;
  response.sq_sig_all = limits.signal_all;
  command.respond(response);
  return 0;
}

int Session::destroy_qp(Command& command) {
  ib_uverbs_destroy_qp core{};
  if (!command.read(core)) return EINVAL;
  const auto found = nic_.qps.find(core.qp_handle);
  if (found == nic_.qps.end()) return EINVAL;
  for (const auto& [flow, queue] : flow_queue_) {
    if (queue == core.qp_handle) return EBUSY;
  }
  const QueuePair& qp = *found->second;
  if (qp.send) --cq_users_[qp.send_cq];
  if (qp.receive) --cq_users_[qp.receive_cq];
  if (qp.doorbell != nullptr) qp.doorbell->leave();
  if (qp.rss) --table_users_[qp.rss->table];
  --domains_[qp.domain];
  fabric_.release_queue(qp.number);
  command.respond(ib_uverbs_destroy_qp_resp{forget_async(qp.cookie)});
  limits_.erase(core.qp_handle);
  nic_.write_completions();
  nic_.qps.erase(found);
  return 0;
}

}  // namespace softnic
