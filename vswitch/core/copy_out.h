#pragma once
#include <cstddef>
#include <cstdint>

#include "vswitch/core/frame.h"

namespace vswitch {

/// Bytes that copy_out() writes.
[[nodiscard]] inline std::uint32_t copied_length(const Frame& frame, bool insert_tag) noexcept {
  return frame.length + (insert_tag ? static_cast<std::uint32_t>(kVlanTagBytes) : 0);
}

/// The first part of copy_out(): the header copy, and the tag. @return behind what was written
std::byte* copy_out_header(std::byte* to, const Frame& frame, bool insert_tag) noexcept;

/// The one copy of a frame's life: writes all of it to `to`, which has room for copied_length().
///
/// Every byte is read once. A checksum to finish is summed from the very bytes that are stored, so it is right for what
/// was sent even while the owner of the frame rewrites it.
/// @param insert_tag puts Frame::vlan, which is not 0, into the bytes as an 802.1Q tag
void copy_out(std::byte* to, const Frame& frame, bool insert_tag) noexcept;

}  // namespace vswitch
