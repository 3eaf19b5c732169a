#pragma once

#include <cstdint>

#include "tests/softnic/core/headers.h"

namespace softnic {

/// Which fields are hashed; the bits of enum ibv_rx_hash_fields.
struct HashField {
  static constexpr std::uint64_t kSrcIpv4 = 1, kDstIpv4 = 2, kSrcIpv6 = 4, kDstIpv6 = 8;
  static constexpr std::uint64_t kSrcPortTcp = 16, kDstPortTcp = 32, kSrcPortUdp = 64, kDstPortUdp = 128;
  static constexpr std::uint64_t kAll = 255;
};

/// Hash of the wanted fields in the order of the RSS specification: addresses, then ports. 0 where the frame has none
/// of them. `key`: 40 bytes.
[[nodiscard]] std::uint32_t rss_hash(std::uint64_t fields, Bytes key, Bytes frame, const Headers& headers) noexcept;

}  // namespace softnic
