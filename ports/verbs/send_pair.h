#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/port.h"

namespace vswitch::verbs {

/// A queue pair that sends, used by one worker. Frames are copied into memory of ours that the device reads: the one
/// copy of their life.
///
/// Theory of operation. The memory is a ring of bytes. A request's bytes are free when a completion names it or a later
/// one; only some requests ask for a completion: every kSignalEvery-th, and whenever a quarter of the memory was used
/// since the last that did, so that a full ring always holds one.
class SendPair {
 public:
  static constexpr std::uint32_t kRequests = 512;
  static constexpr std::uint32_t kSignalEvery = 32;
  static constexpr std::size_t kMemoryBytes = std::size_t{1} << 20;

  /// Control thread. Throws Error.
  explicit SendPair(const Device& device);

  /// Worker: takes a prefix of `frames`, finishing in software (and counting) what the device does not.
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames, PortCounters& counters) noexcept;
  /// Worker: frees what was sent. @return false: the device reported an error, the pair is dead
  bool reclaim() noexcept;
  [[nodiscard]] const ibv_qp* qp() const noexcept { return qp_.get(); }
  [[nodiscard]] bool dead() const noexcept { return dead_; }

 private:
  /// Headers of a frame to be segmented, with a tag inserted.
  static constexpr std::size_t kTsoHeaderBytes = kHeaderBytes + kVlanTagBytes;
  static constexpr std::uint64_t kNoRoom = ~std::uint64_t{0};

  [[nodiscard]] std::uint64_t allocate(std::size_t bytes) noexcept;
  [[nodiscard]] bool compose(const Frame& frame, std::size_t i, PortCounters& counters) noexcept;
  [[nodiscard]] bool compose_tso(const Frame& frame, std::size_t i) noexcept;
  void describe(std::size_t i, std::uint64_t place, std::size_t bytes) noexcept;
  [[nodiscard]] std::size_t post(std::size_t count, std::uint64_t head_before) noexcept;

  Capabilities capabilities_;
  Mapping memory_;
  Verbs<ibv_mr> region_;
  Verbs<ibv_cq> cq_;
  Verbs<ibv_qp> qp_;
  std::uint64_t head_ = 0;         // of bytes ever used
  std::uint64_t tail_ = 0;         // of bytes free again
  std::uint64_t signaled_at_ = 0;  // head_ when a completion was last asked for
  std::uint64_t posted_ = 0;       // requests ever
  std::uint64_t completed_ = 0;
  bool dead_ = false;
  std::array<std::uint64_t, kRequests> ends_{};  // head_ behind request number n, at n % kRequests
  std::array<ibv_send_wr, kBurstFrames> requests_{};
  std::array<ibv_sge, kBurstFrames> pieces_{};
  std::array<std::array<std::byte, kTsoHeaderBytes>, kBurstFrames> headers_{};
};

}  // namespace vswitch::verbs
