#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "tests/softnic/core/wire.h"

/// A cable in memory: its far end is a part of this process, not a netdev.
namespace softnic {

/// Frames one way, from one thread to another one.
class FrameRing {
 public:
  /// @param slots a power of two; @param frame_bytes of the longest frame
  FrameRing(std::size_t slots, std::size_t frame_bytes);

  /// The sender: copies the frame. `down`: it is too long for this wire.
  [[nodiscard]] Sent put(Bytes frame) noexcept;
  /// The receiver: the oldest frame, which stays where it is until drop(). Empty = nothing there.
  [[nodiscard]] Bytes front() const noexcept;
  /// The receiver, after front() showed a frame.
  void drop() noexcept;

 private:
  static constexpr std::size_t kLine = 64;
  [[nodiscard]] std::size_t at(std::uint64_t index) const noexcept { return index & (lengths_.size() - 1); }

  std::size_t frame_bytes_;
  std::vector<std::uint32_t> lengths_;
  std::vector<std::uint8_t> bytes_;
  alignas(kLine) std::atomic<std::uint64_t> put_{0};
  alignas(kLine) std::atomic<std::uint64_t> dropped_{0};
};

/// Two rings; outlives the end that it gives the NIC.
class MemoryWire {
 public:
  static constexpr std::size_t kSlots = 1024;

  /// @param mtu payload bytes of the longest frame
  explicit MemoryWire(unsigned mtu);

  /// The NIC's end; to be polled, for it has no descriptor. There is always a carrier.
  [[nodiscard]] std::unique_ptr<FrameEnd> nic_end();
  /// What the far end sends, by one thread.
  [[nodiscard]] FrameRing& to_nic() noexcept { return to_nic_; }
  /// What the far end receives, by one thread.
  [[nodiscard]] FrameRing& from_nic() noexcept { return from_nic_; }

 private:
  FrameRing to_nic_;
  FrameRing from_nic_;
};

}  // namespace softnic
