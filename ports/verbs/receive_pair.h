#pragma once
#include <infiniband/verbs.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "ports/verbs/device.h"
#include "ports/verbs/flow.h"
#include "ports/verbs/handle.h"
#include "ports/verbs/receive_slots.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/frame.h"

namespace vswitch::verbs {

/// Bytes of a receive buffer for frames of a netdev with this MTU: the header copy of the shortest frame reads
/// kHeaderBytes, and a tag.
[[nodiscard]] inline std::uint32_t stride_for(std::uint32_t mtu) noexcept {
  constexpr std::uint32_t kStep = 64;
  const std::size_t longest = std::max(mtu + kEthernetHeaderBytes, kHeaderBytes) + kVlanTagBytes;
  return (static_cast<std::uint32_t>(longest) + kStep - 1) / kStep * kStep;
}

/// Requests to receive that are posted together. Each worker has one; all that changes from one time to the next is
/// which buffers they are for.
class ReceiveChain {
 public:
  ReceiveChain() noexcept {
    for (std::size_t i = 0; i < kBurstFrames; ++i) {
      requests_[i] = {0, i + 1 < kBurstFrames ? &requests_[i + 1] : nullptr, &pieces_[i], 1};
    }
  }
  ReceiveChain(const ReceiveChain&) = delete;
  ReceiveChain& operator=(const ReceiveChain&) = delete;

  /// Sets request number i.
  void set(std::size_t i, std::uint64_t wr_id, const ibv_sge& piece) noexcept {
    requests_[i].wr_id = wr_id;
    pieces_[i] = piece;
  }
  /// Posts the first `count` (at least 1).
  void post(ibv_qp* qp, std::size_t count) noexcept {
    ibv_recv_wr* const next = std::exchange(requests_[count - 1].next, nullptr);
    ibv_recv_wr* refused = nullptr;
    // The queue holds as many as there are: it cannot be full. A pair in error takes them too.
    static_cast<void>(ibv_post_recv(qp, requests_.data(), &refused));
    requests_[count - 1].next = next;
  }

 private:
  std::array<ibv_recv_wr, kBurstFrames> requests_;
  std::array<ibv_sge, kBurstFrames> pieces_{};
};

/// A queue pair that receives: a tenant's, or the one that tenants share and that gets what software must see. What
/// overflows here costs no other pair a frame.
///
/// Theory of operation. It has kFrames buffers of its own, and as many requests: that many buffers are posted or lent
/// at any time. A tenant's pair that is offered slots in the tenant's memory posts those in place of its own buffers,
/// as long as some are free (direct); a slot whose frame the tenant's queue keeps is followed by another slot, or else
/// by a buffer of its own, whose frame will be copied (staged). So a tenant that does not read cannot starve the pair,
/// and what it loses is counted where it is lost: at its full ring.
class ReceivePair {
 public:
  /// Receive requests, and buffers.
  static constexpr std::uint32_t kFrames = 1024;
  /// Slots that a tenant's memory should have: those that wait for frames, and those that wait to be read.
  static constexpr std::uint32_t kSlots = kFrames + kFrames / 2;

  struct Shape {
    std::uint32_t stride = 0;  ///< bytes of a buffer, a multiple of 64
    bool vlan_strip = false;
    bool shared = false;  ///< by several tenants, see create_flow()
  };
  /// Control thread. Makes the pair and posts all buffers; it receives what its rules say.
  /// @param tag never used before; stands in the upper half of each completion's wr_id, the buffer's number in the
  /// lower.
  ///   Throws Error.
  ReceivePair(const Device& device, ibv_cq* cq, std::uint32_t tag, const Shape& shape);
  ReceivePair(const ReceivePair&) = delete;
  ReceivePair& operator=(const ReceivePair&) = delete;
  ~ReceivePair();

  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t wr_id) noexcept {
    return static_cast<std::uint32_t>(wr_id >> 32);
  }
  [[nodiscard]] static std::uint32_t buffer_of(std::uint64_t wr_id) noexcept {
    return static_cast<std::uint32_t>(wr_id);
  }

  /// Worker: a completion of the pair is there. Where frame `buffer` lies, and what keeps it there (nullptr: it is to
  /// be copied).
  struct Taken {
    std::byte* bytes;
    Kept* kept;
  };
  [[nodiscard]] Taken taken(std::uint32_t buffer) const noexcept {
    if (buffer < kFrames) return {own_buffer(buffer), nullptr};
    const ReceiveSlots* const slots = slots_.load(std::memory_order_relaxed);
    return {slots->buffer(buffer - kFrames), &slots->kept(buffer - kFrames)};
  }
  /// Worker: gives buffers that were taken back (at most kBurstFrames), in one chain; others in place of those that are
  /// kept. Once the pair is closing they are not posted any more.
  void give_back(std::span<const std::uint32_t> buffers, ReceiveChain& chain) noexcept;
  /// Worker: the same for one whose request failed: it is not posted again.
  void forget_one() noexcept { completed(1); }

  /// Control thread: from now on frames come directly as far as these go. They outlive the pair.
  void offer(ReceiveSlots& slots) noexcept;
  [[nodiscard]] bool direct() const noexcept { return slots_.load(std::memory_order_relaxed) != nullptr; }

  /// Control thread, one after the other: no more rules, and no buffer goes back; after Quiescence::wait(), the device
  /// gives up what is posted; a completion for each request comes, which empties the pair.
  void close() noexcept;
  void flush() noexcept;
  /// Any thread.
  [[nodiscard]] bool closed() const noexcept { return !open_.load(std::memory_order_acquire); }
  [[nodiscard]] bool empty() const noexcept { return waiting_.load(std::memory_order_acquire) == 0; }

  /// Control thread. Throws Error.
  void add_rule(const Device& device, const FlowRule& rule);
  void remove_rule(const FlowRule& rule) noexcept { rules_.erase(rule); }
  [[nodiscard]] const std::map<FlowRule, Verbs<ibv_flow>>& rules() const noexcept { return rules_; }
  [[nodiscard]] const ibv_qp* qp() const noexcept { return qp_.get(); }
  [[nodiscard]] std::uint32_t tag() const noexcept { return tag_; }
  [[nodiscard]] bool shared() const noexcept { return shape_.shared; }

 private:
  [[nodiscard]] std::uint32_t successor(std::uint32_t buffer, ReceiveSlots& slots) noexcept;
  [[nodiscard]] std::byte* own_buffer(std::uint32_t buffer) const noexcept {
    return memory_.data() + std::size_t{buffer} * shape_.stride;
  }
  void post(std::span<const std::uint32_t> buffers, ReceiveChain& chain) noexcept;
  void completed(std::size_t count) noexcept {
    waiting_.store(waiting_.load(std::memory_order_relaxed) - static_cast<std::uint32_t>(count),
                   std::memory_order_release);
  }

  std::uint32_t tag_;
  Shape shape_;
  Mapping memory_;
  Verbs<ibv_mr> region_;
  Verbs<ibv_qp> qp_;
  std::map<FlowRule, Verbs<ibv_flow>> rules_;
  std::atomic<bool> open_{true};
  std::atomic<std::uint32_t> waiting_{kFrames};  // requests posted, and buffers not given back yet; one writer
  std::atomic<ReceiveSlots*> slots_{nullptr};
  std::array<std::uint32_t, kFrames> spare_{};  // own buffers that are not posted, while slots are
  std::uint32_t spares_ = 0;
};

}  // namespace vswitch::verbs
