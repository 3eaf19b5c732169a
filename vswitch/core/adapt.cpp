#include "vswitch/core/adapt.h"

#include <algorithm>

#include "vswitch/net/checksum.h"
#include "vswitch/net/gso.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line: derived frames share none
/// What a frame costs in scratch: kHeaderBytes must be readable whatever its length.
constexpr std::size_t footprint(std::size_t length) noexcept {
  return (std::max(length, kHeaderBytes) + kAlignment - 1) / kAlignment * kAlignment;
}

/// Bounds what `count` segments of a frame cost: each repeats the headers, and footprint() rounds up.
constexpr std::size_t segments_footprint(std::size_t frame_length, std::size_t count) noexcept {
  return frame_length + count * (2 * kHeaderBytes + kAlignment);
}

/// Two GSO frames of any kind fit; small enough to stay in the second-level cache until transmit() reads it.
constexpr std::size_t kScratch = std::size_t{256} << 10;
constexpr std::size_t kFrames = std::size_t{2} * kMaxSegments;
static_assert(2 * segments_footprint(kMaxFrameBytes, kMaxSegments) <= kScratch);

}  // namespace

Adapter::Adapter() : scratch_(Mapping::anonymous(kScratch)), frames_(kFrames) {}

std::size_t Adapter::adapt(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept {
  exhausted_ = false;
  if (frame.length > kMaxFrameBytes) return 0;
  return frame.offload.is_gso() ? segment(frame, caps, out) : finish_checksum(frame, out);
}

bool Adapter::has_room(std::size_t count, std::size_t bytes, std::size_t out) noexcept {
  exhausted_ = used_bytes_ + bytes > kScratch || used_frames_ + count > kFrames || count > out;
  return !exhausted_;
}

Frame& Adapter::derive(const Frame& from, std::size_t length, const Offload& offload) noexcept {
  Frame& frame = frames_[used_frames_++];
  frame.header = scratch_.data() + used_bytes_;
  frame.data = frame.header;
  frame.length = static_cast<std::uint32_t>(length);
  frame.header_bytes = static_cast<std::uint16_t>(std::min(length, kHeaderBytes));
  frame.vlan = from.vlan;
  frame.offload = offload;
  used_bytes_ += footprint(length);
  return frame;
}

std::size_t Adapter::finish_checksum(const Frame& frame, std::span<const Frame*> out) noexcept {
  const Offload& offload = frame.offload;
  const std::size_t field = std::size_t{offload.csum_start} + offload.csum_offset;
  if (!offload.needs_checksum() || field + sizeof(std::uint16_t) > frame.length) return 0;
  if (!has_room(1, footprint(frame.length), out.size())) return 0;
  const Frame& derived = derive(frame, frame.length, Offload{});
  const auto rest = frame.rest();
  std::copy_n(frame.header, frame.header_bytes, derived.header);
  std::copy(rest.begin(), rest.end(), derived.header + frame.header_bytes);
  const std::span<const std::byte> summed(derived.header + offload.csum_start, frame.length - offload.csum_start);
  store_raw(derived.header + field, checksum_finish(checksum_add(0, summed)));
  out[0] = &derived;
  return 1;
}

std::size_t Adapter::segment(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept {
  const auto checksum = caps.checksum ? Segmenter::Checksum::leave : Segmenter::Checksum::finish;
  Segmenter segmenter({frame.header, frame.header_bytes}, frame.rest(), frame.offload, checksum);
  const std::size_t segments = segmenter.segments();
  if (segments == 0 || !has_room(segments, segments_footprint(frame.length, segments), out.size())) return 0;
  Offload offload;
  if (caps.checksum) {
    offload.flags = Offload::kNeedsChecksum;
    offload.csum_start = frame.offload.csum_start;
    offload.csum_offset = frame.offload.csum_offset;
  }
  std::size_t count = 0;
  for (std::size_t length = segmenter.next_length(); length != 0; length = segmenter.next_length()) {
    const Frame& derived = derive(frame, length, offload);
    (void)segmenter.next({derived.header, length});
    out[count++] = &derived;
  }
  return count;
}

}  // namespace vswitch
