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
    pieces_[i] = {reinterpret_cast<std::uint64_t>(buffer(i)), shape.stride, region_->lkey};
    requests_[i] = {std::uint64_t{tag} << 32 | i, nullptr, &pieces_[i], 1};
  }
  bring_up(device, qp_.get());
  std::vector<std::uint32_t> all(kFrames);
  std::iota(all.begin(), all.end(), 0U);
  post(all);
}

void ReceivePair::post(std::span<const std::uint32_t> buffers) noexcept {
  if (buffers.empty() || !open_.load(std::memory_order_acquire)) return;
  for (std::size_t i = 0; i + 1 < buffers.size(); ++i) requests_[buffers[i]].next = &requests_[buffers[i + 1]];
  requests_[buffers.back()].next = nullptr;
  ibv_recv_wr* refused = nullptr;
  // There is a request for each buffer and the queue holds as many: it cannot be full. A pair in error takes them too.
  static_cast<void>(ibv_post_recv(qp_.get(), &requests_[buffers.front()], &refused));
}

void ReceivePair::close() noexcept {
  rules_.clear();
  open_.store(false, std::memory_order_release);
}

void ReceivePair::add_rule(const Device& device, const FlowRule& rule) {
  rules_[rule] = create_flow(device, qp_.get(), rule, shape_.shared);
}

}  // namespace vswitch::verbs
