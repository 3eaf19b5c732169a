#include "tests/softnic/core/rss.h"

#include <array>

#include "tests/softnic/core/offload.h"

namespace softnic {

std::uint32_t rss_hash(std::uint64_t fields, Bytes key, Bytes frame, const Headers& headers) noexcept {
  std::array<std::uint8_t, 36> input{};
  std::size_t length = 0;
  const auto add = [&](std::uint64_t field, std::size_t at, std::size_t bytes) {
    if ((fields & field) == 0) return;
    std::memcpy(&input[length], &frame[at], bytes);
    length += bytes;
  };
  if (headers.ipv4) {
    add(HashField::kSrcIpv4, headers.l3 + 12U, 4);
    add(HashField::kDstIpv4, headers.l3 + 16U, 4);
  } else if (headers.ipv6) {
    add(HashField::kSrcIpv6, headers.l3 + 8U, 16);
    add(HashField::kDstIpv6, headers.l3 + 24U, 16);
  }
  if (headers.l4 != 0) {
    add(headers.tcp() ? HashField::kSrcPortTcp : HashField::kSrcPortUdp, headers.l4, 2);
    add(headers.tcp() ? HashField::kDstPortTcp : HashField::kDstPortUdp, headers.l4 + 2U, 2);
  }
  return length == 0 ? 0 : toeplitz(key, Bytes(input.data(), length));
}

}  // namespace softnic
