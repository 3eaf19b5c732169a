#pragma once
#include <linux/if_packet.h>

#include <cstddef>
#include <cstdint>

#include "vswitch/base/counter.h"

namespace vswitch::af_packet {

/// The receive ring of a packet socket (TPACKET_V2, Documentation/networking/packet_mmap.rst): the kernel lays each
/// frame into the next slot as it arrives; receiving costs no system call.
///
/// Slots fit the MTU. A longer frame (GSO, or the MTU grew) waits whole in the socket's ordinary queue, and its slot
/// says so (TP_STATUS_COPY); slots and queue keep the same order.
///
/// One worker only, but for lost().
class PacketRing {
 public:
  static constexpr std::size_t kBytes = std::size_t{8} << 20;

  /// @param socket must outlive the ring. Throws Error.
  PacketRing(int socket, std::uint32_t mtu);
  PacketRing(const PacketRing&) = delete;
  PacketRing& operator=(const PacketRing&) = delete;
  ~PacketRing();

  /// The oldest slot that was not taken, or nullptr if the kernel has not filled it.
  [[nodiscard]] tpacket2_hdr* front() noexcept;
  /// Takes the slot that front() returned; it stays ours until give_back().
  void take() noexcept;
  /// All taken slots go back to the kernel.
  void give_back() noexcept;

  /// Looks for a ring that the kernel will never fill again: frames are dropped although it is empty. That happens when
  /// the kernel meets a frame whose segmentation it cannot express in a virtio-net header: it reserves the slot and
  /// forgets it. Costs one system call. Only while nothing is taken.
  /// @return true: call rebuild()
  [[nodiscard]] bool is_stuck() noexcept;
  /// Makes the ring anew; frames in it are lost. Only while nothing is taken.
  /// @return false if the kernel refuses (memory): then the ring stays empty, and the next call tries again
  bool rebuild() noexcept;

  /// Frames that the kernel had no room for. Any thread.
  [[nodiscard]] std::uint64_t lost() const noexcept { return lost_.read(); }
  void count_lost() noexcept { lost_.add(1); }

 private:
  static constexpr std::uint32_t kBlockBytes = 128 << 10;
  [[nodiscard]] bool set_up(std::size_t bytes) noexcept;
  void unmap() noexcept;
  [[nodiscard]] tpacket2_hdr* slot(std::uint32_t i) const noexcept {
    return reinterpret_cast<tpacket2_hdr*>(memory_ + std::size_t{i} * slot_bytes_);
  }

  int socket_;
  std::uint32_t slot_bytes_;
  std::uint32_t slots_;
  std::byte* memory_ = nullptr;
  std::uint32_t next_ = 0;                              ///< front()
  std::uint32_t taken_ = 0;                             ///< slots before next_ that are ours
  std::uint64_t total_ = 0;                             ///< slots ever taken
  std::uint64_t total_when_empty_ = ~std::uint64_t{0};  ///< total_ at the last check, if the ring was empty then
  Counter lost_;
};

}  // namespace vswitch::af_packet
