#include "tests/softnic/kernel/session.h"

#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/mlx5-abi.h>
#include <unistd.h>

#include <cerrno>

#include "tests/softnic/core/pinning.h"

namespace softnic {
namespace {

constexpr std::uint32_t kMaxQueues = 16384;
constexpr std::uint32_t kMaxRequests = 32768;
constexpr std::uint32_t kMaxTso = 262144;
constexpr std::uint32_t kMaxKbps = 100'000'000;
constexpr std::uint32_t kRawPacket = 1U << IBV_QPT_RAW_PACKET;
constexpr std::uint32_t kCacheLine = 64;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint32_t kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                                  IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED |
                                  IBV_ACCESS_HUGETLB;

void fill(ib_uverbs_query_device_resp& out, const Board& board) {
  out.fw_ver = std::uint64_t{16} << 32 | 1;
  out.node_guid = out.sys_image_guid = __builtin_bswap64(0x0002c903000a0b0c);
  out.max_mr_size = ~std::uint64_t{0};
  out.page_size_cap = 0xfffff000;
  out.vendor_id = 0x02c9;
  out.vendor_part_id = 4119;
  out.max_qp = out.max_cq = kMaxQueues;
  out.max_qp_wr = kMaxRequests;
  out.device_cap_flags = IBV_DEVICE_PORT_ACTIVE_EVENT | IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_RESIZE_MAX_WR;
  if ((board.features & Feature::kChecksum) != 0) out.device_cap_flags |= IBV_DEVICE_RAW_IP_CSUM;
  if ((board.features & Feature::kFlow) != 0) out.device_cap_flags |= 1U << 29;  // IBV_DEVICE_MANAGED_FLOW_STEERING
  out.max_sge = 30;
  out.max_cqe = board.max_cqe;
  out.max_mr = 1U << 24;
  out.max_pd = 1U << 24;
  out.max_raw_ethy_qp = (board.features & Feature::kRawPacket) != 0 ? kMaxQueues : 0;
  out.max_pkeys = 1;
  out.phys_port_cnt = static_cast<std::uint8_t>(board.ports);
}

}  // namespace

Session::Session(Fabric& fabric, Board& board)
    : fabric_(fabric),
      board_(board),
      async_(sizeof(ib_uverbs_async_event_desc)),
      nic_(fabric, board, [this](std::uint32_t type, std::uint64_t element) { async_event(type, element); }) {}

Session::~Session() {
  for (const auto& [number, qp] : nic_.qps) fabric_.release_queue(number);
  if (!opened_) ::close(async_.read_fd());  // else the library does
}

Session::Handler Session::find(const Command& command) noexcept {
  if (command.extended()) {
    switch (command.code()) {
      case IB_USER_VERBS_EX_CMD_QUERY_DEVICE:
        return &Session::query_device_ex;
      case IB_USER_VERBS_EX_CMD_CREATE_CQ:
        return &Session::create_cq_ex;
      case IB_USER_VERBS_EX_CMD_MODIFY_CQ:
        return &Session::modify_cq;
      case IB_USER_VERBS_EX_CMD_CREATE_QP:
        return &Session::create_qp_ex;
      case IB_USER_VERBS_EX_CMD_MODIFY_QP:
        return &Session::modify_qp_ex;
      case IB_USER_VERBS_EX_CMD_CREATE_FLOW:
        return &Session::create_flow;
      case IB_USER_VERBS_EX_CMD_DESTROY_FLOW:
        return &Session::destroy_flow;
      case IB_USER_VERBS_EX_CMD_CREATE_WQ:
        return &Session::create_wq;
      case IB_USER_VERBS_EX_CMD_MODIFY_WQ:
        return &Session::modify_wq;
      case IB_USER_VERBS_EX_CMD_DESTROY_WQ:
        return &Session::destroy_wq;
      case IB_USER_VERBS_EX_CMD_CREATE_RWQ_IND_TBL:
        return &Session::create_rwq_table;
      case IB_USER_VERBS_EX_CMD_DESTROY_RWQ_IND_TBL:
        return &Session::destroy_rwq_table;
      default:
        return nullptr;
    }
  }
  switch (command.code()) {
    case IB_USER_VERBS_CMD_GET_CONTEXT:
      return &Session::get_context;
    case IB_USER_VERBS_CMD_QUERY_DEVICE:
      return &Session::query_device;
    case IB_USER_VERBS_CMD_QUERY_PORT:
      return &Session::query_port;
    case IB_USER_VERBS_CMD_ALLOC_PD:
      return &Session::alloc_pd;
    case IB_USER_VERBS_CMD_DEALLOC_PD:
      return &Session::dealloc_pd;
    case IB_USER_VERBS_CMD_REG_MR:
      return &Session::reg_mr;
    case IB_USER_VERBS_CMD_DEREG_MR:
      return &Session::dereg_mr;
    case IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL:
      return &Session::create_comp_channel;
    case IB_USER_VERBS_CMD_CREATE_CQ:
      return &Session::create_cq;
    case IB_USER_VERBS_CMD_RESIZE_CQ:
      return &Session::resize_cq;
    case IB_USER_VERBS_CMD_DESTROY_CQ:
      return &Session::destroy_cq;
    case IB_USER_VERBS_CMD_CREATE_QP:
      return &Session::create_qp;
    case IB_USER_VERBS_CMD_QUERY_QP:
      return &Session::query_qp;
    case IB_USER_VERBS_CMD_MODIFY_QP:
      return &Session::modify_qp;
    case IB_USER_VERBS_CMD_DESTROY_QP:
      return &Session::destroy_qp;
    default:
      return nullptr;
  }
}

int Session::injected_failure(const Command& command) noexcept {
  const std::uint32_t code = command.code() | (command.extended() ? IB_USER_VERBS_CMD_FLAG_EXTENDED : 0);
  if (board_.fail_command.load(std::memory_order_acquire) != code + 1) return 0;
  std::uint32_t times = board_.fail_times.load();
  while (times != 0 && !board_.fail_times.compare_exchange_weak(times, times - 1)) {
  }
  if (times == 0) return 0;
  board_.count(Counter::faults);
  return static_cast<int>(board_.fail_errno.load());
}

int Session::execute(std::span<const std::uint8_t> written) {
  const std::lock_guard one(commands_);
  auto command = Command::parse(written);
  if (!command) return EINVAL;
  const Handler handler = find(*command);
  if (handler == nullptr) return EOPNOTSUPP;
  if (!opened_ && handler != &Session::get_context) return EINVAL;
  if (const int error = injected_failure(*command); error != 0) return error;
  const auto nic = nic_.lock();
  return (this->*handler)(*command);
}

Session::Page Session::page(std::uint64_t offset) const noexcept {
  const std::uint64_t number = offset / kPage;
  const std::uint64_t kind = number >> 8 & 0xff;
  const bool register_page =
      kind == MLX5_IB_MMAP_REGULAR_PAGE || kind == MLX5_IB_MMAP_WC_PAGE || kind == MLX5_IB_MMAP_NC_PAGE;
  const std::uint64_t index = number & 0xff;
  if (!register_page || index >= Nic::kUars) return {};
  return {nic_.uar_fd(), static_cast<off_t>(index * Nic::kUarBytes)};
}

void Session::async_event(std::uint32_t type, std::uint64_t element) {
  const ib_uverbs_async_event_desc record{element, type, 0};
  const std::lock_guard held(async_mutex_);
  if (::write(async_.write_fd(), &record, sizeof record) == sizeof record) ++async_sent_[element];
}

std::uint32_t Session::forget_async(std::uint64_t element) {
  const std::lock_guard held(async_mutex_);
  const auto sent = async_sent_.find(element);
  if (sent == async_sent_.end()) return 0;
  const std::uint32_t read = sent->second - async_.forget(element);
  async_sent_.erase(sent);
  return read;
}

int Session::get_context(Command& command) {
  ib_uverbs_get_context core{};
  mlx5_ib_alloc_ucontext_req_v2 request{};
  if (opened_ || !command.read(core)) return EINVAL;
  command.read_driver(request);
  if ((request.flags & MLX5_IB_ALLOC_UCTX_DEVX) != 0) return EINVAL;  // no firmware to talk to; the library asks again
  ib_uverbs_get_context_resp response{};
  response.async_fd = static_cast<std::uint32_t>(async_.read_fd());
  response.num_comp_vectors = 2;
  command.respond(response);
  mlx5_ib_alloc_ucontext_resp driver{};
  driver.qp_tab_size = kMaxQueues;
  driver.bf_reg_size = Nic::kBlueFlameBytes;
  driver.tot_bfregs = Nic::kRegisters;
  driver.cache_line_size = kCacheLine;
  driver.max_sq_desc_sz = 1024;
  driver.max_rq_desc_sz = 512;
  driver.max_send_wqebb = kMaxRequests;
  driver.max_recv_wr = kMaxRequests;
  driver.max_srq_recv_wr = kMaxRequests;
  driver.num_ports = static_cast<std::uint16_t>(board_.ports);
  driver.response_length = sizeof driver;
  driver.cqe_version = request.max_cqe_version >= 1 ? 1 : 0;
  driver.cmds_supp_uhw = MLX5_USER_CMDS_SUPP_UHW_QUERY_DEVICE;
  driver.eth_min_inline = board_.min_inline == 0 ? MLX5_USER_INLINE_MODE_NONE : MLX5_USER_INLINE_MODE_L2;
  driver.log_uar_size = 12;
  driver.num_uars_per_page = 1;
  command.respond_driver(driver);
  opened_ = true;
  return 0;
}

int Session::query_device(Command& command) {
  ib_uverbs_get_context core{};
  if (!command.read(core)) return EINVAL;
  ib_uverbs_query_device_resp response{};
  fill(response, board_);
  command.respond(response);
  return 0;
}

int Session::query_device_ex(Command& command) {
  ib_uverbs_ex_query_device core{};
  if (!command.read(core) || core.comp_mask != 0) return EINVAL;
  ib_uverbs_ex_query_device_resp response{};
  fill(response.base, board_);
  response.response_length = static_cast<std::uint32_t>(std::min(sizeof response, command.room()));
  response.timestamp_mask = ~std::uint64_t{0};
  response.hca_core_clock = 1'000'000;
  response.device_cap_flags_ex = response.base.device_cap_flags;
  const bool rss = (board_.features & Feature::kRss) != 0;
  if (rss) {
    response.rss_caps.supported_qpts = kRawPacket;
    response.rss_caps.max_rwq_indirection_tables = 1U << 20;
    response.rss_caps.max_rwq_indirection_table_size = 2048;
    response.max_wq_type_rq = kMaxQueues;
  }
  if ((board_.features & Feature::kVlanStrip) != 0) response.raw_packet_caps |= IBV_RAW_PACKET_CAP_CVLAN_STRIPPING;
  if ((board_.features & Feature::kChecksum) != 0) response.raw_packet_caps |= IBV_RAW_PACKET_CAP_IP_CSUM;
  response.cq_moderation_caps.max_cq_moderation_count = 0xffff;
  response.cq_moderation_caps.max_cq_moderation_period = 0xfff;
  command.respond(response);
  mlx5_ib_query_device_resp driver{};
  driver.response_length = static_cast<std::uint32_t>(std::min(sizeof driver, command.driver_room()));
  if ((board_.features & Feature::kTso) != 0) driver.tso_caps = {kMaxTso, kRawPacket};
  if (rss) {
    driver.rss_caps.rx_hash_fields_mask = 0xff;
    driver.rss_caps.rx_hash_function = MLX5_RX_HASH_FUNC_TOEPLITZ;
  }
  if ((board_.features & Feature::kPacing) != 0) {
    driver.packet_pacing_caps.qp_rate_limit_min = 1;
    driver.packet_pacing_caps.qp_rate_limit_max = kMaxKbps;
    driver.packet_pacing_caps.supported_qpts = kRawPacket;
  }
  command.respond_driver(driver);
  return 0;
}

int Session::query_port(Command& command) {
  ib_uverbs_query_port core{};
  if (!command.read(core) || core.port_num == 0 || core.port_num > board_.ports) return EINVAL;
  const std::size_t port = core.port_num - 1U;
  const bool up = board_.carrier[port] != 0 && board_.link_down[port] == 0;
  ib_uverbs_query_port_resp response{};
  response.port_cap_flags = 0x04010000;  // as an mlx5 Ethernet port says: IP based GIDs, RoCE
  response.max_msg_sz = 0x40000000;
  response.gid_tbl_len = 1;
  response.pkey_tbl_len = 1;
  response.state = up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  response.max_mtu = IBV_MTU_4096;
  response.active_mtu = board_.mtu >= 4096 + 64 ? IBV_MTU_4096 : IBV_MTU_1024;
  response.max_vl_num = 1;
  response.active_width = 2;   // 4 lanes
  response.active_speed = 32;  // of 25 Gbit/s
  response.phys_state = up ? 5 : 3;
  response.link_layer = IBV_LINK_LAYER_ETHERNET;
  command.respond(response);
  return 0;
}

int Session::alloc_pd(Command& command) {
  ib_uverbs_alloc_pd core{};
  if (!command.read(core)) return EINVAL;
  const std::uint32_t handle = next_handle_++;
  domains_[handle] = 0;
  command.respond(ib_uverbs_alloc_pd_resp{handle});
  command.respond_driver(mlx5_ib_alloc_pd_resp{handle});
  return 0;
}

int Session::dealloc_pd(Command& command) {
  ib_uverbs_dealloc_pd core{};
  if (!command.read(core)) return EINVAL;
  const auto found = domains_.find(core.pd_handle);
  if (found == domains_.end()) return EINVAL;
  if (found->second != 0) return EBUSY;
  domains_.erase(found);
  return 0;
}

int Session::reg_mr(Command& command) {
  ib_uverbs_reg_mr core{};
  if (!command.read(core)) return EINVAL;
  const auto domain = domains_.find(core.pd_handle);
  const std::uint32_t optional = IBV_ACCESS_OPTIONAL_RANGE;
  const bool remote_needs_local = (core.access_flags & (IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_REMOTE_WRITE)) != 0;
  if (domain == domains_.end() || (core.access_flags & ~(kAccess | optional)) != 0 || core.length == 0 ||
      (remote_needs_local && (core.access_flags & IBV_ACCESS_LOCAL_WRITE) == 0) ||
      (core.start ^ core.hca_va) % kPage != 0) {
    return EINVAL;
  }
  const bool to_write = (core.access_flags & (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND)) != 0;
  const Pinnable memory = can_pin(core.start, core.length, to_write);
  if (!memory.allowed) return EFAULT;
  if (!may_lock_memory(pinned_bytes_ + core.length)) return ENOMEM;
  const std::uint64_t iova = (core.access_flags & IBV_ACCESS_ZERO_BASED) != 0 ? core.start % kPage : core.hca_va;
  const std::uint32_t key =
      nic_.memory.add({core.start, iova, core.length, core.pd_handle, core.access_flags, memory.shared});
  regions_[key] = core.length;
  pinned_bytes_ += core.length;
  ++domain->second;
  command.respond(ib_uverbs_reg_mr_resp{key, key, key});
  return 0;
}

int Session::dereg_mr(Command& command) {
  ib_uverbs_dereg_mr core{};
  if (!command.read(core)) return EINVAL;
  const auto found = regions_.find(core.mr_handle);
  if (found == regions_.end()) return EINVAL;
  --domains_[nic_.memory.domain(core.mr_handle)];
  if (!nic_.memory.remove(core.mr_handle)) return EINVAL;
  pinned_bytes_ -= found->second;
  regions_.erase(found);
  return 0;
}

int Session::create_comp_channel(Command& command) {
  ib_uverbs_create_comp_channel core{};
  if (!command.read(core)) return EINVAL;
  auto pipe = std::make_unique<EventPipe>(sizeof(ib_uverbs_comp_event_desc));
  const int fd = pipe->read_fd();
  channels_[fd] = std::move(pipe);  // replaces one whose fd the application closed
  command.respond(ib_uverbs_create_comp_channel_resp{static_cast<std::uint32_t>(fd)});
  return 0;
}

}  // namespace softnic
