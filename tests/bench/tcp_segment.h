#pragma once
#include <vswitch/vswitch.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vswitch/net/mac.h"

// TCP over IPv4 in untagged Ethernet frames: reading and writing.

namespace vswitch::bench {

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kIpBytes = 20;
inline constexpr std::size_t kTcpBytes = 20;
inline constexpr std::size_t kSegmentHeaders = kEthernetBytes + kIpBytes + kTcpBytes;  ///< without options
inline constexpr std::size_t kMostHeaders = kSegmentHeaders + 8;                       ///< with those of a SYN

inline constexpr std::uint8_t kFin = 1;
inline constexpr std::uint8_t kSyn = 2;
inline constexpr std::uint8_t kRst = 4;
inline constexpr std::uint8_t kPush = 8;
inline constexpr std::uint8_t kAck = 16;

/// One end of a connection.
struct Endpoint {
  Mac mac;
  std::uint32_t address = 0;  ///< in memory order
  std::uint16_t port = 0;
};

/// What a TCP header says, host order.
struct TcpHeader {
  std::uint32_t sequence = 0;
  std::uint32_t acknowledgment = 0;
  std::uint8_t flags = 0;
  std::uint16_t window = 0;  ///< as it is written, not scaled
  std::uint16_t mss = 0;     ///< 0: no such option
  int window_shift = -1;     ///< -1: no such option
};

/// A received segment; its payload is where the frame is.
struct Segment {
  Endpoint from;
  Endpoint to;
  TcpHeader header;
  std::span<const std::byte> payload;
};

/// nullopt: something else, or nonsense.
[[nodiscard]] std::optional<Segment> read_segment(const vswitch_frame& frame) noexcept;

/// Whether the frame's TCP checksum is right; computed only if nobody vouches for it.
[[nodiscard]] bool checksum_is_right(const vswitch_frame& frame) noexcept;

/// Writes a whole segment and sets the frame's length.
/// @param frame has room for kMostHeaders and the payload
/// @param segment_bytes 0: with its checksum; else that is left undone, and the frame is to be cut into segments with
/// so much payload
void write_segment(vswitch_frame& frame, const Endpoint& from, const Endpoint& to, const TcpHeader& header,
                   std::span<const std::byte> payload, std::uint16_t segment_bytes) noexcept;

}  // namespace vswitch::bench
