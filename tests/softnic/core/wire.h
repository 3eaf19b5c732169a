#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tests/softnic/core/headers.h"

/// The two netdevs behind a port of the NIC: the wire (packet socket on one end of a veth pair) and the kernel's own
/// netdev (a TAP that the model holds open). Used by one thread; nothing blocks.
namespace softnic {

constexpr std::size_t kMostFrameBytes = 9600;  ///< with tag, without FCS

enum class Sent { yes, full, down };

class FrameEnd {
 public:
  virtual ~FrameEnd() = default;
  /// Readable when receive() has something.
  [[nodiscard]] virtual int fd() const noexcept = 0;
  /// The next frame, whole and as it was on the wire: VLAN tag in place, checksums in place, at most
  /// kMostFrameBytes. It lies in memory of this object until the next call. Empty = nothing there.
  [[nodiscard]] virtual Bytes receive() = 0;
  [[nodiscard]] virtual Sent send(Bytes frame) = 0;
  /// Frames that were lost below receive(), since the last call: the kernel's own drops, and frames that were too long.
  [[nodiscard]] virtual std::uint64_t lost() noexcept = 0;
  [[nodiscard]] virtual bool carrier() const noexcept = 0;
};

/// Packet socket on netdev `name` (promiscuous, own frames ignored). Super-frames and partial checksums of a veth's
/// peer are finished here (PACKET_VNET_HDR), so that only frames that could cross a cable come out.
/// @throws std::system_error that names the netdev and the failing step.
[[nodiscard]] std::unique_ptr<FrameEnd> open_wire(const std::string& name);

/// Creates TAP `name` without offloads, with `mac`, MTU `mtu`, up; it goes when the object goes.
/// @throws std::system_error that names the netdev and the failing step.
[[nodiscard]] std::unique_ptr<FrameEnd> open_kernel_netdev(const std::string& name,
                                                           std::span<const std::uint8_t, 6> mac, unsigned mtu);

}  // namespace softnic
