#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "vswitch/base/memory.h"
#include "vswitch/core/frame.h"
#include "vswitch/net/offload_check.h"

namespace vswitch {

/// Finishes frames in software for queues that do not take them as they are: computes the checksum, or cuts a GSO frame
/// into segments. One per worker, used by it only.
///
/// Derived frames lie in the adapter's private scratch memory until reset(): transmit them before that, to a queue that
/// does not hold what transmit() took. A queue that sends later, without a copy, must copy derived frames.
class Adapter {
 public:
  /// Throws Error (no memory).
  Adapter();

  /// Whether a queue with `caps` does not take `frame` as it is. DATA_VALID asks for nothing, so nobody need offer it.
  [[nodiscard]] static bool needed(const Frame& frame, OffloadCaps caps) noexcept {
    return !frame.offload.is_plain() && !covers(caps, frame.offload);
  }
  /// Whether a queue with `caps` takes frames with that sanitized offload.
  [[nodiscard]] static bool covers(OffloadCaps caps, const Offload& offload) noexcept {
    if (offload.needs_checksum() && !caps.checksum) return false;
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
  void reset() noexcept { used_bytes_ = used_frames_ = 0; }

 private:
  [[nodiscard]] std::size_t finish_checksum(const Frame& frame, std::span<const Frame*> out) noexcept;
  [[nodiscard]] std::size_t segment(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept;
  /// Whether `count` frames that take `bytes` of scratch memory fit now; else sets exhausted_.
  [[nodiscard]] bool has_room(std::size_t count, std::size_t bytes, std::size_t out) noexcept;
  /// A frame of `length` bytes in scratch memory; has_room() was true.
  [[nodiscard]] Frame& derive(const Frame& from, std::size_t length, const Offload& offload) noexcept;

  Mapping scratch_;
  std::vector<Frame> frames_;  ///< never resized
  std::size_t used_bytes_ = 0;
  std::size_t used_frames_ = 0;
  bool exhausted_ = false;
};

}  // namespace vswitch
