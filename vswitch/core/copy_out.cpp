#include "vswitch/core/copy_out.h"

#include <cstring>
#include <span>

#include "vswitch/base/short_copy.h"
#include "vswitch/core/vlan.h"
#include "vswitch/net/checksum.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

static_assert(kHeaderBytes == 2 * kCopyLine);

/// Copies what lies behind the header to `to`. @return the sum of all that the checksum covers
std::uint64_t copy_rest_summing(std::byte* to, const Frame& frame) noexcept {
  const std::span<const std::byte> rest = frame.rest();
  const std::size_t start = frame.offload.csum_start;
  if (start >= frame.header_bytes) {
    const std::size_t before = start - frame.header_bytes;
    std::memcpy(to, rest.data(), before);
    return checksum_copy(0, to + before, rest.subspan(before));
  }
  const std::size_t in_header = frame.header_bytes - start;
  const std::uint64_t sum = checksum_add(0, {frame.header + start, in_header});
  if (in_header % 2 == 0) return checksum_copy(sum, to, rest);
  return sum + checksum_shift(checksum_copy(0, to, rest));
}

}  // namespace

std::byte* copy_out_header(std::byte* to, const Frame& frame, bool insert_tag) noexcept {
  if (!insert_tag) {
    copy_up_to_two_lines(to, frame.header, frame.header_bytes);
    return to + frame.header_bytes;
  }
  const auto tag = vlan_tag(frame.vlan);
  std::memcpy(to, frame.header, kMacPairBytes);
  std::memcpy(to + kMacPairBytes, tag.data(), tag.size());
  std::memcpy(to + kMacPairBytes + tag.size(), frame.header + kMacPairBytes, frame.header_bytes - kMacPairBytes);
  return to + frame.header_bytes + tag.size();
}

void copy_out(std::byte* to, const Frame& frame, bool insert_tag) noexcept {
  std::byte* const rest = copy_out_header(to, frame, insert_tag);
  if (frame.finish == Finish::none) {
    std::memcpy(rest, frame.data + frame.header_bytes, frame.length - frame.header_bytes);
    return;
  }
  const std::uint64_t sum = copy_rest_summing(rest, frame);
  const std::uint16_t checksum = frame.finish == Finish::checksum ? checksum_finish(sum) : checksum_complement(sum);
  const std::size_t field = std::size_t{frame.offload.csum_start} + frame.offload.csum_offset;
  store_raw(to + field + (insert_tag ? kVlanTagBytes : 0), checksum);
}

}  // namespace vswitch
