#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/ports/harness.h"
#include "vswitch/net/mac.h"

namespace vswitch::test {

/// Frames of the tests come from this address, so that they can be told from what a kernel sends by itself.
inline constexpr Mac kFrom{{0x02, 0x7e, 0x57, 0x00, 0x00, 0x01}};
inline constexpr Mac kTo{{0x02, 0x7e, 0x57, 0x00, 0x00, 0x02}};

/// An Ethernet frame of `length` bytes (16 at least) from kFrom to `to`, of an experimental type; bytes 14 and 15 hold
/// `number`, the rest depends on it.
inline TestFrame numbered(std::uint16_t number, std::size_t length, const Mac& to = kTo) {
  TestFrame frame;
  frame.bytes.resize(length);
  for (std::size_t i = 0; i < 6; ++i) {
    frame.bytes[i] = std::byte{to.bytes[i]};
    frame.bytes[i + 6] = std::byte{kFrom.bytes[i]};
  }
  frame.bytes[12] = std::byte{0x88};
  frame.bytes[13] = std::byte{0xb5};
  frame.bytes[14] = static_cast<std::byte>(number >> 8);
  frame.bytes[15] = static_cast<std::byte>(number);
  for (std::size_t i = 16; i < length; ++i) frame.bytes[i] = static_cast<std::byte>(number * 7U + i);
  return frame;
}
inline std::uint16_t number_of(const TestFrame& frame) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(frame.bytes[14]) << 8 |
                                    std::to_integer<unsigned>(frame.bytes[15]));
}

/// The frame with its tag inside the bytes.
TestFrame with_inline_tag(TestFrame frame, std::uint16_t type = 0x8100);
/// A tag in bytes and a tag beside them say the same: inside them.
inline TestFrame canonical(TestFrame frame) { return frame.vlan != 0 ? with_inline_tag(std::move(frame)) : frame; }

/// A TCP/IPv4 segment with `payload` bytes whose checksum is left to the receiver: the field holds the pseudo-header
/// sum.
/// @param gso_size not 0: it is to be cut into segments of that much payload
TestFrame unfinished_tcp(std::size_t payload, std::uint16_t gso_size, std::uint16_t source_port = 4000,
                         const Mac& to = kTo);
/// The same for UDP.
TestFrame unfinished_udp(std::size_t payload, std::uint16_t gso_size, const Mac& to = kTo);

}  // namespace vswitch::test
