#include "tests/softnic/client/raw_queue.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "tests/softnic/client/world.h"

namespace softnic_client {

template <class T>
Handle<T> owned(T* made, const char* what) {
  if (made == nullptr) throw std::system_error(errno, std::generic_category(), what);
  return Handle<T>(made);
}
template Handle<ibv_pd> owned(ibv_pd*, const char*);
template Handle<ibv_mr> owned(ibv_mr*, const char*);
template Handle<ibv_comp_channel> owned(ibv_comp_channel*, const char*);
template Handle<ibv_cq> owned(ibv_cq*, const char*);
template Handle<ibv_qp> owned(ibv_qp*, const char*);
template Handle<ibv_wq> owned(ibv_wq*, const char*);
template Handle<ibv_rwq_ind_table> owned(ibv_rwq_ind_table*, const char*);
template Handle<ibv_flow> owned(ibv_flow*, const char*);

Handle<ibv_context> open_device() {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  errno = ENODEV;
  ibv_context* context = count == 1 ? ibv_open_device(list[0]) : nullptr;
  const int error = errno;
  if (list != nullptr) ibv_free_device_list(list);
  errno = error;
  return owned(context, "ibv_open_device");
}

std::optional<ibv_event_type> next_event(ibv_context* context, int timeout_ms) {
  pollfd ready{context->async_fd, POLLIN, 0};
  ibv_async_event event{};
  if (::poll(&ready, 1, timeout_ms) != 1 || ibv_get_async_event(context, &event) != 0) return std::nullopt;
  ibv_ack_async_event(&event);
  return event.event_type;
}

bool event_comes(ibv_context* context, ibv_event_type type) {
  while (const auto event = next_event(context, kPatienceMs)) {
    if (*event == type) return true;
  }
  return false;
}

Rule::Rule(ibv_flow_attr_type type) {
  attr_.type = type;
  attr_.port = 1;
}

Rule& Rule::append(const void* spec, std::size_t bytes) {
  const auto* from = static_cast<const std::uint8_t*>(spec);
  specs_.insert(specs_.end(), from, from + bytes);
  ++attr_.num_of_specs;
  return *this;
}

Rule& Rule::priority(std::uint16_t value) {
  attr_.priority = value;
  return *this;
}

Rule& Rule::dont_trap() {
  attr_.flags |= IBV_FLOW_ATTR_FLAGS_DONT_TRAP;
  return *this;
}

Rule& Rule::to(const Mac& mac_address) {
  ibv_flow_spec_eth spec{};
  std::copy(mac_address.begin(), mac_address.end(), spec.val.dst_mac);
  std::fill(std::begin(spec.mask.dst_mac), std::end(spec.mask.dst_mac), 0xff);
  return add(spec, IBV_FLOW_SPEC_ETH);
}

Rule& Rule::to(const Mac& mac_address, std::uint16_t vlan) {
  ibv_flow_spec_eth spec{};
  std::copy(mac_address.begin(), mac_address.end(), spec.val.dst_mac);
  std::fill(std::begin(spec.mask.dst_mac), std::end(spec.mask.dst_mac), 0xff);
  spec.val.vlan_tag = htobe16(vlan);
  spec.mask.vlan_tag = htobe16(0xfff);
  return add(spec, IBV_FLOW_SPEC_ETH);
}

Rule& Rule::tag(std::uint32_t value) {
  ibv_flow_spec_action_tag spec{};
  spec.tag_id = value;
  return add(spec, IBV_FLOW_SPEC_ACTION_TAG);
}

Rule& Rule::drop() { return add(ibv_flow_spec_action_drop{}, IBV_FLOW_SPEC_ACTION_DROP); }

Handle<ibv_flow> Rule::create(ibv_qp* qp) {
  attr_.size = static_cast<std::uint16_t>(sizeof attr_ + specs_.size());
  std::vector<std::uint64_t> text((attr_.size + 7U) / 8);  // aligned as ibv_flow_attr is
  std::memcpy(text.data(), &attr_, sizeof attr_);
  std::copy(specs_.begin(), specs_.end(), reinterpret_cast<std::uint8_t*>(text.data()) + sizeof attr_);
  return Handle<ibv_flow>(ibv_create_flow(qp, reinterpret_cast<ibv_flow_attr*>(text.data())));
}

namespace {

Handle<ibv_cq> receive_queue(ibv_context* context, const QueueOptions& options, ibv_comp_channel* channel,
                             ibv_cq_ex*& extended) {
  if (options.completion_fields == 0) {
    return owned(ibv_create_cq(context, options.receive_entries, nullptr, channel, 0), "ibv_create_cq");
  }
  ibv_cq_init_attr_ex attr{};
  attr.cqe = static_cast<std::uint32_t>(options.receive_entries);
  attr.channel = channel;
  attr.wc_flags = options.completion_fields;
  extended = ibv_create_cq_ex(context, &attr);
  return owned(extended == nullptr ? nullptr : ibv_cq_ex_to_cq(extended), "ibv_create_cq_ex");
}

}  // namespace

RawQueue::RawQueue(ibv_context* context, const QueueOptions& options)
    : pd(owned(ibv_alloc_pd(context), "ibv_alloc_pd")),
      memory(std::size_t{options.buffer_bytes} * (options.receive_requests + options.send_requests)),
      mr(owned(ibv_reg_mr(pd.get(), memory.data(), memory.size(), options.access), "ibv_reg_mr")),
      options_(options) {
  if (options.channel) channel = owned(ibv_create_comp_channel(context), "ibv_create_comp_channel");
  send_cq = owned(ibv_create_cq(context, options.send_entries, nullptr, nullptr, 0), "ibv_create_cq");
  receive_cq = receive_queue(context, options, channel.get(), extended);
  ibv_qp_init_attr_ex attr{};
  attr.send_cq = send_cq.get();
  attr.recv_cq = receive_cq.get();
  attr.cap = {options.send_requests, options.receive_requests, 2, 2, 0};
  attr.qp_type = IBV_QPT_RAW_PACKET;
  attr.comp_mask = IBV_QP_INIT_ATTR_PD;
  attr.pd = pd.get();
  if (options.create_flags != 0) attr.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
  attr.create_flags = options.create_flags;
  if (options.send_operations != 0) attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  attr.send_ops_flags = options.send_operations;
  if (options.tso_header != 0) attr.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
  attr.max_tso_header = options.tso_header;
  qp = owned(ibv_create_qp_ex(context, &attr), "ibv_create_qp_ex");
}

int RawQueue::modify(ibv_qp_state state) {
  ibv_qp_attr attr{};
  attr.qp_state = state;
  attr.port_num = 1;
  return ibv_modify_qp(qp.get(), &attr, state == IBV_QPS_INIT ? IBV_QP_STATE | IBV_QP_PORT : IBV_QP_STATE);
}

ibv_qp_state RawQueue::state() const {
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  return ibv_query_qp(qp.get(), &attr, IBV_QP_STATE, &init) == 0 ? attr.qp_state : IBV_QPS_UNKNOWN;
}

int RawQueue::start() {
  if (const int error = modify(IBV_QPS_INIT); error != 0) return error;
  for (std::uint32_t slot = 0; slot < options_.receive_requests; ++slot) {
    if (const int error = post_buffer(slot); error != 0) return error;
  }
  if (const int error = modify(IBV_QPS_RTR); error != 0) return error;
  return modify(IBV_QPS_RTS);
}

void RawQueue::take(Rule& rule) { flows.push_back(owned(rule.create(qp.get()).release(), "ibv_create_flow")); }

int RawQueue::post_buffer(std::uint32_t slot) {
  ibv_sge part{reinterpret_cast<std::uintptr_t>(&memory[std::size_t{slot} * options_.buffer_bytes]),
               options_.buffer_bytes, mr->lkey};
  ibv_recv_wr request{slot, nullptr, &part, 1};
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp.get(), &request, &bad);
}

