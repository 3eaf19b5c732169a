#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "vswitch/net/offload.h"

namespace vswitch {

/// What precedes every frame read from or written to a TAP descriptor with IFF_VNET_HDR: struct virtio_net_hdr (virtio
/// 1.2, section 5.1.6) in its 10-byte form, the default of TAP, little-endian (TUNSETVNETLE).
struct VnetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t hdr_len = 0;  ///< bytes of all headers; the kernel keeps that many in one piece
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;

  [[nodiscard]] Offload offload() const noexcept { return {flags, gso_type, gso_size, csum_start, csum_offset}; }
};
inline constexpr std::size_t kVnetHeaderBytes = 10;
static_assert(sizeof(VnetHeader) == kVnetHeaderBytes);
static_assert(std::endian::native == std::endian::little, "the fields above are used as they lie");

}  // namespace vswitch
