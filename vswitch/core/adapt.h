#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "vswitch/core/frame.h"
#include "vswitch/net/offload_check.h"

namespace vswitch {

/// Finishes frames in software for queues that do not take them as they are: asks for the checksum to be completed in
/// the copy, or cuts a GSO frame into segments. One per worker, used by it only.
///
/// Nothing but headers is written here. The payload of a derived frame stays where the original lies; whoever copies it
/// out sums on the way (copy_out.h). Derived frames and their headers live until reset(): transmit them before that, to
/// a queue that does not hold what transmit() took.
class Adapter {
 public:
  Adapter() : memory_(std::make_unique<Memory>()) {}

  /// Whether a queue with `caps` does not take `frame` as it is.
  [[nodiscard]] static bool needed(const Frame& frame, OffloadCaps caps) noexcept {
    return !frame.offload.is_plain() && !covers(caps, frame.offload);
  }
  /// Whether a queue with `caps` takes frames with that sanitized offload.
  [[nodiscard]] static bool covers(OffloadCaps caps, const Offload& offload) noexcept {
    if (offload.flags != 0 && !caps.checksum) return false;  // who is not told of checksums must not see DATA_VALID
    if ((offload.gso_type & Offload::kGsoEcn) != 0 && !caps.ecn) return false;
    switch (offload.gso_kind()) {
      case Offload::kGsoNone:
        return true;
      case Offload::kGsoTcp4:
        return caps.tso4;
      case Offload::kGsoTcp6:
        return caps.tso6;
      case Offload::kGsoUdpL4:
        return caps.uso;
      default:
        return false;
    }
  }

  /// Makes of `frame`, for which needed() is true, frames that a queue with `caps` takes; they say the same, in the
  /// same order. A frame's `vlan` stays beside each of them.
  /// @param out room for kMaxSegments pointers suffices always
  /// @return pointers written; 0: see exhausted()
  [[nodiscard]] std::size_t adapt(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept;

  /// Why the last adapt() returned 0: true: no room left, transmit what was derived, reset() and try again, which then
  /// succeeds (given room in `out`); false: no software can finish this frame.
  [[nodiscard]] bool exhausted() const noexcept { return exhausted_; }

  /// Takes all derived frames back.
  void reset() noexcept { used_ = 0; }

 private:
  /// Two GSO frames of any kind.
  static constexpr std::size_t kFrames = std::size_t{2} * kMaxSegments;
  struct Memory {
    std::array<Frame, kFrames> frames;
    alignas(64) std::array<std::array<std::byte, kHeaderBytes>, kFrames> headers;
  };

  [[nodiscard]] std::size_t finish_checksum(const Frame& frame, std::span<const Frame*> out) noexcept;
  [[nodiscard]] std::size_t segment(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept;
  /// Whether `count` more frames fit now; else sets exhausted_.
  [[nodiscard]] bool has_room(std::size_t count, std::size_t out) noexcept;

  std::unique_ptr<Memory> memory_;
  std::size_t used_ = 0;
  bool exhausted_ = false;
};

}  // namespace vswitch
