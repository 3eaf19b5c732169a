#pragma once

#include <cstdint>
#include <type_traits>

#include "tests/softnic/core/steering.h"

/// Between a process that has the device open and the device's daemon: SOCK_SEQPACKET Unix sockets of one machine and
/// one build. One connection is one open context; when it ends, whatever the process did, its rules end.
///
/// The daemon answers a connection with a byte and, by SCM_RIGHTS, the socket that frames go over.
namespace softnic {

enum class Ask : std::uint32_t { allocate_queue = 1, release_queue, add_rule, remove_rule };

struct Request {
  Ask ask;
  std::uint32_t value;  ///< queue pair number, or rule
  Rule rule;            ///< of add_rule
};
struct Reply {
  std::int32_t error;  ///< 0 or a positive errno
  std::uint32_t value;
};

/// Stands before each frame.
struct FrameHeader {
  std::uint32_t queue;  ///< that sends it, or that gets it
  std::uint32_t tag;
  std::uint8_t port;
  std::uint8_t tagged;
  std::uint16_t zero;
};

static_assert(std::is_trivially_copyable_v<Request> && std::is_trivially_copyable_v<Reply>);

inline constexpr int kChannelBytes = 8 << 20;  ///< socket buffer of frames, each way

}  // namespace softnic
