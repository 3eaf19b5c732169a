#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "ports/client/include/vswitch/ring.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/arena.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/port.h"

// The switch's end of shared-memory rings (layout and protocol: ports/client/include/vswitch/ring.h).
//
// Theory of operation. Everything the tenant can write is read once into a local, bounded, and then used; every index
// of our own lives in private memory and is only published. So the worst a tenant can do with its memory is to lose its
// own frames.

namespace vswitch {

/// Tenant to switch, consumed here. One worker.
class TxRing {
 public:
  /// @param lets_keep frames are lent to be kept (Frame::kept)
  TxRing(std::byte* producer_block, vswitch_consumer_lines& own, const vswitch_geometry& geometry, bool lets_keep);

  /// Lends frames; see Queue::receive(). @param vlan the port's access VLAN, 0: none
  std::size_t receive(Burst& out, std::uint16_t vlan, PortCounters& counters) noexcept;
  /// Gives back what was lent, but for what is kept, and what follows it.
  void release() noexcept;
  /// Gives back what is kept no longer. @return true: nothing is kept
  bool settle() noexcept;
  /// Asks the producer to signal the next frame. release() takes it back when frames came.
  void arm() noexcept;
  [[nodiscard]] bool has_work() const noexcept;

 private:
  static bool admit(Frame& frame, std::uint64_t meta, std::uint16_t vlan, PortCounters& counters) noexcept;

  std::uint32_t* head_;           ///< tenant memory
  const std::byte* descriptors_;  ///< tenant memory
  const std::byte* arena_;        ///< tenant memory
  vswitch_consumer_lines* own_;   ///< switch memory
  std::uint32_t mask_;
  std::uint32_t arena_bytes_;
  std::uint32_t tail_ = 0;  ///< published: given back
  std::uint32_t next_ = 0;  ///< to be lent next; from tail_ on it is kept, or waits for what is
  std::uint32_t lent_ = 0;
  std::uint32_t armed_serial_ = 0;
  bool armed_ = false;
  std::unique_ptr<Kept[]> kept_;  ///< per slot; empty: frames are not to be kept
};

/// Switch to tenant, produced here. One worker.
class RxRing {
 public:
  /// @param wake_fd the switch's end of the socket that wakes the tenant; borrowed
  RxRing(std::byte* producer_block, vswitch_consumer_lines& peer, const vswitch_geometry& geometry, int wake_fd);

  /// What a device writes into: behind the arena.
  [[nodiscard]] ReceiveMemory direct() const noexcept {
    return {{arena_ + arena_mask_ + 1, direct_bytes_}, kept_.get()};
  }
  /// Puts a prefix of `frames` in: copies them, but for those that lie in direct() and are to be kept. @param
  /// insert_tags writes Frame::vlan into the bytes
  /// @return how many
  std::size_t put(std::span<const Frame* const> frames, bool insert_tags) noexcept;
  /// Publishes what was put; wakes the tenant if it asked. @return true if it was woken
  bool publish() noexcept;

 private:
  [[nodiscard]] std::uint32_t room() const noexcept { return mask_ + 1 - (head_ - tail_); }
  /// The tenant finds the frame where the device wrote it. (A short one is cheaper to copy: its header copy is all of
  /// it.)
  [[nodiscard]] bool lies_direct(const Frame& frame) const noexcept {
    const auto offset = static_cast<std::size_t>(frame.data - arena_) - (std::size_t{arena_mask_} + 1);
    return frame.kept != nullptr && frame.length > frame.header_bytes && frame.finish == Finish::none &&
           offset < direct_bytes_ && offset % VSWITCH_RING_LINE == 0;
  }
  void describe(std::uint32_t head, std::uint32_t offset, std::uint32_t length, const Offload& offload) noexcept {
    const std::uint64_t place = std::uint64_t{length} << 32 | offset;
    std::byte* const descriptor = descriptors_ + std::size_t{head & mask_} * sizeof(vswitch_descriptor);
    std::memcpy(descriptor, &place, sizeof(place));
    std::memcpy(descriptor + sizeof(place), &offload, sizeof(offload));
  }
  void give_back(std::uint32_t tail) noexcept;
  void reload_tail() noexcept;

  vswitch_producer_line* line_;   ///< switch memory
  std::byte* descriptors_;        ///< switch memory
  std::byte* arena_;              ///< switch memory
  vswitch_consumer_lines* peer_;  ///< tenant memory
  std::uint32_t mask_;
  std::uint32_t arena_mask_;
  std::uint32_t direct_bytes_;
  std::uint32_t kept_count_ = 0;
  std::uint32_t head_ = 0;
  std::uint32_t tail_ = 0;        ///< the tenant's, as last believed
  std::uint32_t arena_head_ = 0;  ///< positions run freely; offset = position & arena_mask_
  std::uint32_t arena_tail_ = 0;
  std::uint32_t answered_ = 0;  ///< last need_wake value answered
  int wake_fd_;
  std::unique_ptr<std::uint32_t[]> ends_;  ///< per slot: arena position behind its frame
  std::unique_ptr<Kept[]> kept_;           ///< per line of direct(); empty: it is
};

/// What one worker uses of an attachment.
struct WorkerRings {
  std::vector<TxRing> tx;  ///< the tenant's TX rings this worker polls
  std::vector<RxRing> rx;  ///< one per queue pair
};

}  // namespace vswitch
