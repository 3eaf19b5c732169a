#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/direct_memory.h"
#include "ports/verbs/handle.h"
#include "ports/verbs/queue_pair.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/port.h"

namespace vswitch::verbs {

/// A queue pair that sends, used by one worker.
///
/// Theory of operation. The header copy of a frame, which was judged, is copied into memory of ours that the device
/// reads; what follows it is copied as well (staged), or the device gathers it from the tenant's memory (direct), and
/// the frame is kept until the device is done: however the tenant rewrites its memory, the headers are those that were
/// judged. The last of requests posted together asks for a completion if one of them keeps a frame.
///
/// A finished frame's header copy, and so all of a short frame, goes to a place of its request's own; what else is
/// copied to a ring of bytes. Both are free when a completion names the request or a later one. Only the last of
/// requests that are posted together asks for a completion, if kSignalEvery of them or a quarter of the memory were
/// used since the one before that did: so a full ring always holds one.
class SendPair {
 public:
  static constexpr std::uint32_t kRequests = 512;
  static constexpr std::uint32_t kSignalEvery = 32;
  static constexpr std::size_t kMemoryBytes = std::size_t{1} << 20;  ///< of the ring

  /// Control thread. Throws Error.
  explicit SendPair(const Device& device);
  SendPair(const SendPair&) = delete;
  SendPair& operator=(const SendPair&) = delete;
  ~SendPair() { abandon(); }

  /// Worker: takes a prefix of `frames`, finishing in software (and counting) what the device does not.
  /// @param regions where frames may be gathered from
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames, const SendRegions& regions,
                                     PortCounters& counters) noexcept;
  /// Worker: frees what was sent. @return false: the device reported an error, the pair is dead
  bool reclaim() noexcept;
  /// Control thread, when no worker uses it: the device stops, and what it did not say to have sent is given back, and
  /// counted as lost.
  void abandon() noexcept;
  [[nodiscard]] const ibv_qp* qp() const noexcept { return qp_.get(); }
  [[nodiscard]] bool dead() const noexcept { return dead_; }
  /// Any thread: requests posted up to the last that keeps a frame, and requests completed; both since ever.
  [[nodiscard]] std::uint64_t last_kept() const noexcept { return last_kept_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t completed() const noexcept { return completed_.load(std::memory_order_acquire); }
  [[nodiscard]] bool keeps() const noexcept { return last_kept() > completed(); }
  /// Any thread: requests that the device did not carry out because the pair broke.
  [[nodiscard]] std::uint64_t lost() const noexcept { return lost_.read(); }

 private:
  /// Headers of a frame to be segmented, with a tag inserted.
  static constexpr std::size_t kTsoHeaderBytes = kHeaderBytes + kVlanTagBytes;
  static constexpr std::uint64_t kNoRoom = ~std::uint64_t{0};

  [[nodiscard]] std::uint64_t allocate(std::size_t bytes) noexcept;
  [[nodiscard]] bool compose(const Frame& frame, std::size_t i, PortCounters& counters) noexcept;
  [[nodiscard]] bool compose_unfinished(const Frame& frame, std::size_t i, PortCounters& counters) noexcept;
  [[nodiscard]] bool compose_tso(const Frame& frame, std::size_t i) noexcept;
  /// What the device may gather the frame's rest from; nullptr: it has to be copied.
  [[nodiscard]] const SendRegion* region_of(const Frame& frame) noexcept;
  void describe(std::size_t i, const std::byte* at, std::size_t bytes) noexcept;
  [[nodiscard]] std::byte* ring_at(std::uint64_t place) const noexcept { return memory_.data() + place % kMemoryBytes; }
  /// Of request number n: room for kHeaderBytes.
  [[nodiscard]] std::byte* own_place(std::uint64_t n) const noexcept {
    return memory_.data() + kMemoryBytes + n % kRequests * kHeaderBytes;
  }
  void gather(std::size_t i, const Frame& frame, const SendRegion& from) noexcept;
  void give_back(std::uint64_t from, std::uint64_t to) noexcept;
  [[nodiscard]] std::size_t post(std::size_t count, std::uint64_t head_before) noexcept;

  Capabilities capabilities_;
  Mapping memory_;
  Verbs<ibv_mr> region_;
  Verbs<ibv_cq> cq_;
  Verbs<ibv_qp> qp_;
  std::uint64_t head_ = 0;         // of bytes ever used of the ring
  std::uint64_t tail_ = 0;         // of bytes free again
  std::uint64_t signaled_at_ = 0;  // head_ when a completion was last asked for
  std::uint64_t signaled_ = 0;     // posted_ then
  std::uint64_t posted_ = 0;       // requests ever
  std::atomic<std::uint64_t> completed_{0};
  std::atomic<std::uint64_t> last_kept_{0};
  Counter lost_;
  bool dead_ = false;
  bool gathers_ = false;                  // a request that is being composed does
  const SendRegions* regions_ = nullptr;  // during transmit()
  const SendRegion* last_region_ = nullptr;
  std::array<std::uint64_t, kRequests> ends_{};  // head_ behind request number n, at n % kRequests
  std::array<ibv_send_wr, kBurstFrames> requests_{};
  std::array<Kept*, kRequests> kept_{};  // likewise: the frame that the request keeps
  std::array<std::array<ibv_sge, kSendPieces>, kBurstFrames> pieces_{};
  std::array<std::array<std::byte, kTsoHeaderBytes>, kBurstFrames> headers_{};
};

}  // namespace vswitch::verbs
