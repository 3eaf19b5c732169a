#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/flow.h"
#include "ports/verbs/handle.h"
#include "vswitch/base/memory.h"

namespace vswitch::verbs {

/// A queue pair that receives into buffers of its own: a tenant's, or the one that tenants share and that gets what
/// software must see. What overflows here costs no other pair a frame.
class ReceivePair {
 public:
  /// Receive requests, and buffers.
  static constexpr std::uint32_t kFrames = 1024;

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

  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t wr_id) noexcept {
    return static_cast<std::uint32_t>(wr_id >> 32);
  }
  [[nodiscard]] static std::uint32_t buffer_of(std::uint64_t wr_id) noexcept {
    return static_cast<std::uint32_t>(wr_id);
  }

  /// Worker: where frame `buffer` lies.
  [[nodiscard]] std::byte* buffer(std::uint32_t number) const noexcept {
    return memory_.data() + std::size_t{number} * shape_.stride;
  }
  /// Worker: gives buffers back to the device, in one chain. Nothing once the pair is closing.
  void post(std::span<const std::uint32_t> buffers) noexcept;

  /// Control thread: no more rules, and no buffer goes back. Call before Quiescence::wait() and destruction.
  void close() noexcept;
  /// Control thread. Throws Error.
  void add_rule(const Device& device, const FlowRule& rule);
  void remove_rule(const FlowRule& rule) noexcept { rules_.erase(rule); }
  [[nodiscard]] const std::map<FlowRule, Verbs<ibv_flow>>& rules() const noexcept { return rules_; }
  [[nodiscard]] const ibv_qp* qp() const noexcept { return qp_.get(); }
  [[nodiscard]] std::uint32_t tag() const noexcept { return tag_; }
  [[nodiscard]] bool shared() const noexcept { return shape_.shared; }

 private:
  std::uint32_t tag_;
  Shape shape_;
  Mapping memory_;
  Verbs<ibv_mr> region_;
  Verbs<ibv_qp> qp_;
  std::map<FlowRule, Verbs<ibv_flow>> rules_;
  std::atomic<bool> open_{true};
  std::vector<ibv_sge> pieces_;        // one a buffer
  std::vector<ibv_recv_wr> requests_;  // likewise
};

}  // namespace vswitch::verbs
