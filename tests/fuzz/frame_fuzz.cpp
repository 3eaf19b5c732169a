// Feeds any offload header with any frame to the path every tenant's frame takes: check, sanitize, segment, adapt.
//
// Input: 8 bytes Offload as it lies in memory, 1 byte OffloadCaps bits, then the frame. What is promised of every frame
// that passes the check is asserted here; memory errors are the sanitizers' to find.

#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "vswitch/core/adapt.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/net/gso.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/offload_check.h"

namespace {

using namespace vswitch;

void require(bool condition) {
  if (!condition) std::abort();
}

OffloadCaps caps_of(unsigned bits) {
  return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0};
}

/// Every segment fits its headers' story, and together they are the frame's payload.
void check_segments(std::span<const std::byte> header, std::span<const std::byte> rest, const Offload& offload) {
  const std::size_t frame_length = header.size() + rest.size();
  Segmenter segmenter(header, frame_length, offload);
  require(segmenter.segments() >= 2 && segmenter.segments() <= kMaxSegments);
  const std::size_t header_length = offload_header_length(offload, header);
  std::size_t payload = 0;
  std::size_t count = 0;
  std::vector<std::byte> out(header.size());
  for (auto segment = segmenter.next(out); segment.length != 0; segment = segmenter.next(out)) {
    require(segment.header_bytes >= header_length &&
            segment.header_bytes <= std::min<std::size_t>(header.size(), segment.length));
    const auto headers = Headers::parse(std::span(out).first(segment.header_bytes));
    require(headers && (headers->is_tcp() || headers->is_udp()) && headers->header_length() == header_length);
    require(segment.length <= wire_length(offload, header, 0) && segment.length > header_length);
    // What is not in `out` lies in `rest`, where the segment says.
    const std::size_t from = std::size_t{segment.offset} + segment.header_bytes;
    require(segment.header_bytes == segment.length || from >= header.size());
    require(std::size_t{segment.offset} + segment.length <= frame_length);
    payload += segment.length - header_length;
    ++count;
  }
  require(count == segmenter.segments());
  require(payload == frame_length - header_length);
}

void check_adapted(Adapter& adapter, const Frame& frame, OffloadCaps caps) {
  std::array<const Frame*, kMaxSegments> out{};
  adapter.reset();
  const std::size_t count = adapter.adapt(frame, caps, out);
  require(count != 0);  // a valid frame can be finished, and fits an empty adapter
  std::size_t bytes = 0;
  for (const Frame* derived : std::span(out).first(count)) {
    require(Adapter::covers(caps, derived->left_to_do()));
    require(derived->vlan == frame.vlan);
    require(derived->length <= frame.length);
    require(derived->header_bytes <= std::min<std::size_t>(derived->length, kHeaderBytes));
    std::vector<std::byte> copy(copied_length(*derived, true));
    copy_out(copy.data(), *derived, true);
    bytes += derived->length;
  }
  require(bytes >= frame.length);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Adapter adapter;
  constexpr std::size_t kPrefix = sizeof(Offload) + 1;
  if (size < kPrefix || size - kPrefix > kMaxFrameBytes) return 0;
  Offload offload;
  std::memcpy(&offload, data, sizeof(offload));
  const OffloadCaps caps = caps_of(data[sizeof(offload)]);
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(kPrefix);
  const auto length = static_cast<std::uint32_t>(bytes.size());
  // Both parts on the heap, to the byte, so that a byte read too much is seen.
  std::vector<std::byte> header(bytes.begin(), bytes.begin() + std::min<std::ptrdiff_t>(length, kHeaderBytes));
  header.shrink_to_fit();
  const std::vector<std::byte> rest(bytes.begin() + static_cast<std::ptrdiff_t>(header.size()), bytes.end());

  (void)Headers::parse(bytes);
  const auto origin = (data[sizeof(offload)] & 0x80) != 0 ? OffloadOrigin::kernel : OffloadOrigin::tenant;
  if (!offload_is_valid(offload, header, length)) {
    Segmenter refused(header, length, offload);
    require(refused.segments() == 0);
    return 0;
  }
  offload = sanitize(offload, header, length, origin);
  require(offload_is_valid(offload, header, length));
  require(sanitize(offload, header, length, origin) == offload);
  if (offload.is_gso()) check_segments(header, rest, offload);

  std::array<std::byte, kHeaderBytes> private_header{};
  std::copy(header.begin(), header.end(), private_header.begin());
  // The header must not be read where it arrived.
  std::vector<std::byte> shared(bytes.begin(), bytes.end());
  ASAN_POISON_MEMORY_REGION(shared.data(), header.size());
  Frame frame;
  frame.data = shared.data();
  frame.header = private_header.data();
  frame.length = length;
  frame.header_bytes = static_cast<std::uint16_t>(header.size());
  frame.vlan = 0x1064;
  frame.offload = offload;
  if (Adapter::needed(frame, caps)) check_adapted(adapter, frame, caps);
  ASAN_UNPOISON_MEMORY_REGION(shared.data(), header.size());
  return 0;
}
