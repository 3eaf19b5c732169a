#pragma once
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ports/af_packet/packet_ring.h"
#include "ports/af_packet/vnet_header.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/port.h"

namespace vswitch::af_packet {

/// One worker's packet socket: receives from the mapped ring, sends by sendmmsg(2).
///
/// A frame in the ring is lent where it lies; a longer one (GSO) is read into the worker's scratch memory. The kernel
/// takes an 802.1Q tag out of a frame it receives: it goes to Frame::vlan. A tag of another type is put back into the
/// bytes.
class AfPacketQueue final : public Queue {
 public:
  /// @param socket from open_packet_socket(), not yet bound
  /// @param scratch the worker's memory for frames it lends, kScratchBytes
  /// Throws Error.
  AfPacketQueue(Fd socket, std::uint32_t mtu, std::span<std::byte> scratch, PortCounters& counters);

  [[nodiscard]] std::size_t receive(Burst& out) noexcept override;
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames) noexcept override;
  void release(Burst& lent) noexcept override;
  void reclaim() noexcept override;
  [[nodiscard]] int wait_fd() const noexcept override { return socket_.get(); }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] Drop refusal() const noexcept override { return refusal_; }

  [[nodiscard]] const Fd& socket() const noexcept { return socket_; }
  /// Frames that the kernel had no room for. Any thread.
  [[nodiscard]] std::uint64_t lost() const noexcept { return ring_.lost(); }

 private:
  /// Most pieces of a message: offload header, addresses, tag, rest of the header copy, rest of the frame.
  static constexpr std::size_t kPieces = 5;
  static constexpr std::uint32_t kTurnsPerCheck = 4096;
  struct Arrived {
    std::byte* data = nullptr;  ///< byte 0; kVlanTagBytes before it are ours to write
    std::uint32_t length = 0;
    VnetHeader header;
  };
  enum class Failure : std::uint8_t { retry, skip, stop };

  [[nodiscard]] bool fetch(tpacket2_hdr& slot, Arrived& arrived) noexcept;
  [[nodiscard]] bool fetch_long(std::uint32_t length, Arrived& arrived) noexcept;
  void lend(const tpacket2_hdr& slot, Arrived& arrived, Burst& out) noexcept;
  void compose(const Frame& frame, std::size_t i) noexcept;
  [[nodiscard]] std::size_t send(std::size_t count) noexcept;
  [[nodiscard]] Failure judge(int error, bool retried) noexcept;
  void check_ring() noexcept;

  Fd socket_;
  PacketRing ring_;
  std::span<std::byte> scratch_;
  std::size_t scratch_used_ = 0;
  bool out_of_step_ = false;  ///< a long frame's slot and the socket's queue disagree: release() starts both anew
  std::uint32_t idle_turns_ = 0;
  Drop refusal_ = Drop::dest_full;
  std::array<mmsghdr, kBurstFrames> messages_{};
  std::array<std::array<iovec, kPieces>, kBurstFrames> pieces_{};
  std::array<VnetHeader, kBurstFrames> headers_{};
  std::array<std::array<std::byte, kVlanTagBytes>, kBurstFrames> tags_{};
};

}  // namespace vswitch::af_packet