std::uint8_t* RawQueue::stage(const Frame& frame) {
  const std::uint32_t slot = options_.receive_requests + staged_++ % options_.send_requests;
  std::uint8_t* at = &memory[std::size_t{slot} * options_.buffer_bytes];
  std::copy(frame.begin(), frame.end(), at);
  return at;
}

int RawQueue::post(const Frame& frame, unsigned flags) {
  ibv_sge part{reinterpret_cast<std::uintptr_t>(stage(frame)), static_cast<std::uint32_t>(frame.size()), mr->lkey};
  ibv_send_wr request{};
  request.sg_list = &part;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = flags;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp.get(), &request, &bad);
}

int RawQueue::post_segment(std::uint64_t address, std::uint32_t bytes, std::uint32_t key) {
  ibv_sge part{address, bytes, key};
  ibv_send_wr request{};
  request.sg_list = &part;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp.get(), &request, &bad);
}

std::optional<ibv_wc_status> RawQueue::completed() {
  ibv_wc done{};
  const bool came = eventually([&] { return ibv_poll_cq(send_cq.get(), 1, &done) != 0; });
  return came ? std::optional(done.status) : std::nullopt;
}

std::optional<ibv_wc_status> RawQueue::send(const Frame& frame, unsigned flags) {
  if (post(frame, flags | IBV_SEND_SIGNALED) != 0) return std::nullopt;
  return completed();
}

Received RawQueue::take_over(std::uint64_t slot, ibv_wc_status status, unsigned flags, std::uint32_t bytes) {
  Received got{status, flags, 0, 0, {}};
  if (status == IBV_WC_SUCCESS) {
    const std::uint8_t* at = &memory[slot * options_.buffer_bytes];
    got.frame.assign(at, at + bytes);
  }
  return got;
}

std::optional<Received> RawQueue::poll() {
  if (extended == nullptr) {
    ibv_wc done{};
    if (ibv_poll_cq(receive_cq.get(), 1, &done) != 1) return std::nullopt;
    Received got = take_over(done.wr_id, done.status, done.wc_flags, done.byte_len);
    if (got.status == IBV_WC_SUCCESS) post_buffer(static_cast<std::uint32_t>(done.wr_id));
    return got;
  }
  ibv_poll_cq_attr attr{};
  if (ibv_start_poll(extended, &attr) != 0) return std::nullopt;
  const std::uint64_t slot = extended->wr_id;
  const bool good = extended->status == IBV_WC_SUCCESS;
  Received got = take_over(slot, extended->status, good ? ibv_wc_read_wc_flags(extended) : 0,
                           good ? ibv_wc_read_byte_len(extended) : 0);
  if (good && (options_.completion_fields & IBV_WC_EX_WITH_CVLAN) != 0) got.vlan = ibv_wc_read_cvlan(extended);
  if (good && (options_.completion_fields & IBV_WC_EX_WITH_FLOW_TAG) != 0) got.tag = ibv_wc_read_flow_tag(extended);
  ibv_end_poll(extended);
  if (good) post_buffer(static_cast<std::uint32_t>(slot));
  return got;
}

std::optional<Received> RawQueue::receive(int timeout_ms) {
  std::optional<Received> got;
  static_cast<void>(eventually(
      [&] {
        got = poll();
        return got.has_value();
      },
      timeout_ms));
  return got;
}

int RawQueue::receive_fill() {
  const auto got = receive(kPatienceMs);
  return got && got->status == IBV_WC_SUCCESS ? got->frame.back() : -1;
}

bool RawQueue::quiet() { return !receive(kQuietMs); }

}  // namespace softnic_client
