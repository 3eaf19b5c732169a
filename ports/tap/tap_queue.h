#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/base/fd.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/port.h"

namespace vswitch {

/// One queue of a TAP netdev: one descriptor, one worker.
///
/// receive() reads {virtio-net header, frame} one behind the other into the worker's scratch memory, one read() a
/// frame; transmit() writes {virtio-net header, private header copy, rest} from where the frame lies, one writev() a
/// frame. The kernel copies; what it handed over cannot change any more. A frame whose checksum is to be finished is
/// copied once more, into memory of the queue's own. io_uring was measured as an alternative: a little cheaper for
/// small frames, dearer for the large ones that TAP mostly carries, see DECISIONS.md.
class TapQueue final : public Queue {
 public:
  /// @param fd non-blocking; attached to the netdev, whose virtio-net header has kVnetHeaderBytes
  /// @param scratch the worker's; outlives this
  /// @param vlan access VLAN 1..4094, or 0: frames pass with the tags they have
  /// Throws Error (no memory).
  TapQueue(Fd fd, PortCounters& counters, std::span<std::byte> scratch, std::uint16_t vlan)
      : Queue(counters),
        fd_(std::move(fd)),
        scratch_(scratch),
        finished_(Mapping::anonymous(kFinishBytes)),
        vlan_(vlan) {}

  [[nodiscard]] std::size_t receive(Burst& out) noexcept override;
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames) noexcept override;
  void release(Burst& /*lent*/) noexcept override {}  // the next receive() writes over them
  [[nodiscard]] int wait_fd() const noexcept override { return fd_.get(); }
  /// The descriptor is always armed: an arrival after the read that found nothing makes an edge.
  [[nodiscard]] bool arm() noexcept override { return drained_; }
  [[nodiscard]] Drop refusal() const noexcept override { return refusal_; }

 private:
  /// A whole cache line for the virtio-net header, the longest frame, a tag.
  static constexpr std::size_t kFinishBytes = kMaxFrameBytes + 128;

  [[nodiscard]] bool lend(std::span<std::byte> raw, Frame& frame) noexcept;
  /// @return false: see errno
  [[nodiscard]] bool write(const Frame& frame) noexcept;
  [[nodiscard]] bool write_finished(const Frame& frame, bool tagged) noexcept;

  Fd fd_;
  std::span<std::byte> scratch_;  ///< frames that are lent
  Mapping finished_;              ///< the frame that is being finished; takes no memory before there was one
  std::uint16_t vlan_;
  bool drained_ = false;  ///< the last read found nothing
  bool gone_ = false;     ///< the netdev was deleted: no more system calls on it
  Drop refusal_ = Drop::dest_full;
};

}  // namespace vswitch
