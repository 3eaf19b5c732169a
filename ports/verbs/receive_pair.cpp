#include "ports/verbs/receive_pair.h"

#include <numeric>

#include "ports/verbs/queue_pair.h"
#include "vswitch/base/error.h"

namespace vswitch::verbs {

ReceivePair::ReceivePair(const Device& device, ibv_cq* cq, std::uint32_t tag, const Shape& shape)
    : tag_(tag),
      shape_(shape),
      memory_(Mapping::anonymous(std::size_t{kFrames} * shape.stride)),
      region_(device.register_memory(memory_.data(), memory_.size(), true)),
      pieces_(kFrames),
      requests_(kFrames) {
  QueuePairRequest request;
  request.send_cq = request.receive_cq = cq;
  request.receive_requests = kFrames;
  request.vlan_strip = shape.vlan_strip;
  qp_ = create_queue_pair(device, request);
  for (std::uint32_t i = 0; i < kFrames; ++i) {
    pieces_[i] = {reinterpret_cast<std::uint64_t>(memory_.data() + std::size_t{i} * shape.stride), shape.stride,
                  region_->lkey};
    requests_[i] = {0, nullptr, &pieces_[i], 1};
  }
  bring_up(device, qp_.get());
  std::vector<std::uint32_t> all(kFrames);
  std::iota(all.begin(), all.end(), 0U);
  post(all);
}

ReceivePair::~ReceivePair() {
  if (ReceiveSlots* slots = slots_.load(); slots != nullptr) {
    rules_.clear();  // a queue pair with rules stays
    qp_.reset();
    slots->end_use();
  }
}

void ReceivePair::offer(ReceiveSlots& slots) noexcept {
  slots.begin_use(this);
  slots_.store(&slots, std::memory_order_release);
}

std::uint32_t ReceivePair::successor(std::uint32_t buffer, ReceiveSlots* slots) noexcept {
  const bool own = buffer < kFrames;
  if (!own) {
    if (!slots->kept(buffer - kFrames).load(std::memory_order_relaxed)) return buffer;
    slots->leave(buffer - kFrames);
  }
  if (const std::uint32_t slot = slots->take(); slot != slots->count()) {
    if (own) spare_[spares_++] = buffer;
    return kFrames + slot;
  }
  // kFrames buffers are in use, one of them a slot: so there is a spare one.
  return own ? buffer : spare_[--spares_];
}

ibv_recv_wr& ReceivePair::request(std::uint32_t buffer, ReceiveSlots* slots) noexcept {
  ibv_recv_wr& request = buffer < kFrames ? requests_[buffer] : slots->request(buffer - kFrames);
  request.wr_id = std::uint64_t{tag_} << 32 | buffer;
  return request;
}

void ReceivePair::post(std::span<const std::uint32_t> buffers) noexcept {
  if (buffers.empty() || closed()) return;
  ReceiveSlots* const slots = slots_.load(std::memory_order_acquire);
  ibv_recv_wr* first = nullptr;
  ibv_recv_wr** link = &first;
  for (const std::uint32_t buffer : buffers) {
    ibv_recv_wr& next = request(slots != nullptr ? successor(buffer, slots) : buffer, slots);
    *link = &next;
    link = &next.next;
  }
  *link = nullptr;
  ibv_recv_wr* refused = nullptr;
  // The queue holds as many as there are: it cannot be full. A pair in error takes them too.
  static_cast<void>(ibv_post_recv(qp_.get(), first, &refused));
  waiting_.store(waiting_.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(buffers.size()),
                 std::memory_order_release);
}

void ReceivePair::close() noexcept {
  rules_.clear();
  open_.store(false, std::memory_order_release);
}

void ReceivePair::flush() noexcept {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  static_cast<void>(ibv_modify_qp(qp_.get(), &attributes, IBV_QP_STATE));  // perhaps it is there already
}

void ReceivePair::add_rule(const Device& device, const FlowRule& rule) {
  rules_[rule] = create_flow(device, qp_.get(), rule, shape_.shared);
}

}  // namespace vswitch::verbs
