// libvswitch for C++20: the functions of vswitch.h as a movable owner, with spans. Header only. See libvswitch(3).
//
//   vswitch::tenant::Port port("/run/vswitch/red-web.sock");
//   std::array<vswitch::tenant::Frame, 64> frames;
//   while (port.wait()) {
//     const auto received = port.peek(frames);
//     for (const vswitch::tenant::Frame& frame : received) look_at(vswitch::tenant::bytes(frame));
//     port.release(received.size());
//   }
//
// Only attaching throws. Threads, re-attachment and the life of frames are as in vswitch.h.
#ifndef VSWITCH_HPP
#define VSWITCH_HPP

#include <vswitch/vswitch.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>

namespace vswitch::tenant {

using Frame = ::vswitch_frame;
using Info = ::vswitch_port_info;

/// A received frame's bytes, read-only. Valid as long as the frame is.
[[nodiscard]] inline std::span<const std::byte> bytes(const Frame& frame) noexcept {
  return {static_cast<const std::byte*>(frame.data), frame.length};
}
/// A reserved frame's room: writable, and as long as was asked for until `length` is made shorter.
[[nodiscard]] inline std::span<std::byte> room(const Frame& frame) noexcept {
  return {static_cast<std::byte*>(frame.data), frame.length};
}

/// Leaves the transport checksum of a frame to be sent undone: vswitch_frame_partial_checksum().
/// @return 0, or a negative errno; then the frame is as it was
[[nodiscard]] inline int partial_checksum(Frame& frame) noexcept { return ::vswitch_frame_partial_checksum(&frame); }
/// Leaves cutting it into segments undone, too: vswitch_frame_segment().
/// @param segment_bytes TCP or UDP payload of each
/// @return 0, or a negative errno; then the frame is as it was
[[nodiscard]] inline int segment(Frame& frame, std::uint16_t segment_bytes) noexcept {
  return ::vswitch_frame_segment(&frame, segment_bytes);
}

/// What is known about a received frame's transport checksum.
enum class Checksum : std::uint8_t {
  unknown = VSWITCH_CHECKSUM_UNKNOWN,  ///< to be verified
  valid = VSWITCH_CHECKSUM_VALID,      ///< was verified
  partial = VSWITCH_CHECKSUM_PARTIAL,  ///< from this host: the data is good, the field holds no checksum yet
};
[[nodiscard]] inline Checksum checksum(const Frame& frame) noexcept {
  return static_cast<Checksum>(::vswitch_frame_checksum(&frame));
}
/// Payload bytes of each segment of a received frame; 0: it is one frame.
[[nodiscard]] inline std::uint16_t segment_bytes(const Frame& frame) noexcept {
  return ::vswitch_frame_segment_bytes(&frame);
}
/// Copies a received frame to the start of `out`, its checksum computed: vswitch_frame_finish().
/// @return 0, or a negative errno; then nothing was written
[[nodiscard]] inline int finish(const Frame& frame, std::span<std::byte> out) noexcept {
  const std::size_t most = std::numeric_limits<std::uint32_t>::max();
  return ::vswitch_frame_finish(&frame, out.data(), static_cast<std::uint32_t>(out.size() < most ? out.size() : most));
}

struct Options {
  std::uint32_t features = 0;            ///< VSWITCH_FEATURE_*: unfinished frames this tenant is ready to receive
  std::string token = {};                ///< the port's token; empty: none
  std::chrono::milliseconds timeout{0};  ///< how long to wait for the switch's answer; 0: one second
};

/// A tenant's Ethernet port. Every queue pair may be used by one thread at a time, and different ones by different
/// threads; moving and destroying are for one thread, with no other call under way. A moved-from port may only be
/// assigned to or destroyed.
class Port {
 public:
  /// Throws std::system_error; what() says why in words, code() is an errno of std::system_category().
  explicit Port(const std::string& socket_path, const Options& options = {}) {
    ::vswitch_options wanted{};
    wanted.size = sizeof(wanted);
    wanted.features = options.features;
    wanted.token = options.token.empty() ? nullptr : options.token.c_str();
    wanted.timeout_ms = static_cast<std::int32_t>(options.timeout.count());
    ::vswitch_port* attached = nullptr;
    if (const int error = ::vswitch_attach(socket_path.c_str(), &wanted, &attached); error != 0) {
      throw std::system_error(-error, std::system_category(), ::vswitch_attach_error());
    }
    port_.reset(attached);
  }

  [[nodiscard]] Info info() const noexcept {
    Info info;
    ::vswitch_info(port_.get(), &info);
    return info;
  }

  /// Other features for this attachment and those to come: vswitch_set_features().
  /// @return 0, or a negative errno
  [[nodiscard]] int set_features(std::uint32_t features) noexcept {
    return ::vswitch_set_features(port_.get(), features);
  }

  /// Reserves room for a prefix of `frames`, whose lengths say how much is needed.
  /// @return the frames that got room; empty: none now
  [[nodiscard]] std::span<Frame> reserve(std::span<Frame> frames, std::uint32_t queue = 0) noexcept {
    return frames.first(::vswitch_tx_reserve(port_.get(), queue, frames.data(), count(frames)));
  }
  /// Sends the first frames of the last reserve(), as many as are given.
  void commit(std::span<const Frame> frames, std::uint32_t queue = 0) noexcept {
    ::vswitch_tx_commit(port_.get(), queue, frames.data(), count(frames));
  }

  /// Shows the oldest received frames in a prefix of `frames`, without taking them.
  [[nodiscard]] std::span<const Frame> peek(std::span<Frame> frames, std::uint32_t queue = 0) noexcept {
    return frames.first(::vswitch_rx_peek(port_.get(), queue, frames.data(), count(frames)));
  }
  /// Gives the oldest `frames` frames of the last peek() back.
  void release(std::size_t frames, std::uint32_t queue = 0) noexcept {
    ::vswitch_rx_release(port_.get(), queue, static_cast<std::uint32_t>(frames));
  }

  /// Sleeps until frames have come; without `limit`, as long as it takes.
  /// @return true: frames are there; false: time is up, or a signal came
  bool wait(std::optional<std::chrono::milliseconds> limit = {}, std::uint32_t queue = 0) noexcept {
    return ::vswitch_wait(port_.get(), queue, limit ? static_cast<int>(limit->count()) : -1) == 1;
  }

  /// For an event loop: vswitch_fd() and vswitch_arm().
  [[nodiscard]] int fd(std::uint32_t queue = 0) noexcept { return ::vswitch_fd(port_.get(), queue); }
  [[nodiscard]] int arm(std::uint32_t queue = 0) noexcept { return ::vswitch_arm(port_.get(), queue); }

  /// For calls into vswitch.h; stays this object's.
  [[nodiscard]] ::vswitch_port* get() const noexcept { return port_.get(); }

 private:
  struct Detach {
    void operator()(::vswitch_port* port) const noexcept { ::vswitch_detach(port); }
  };
  static std::uint32_t count(std::span<const Frame> frames) noexcept {
    return static_cast<std::uint32_t>(frames.size());
  }

  std::unique_ptr<::vswitch_port, Detach> port_;
};

}  // namespace vswitch::tenant

#endif
