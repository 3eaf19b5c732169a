#pragma once
#include <cstdint>

#include "vswitch/net/offload.h"

namespace vswitch::af_packet {

/// What PACKET_VNET_HDR puts before every frame: the 10-byte legacy virtio-net header in host byte order (virtio 1.2,
/// section 5.1.6.1). Stated here because <linux/virtio_net.h> is not C++.
struct VnetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t hdr_len = 0;  ///< how much of a frame the kernel should keep in one linear piece
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

[[nodiscard]] inline Offload to_offload(const VnetHeader& header) noexcept {
  Offload offload;
  offload.flags = header.flags & (Offload::kNeedsChecksum | Offload::kDataValid);
  offload.gso_type = header.gso_type;
  if (offload.is_gso()) offload.gso_size = header.gso_size;
  if (offload.needs_checksum()) {
    offload.csum_start = header.csum_start;
    offload.csum_offset = header.csum_offset;
  }
  return offload;
}

}  // namespace vswitch::af_packet
