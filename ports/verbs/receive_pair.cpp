#include "ports/verbs/receive_pair.h"

#include <numeric>

#include "ports/verbs/queue_pair.h"
#include "vswitch/base/error.h"

namespace vswitch::verbs {

ReceivePair::ReceivePair(const Device& device, ibv_cq* cq, std::uint32_t tag, const Shape& shape)
    : tag_(tag),
      shape_(shape),
      memory_(Mapping::anonymous(std::size_t{kFrames} * shape.stride)),
      region_(device.register_memory(memory_.data(), memory_.size(), true)) {
  QueuePairRequest request;
  request.send_cq = request.receive_cq = cq;
  request.receive_requests = kFrames;
  request.vlan_strip = shape.vlan_strip;
  qp_ = create_queue_pair(device, request);
  bring_up(device, qp_.get());
  ReceiveChain chain;
  std::array<std::uint32_t, kBurstFrames> some;
  for (std::uint32_t i = 0; i < kFrames; i += kBurstFrames) {
    std::iota(some.begin(), some.end(), i);
    post(some, chain);
  }
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

std::uint32_t ReceivePair::successor(std::uint32_t buffer, ReceiveSlots& slots) noexcept {
  const bool own = buffer < kFrames;
  if (!own) {
    if (!slots.kept(buffer - kFrames).load(std::memory_order_relaxed)) return buffer;
    slots.leave(buffer - kFrames);
  }
  if (const std::uint32_t slot = slots.take(); slot != slots.count()) {
    if (own) spare_[spares_++] = buffer;
    return kFrames + slot;
  }
  // kFrames buffers are in use, one of them a slot: so there is a spare one.
  return own ? buffer : spare_[--spares_];
}

void ReceivePair::post(std::span<const std::uint32_t> buffers, ReceiveChain& chain) noexcept {
  ReceiveSlots* const slots = slots_.load(std::memory_order_acquire);
  const std::uint64_t tag = std::uint64_t{tag_} << 32;
  ibv_sge piece{0, shape_.stride, region_->lkey};
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const std::uint32_t buffer = slots == nullptr ? buffers[i] : successor(buffers[i], *slots);
    const bool own = buffer < kFrames;
    piece.addr = reinterpret_cast<std::uint64_t>(own ? own_buffer(buffer) : slots->buffer(buffer - kFrames));
    piece.lkey = own ? region_->lkey : slots->key();
    chain.set(i, tag | buffer, piece);
  }
  chain.post(qp_.get(), buffers.size());
}

void ReceivePair::give_back(std::span<const std::uint32_t> buffers, ReceiveChain& chain) noexcept {
  if (closed()) {
    completed(buffers.size());
  } else {
    post(buffers, chain);
  }
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
