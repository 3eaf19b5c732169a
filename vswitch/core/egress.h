#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "vswitch/core/adapt.h"
#include "vswitch/core/coalesce.h"
#include "vswitch/core/decide.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/table.h"

namespace vswitch {

/// Sorts a burst by destination, then hands every destination its frames in one transmit(). One per worker.
///
/// Nothing is copied before flush(). A frame that its destination cannot take as it is gets finished here (checksum,
/// segmentation, see adapt.h), and small ones that it could take as one are merged (coalesce.h); all losses on the way
/// out are counted at the destination port.
class Egress {
 public:
  explicit Egress(std::size_t worker);

  /// Fixes the table for what follows. Only when nothing is staged.
  void use(const Table& table) noexcept { table_ = &table; }
  /// Notes `frame` for every destination of `verdict`, which must not be a drop. The frame must stay lent until
  /// flush().
  void stage(Verdict verdict, const Frame& frame) noexcept {
    if (verdict.is_unicast()) {
      stage_to(verdict.port, frame);
    } else {
      stage_many(verdict, frame);
    }
  }
  /// Transmits all that is staged.
  void flush() noexcept;
  /// Frames refused at egress since the last call.
  [[nodiscard]] std::size_t take_refused() noexcept { return std::exchange(refused_, 0); }

 private:
  static constexpr std::size_t kSlots = 64;
  static constexpr std::uint8_t kNoSlot = 0xff;
  struct Slot {
    Queue* queue = nullptr;
    PortId port = kNoPort;
    bool merges = false;           ///< takes merged frames
    std::uint8_t flags_taken = 0;  ///< of Offload::flags, with a finished frame
    OffloadCaps offloads;
    std::uint32_t max_frame = 0;
    std::uint32_t count = 0;
    std::uint64_t bytes = 0;
    std::array<const Frame*, kBurstFrames> frames{};
  };

  void stage_to(PortId port, const Frame& frame) noexcept {
    Slot& slot = slot_of(port);
    const bool usual = (frame.offload.flags & ~slot.flags_taken) == 0 && !frame.offload.is_gso();
    if (!usual || frame.length > slot.max_frame) [[unlikely]] {
      stage_unusual(port, frame);
      return;
    }
    put(slot, frame);
  }
  /// Frames mostly come in runs for one port.
  Slot& slot_of(PortId port) noexcept {
    if (port != last_port_) [[unlikely]] {
      last_slot_ = index_[port] != kNoSlot ? &slots_[index_[port]] : &open_slot(port);
      last_port_ = port;
    }
    return *last_slot_;
  }
  void put(Slot& slot, const Frame& frame) noexcept {
    if (slot.count == kBurstFrames) send(slot);
    slot.frames[slot.count++] = &frame;
    slot.bytes += frame.length;
  }
  Slot& open_slot(PortId port) noexcept;
  void stage_many(Verdict verdict, const Frame& frame) noexcept;
  void stage_unusual(PortId port, const Frame& frame) noexcept;
  void stage_adapted(PortId port, const Frame& frame) noexcept;
  void refuse(PortId port, Drop reason, std::size_t frames) noexcept;
  void coalesce(Slot& slot) noexcept;
  void send(Slot& slot) noexcept;

  const Table* table_ = nullptr;
  std::size_t worker_;
  std::size_t used_ = 0;
  std::size_t refused_ = 0;
  Adapter adapter_;
  Coalescer coalescer_;
  PortId last_port_ = kNoPort;
  Slot* last_slot_ = nullptr;
  std::array<std::uint8_t, kMaxPorts> index_;  ///< port to slot, or kNoSlot
  std::array<Slot, kSlots> slots_;
};

}  // namespace vswitch
