#include "vswitch/core/adapt.h"

#include "vswitch/net/gso.h"

namespace vswitch {

std::size_t Adapter::adapt(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept {
  exhausted_ = false;
  if (frame.length > kMaxFrameBytes) return 0;
  return frame.offload.is_gso() ? segment(frame, caps, out) : finish_checksum(frame, out);
}

bool Adapter::has_room(std::size_t count, std::size_t out) noexcept {
  exhausted_ = used_ + count > kFrames || count > out;
  return !exhausted_;
}

std::size_t Adapter::finish_checksum(const Frame& frame, std::span<const Frame*> out) noexcept {
  const Offload& offload = frame.offload;
  const std::size_t field = std::size_t{offload.csum_start} + offload.csum_offset;
  if (offload.needs_checksum() && field + sizeof(std::uint16_t) > frame.length) return 0;
  if (!has_room(1, out.size())) return 0;
  Frame& derived = memory_->frames[used_++];
  derived = frame;
  derived.kept = nullptr;
  if (offload.needs_checksum()) {
    derived.finish = Finish::checksum;
  } else {
    derived.offload = {};
  }
  out[0] = &derived;
  return 1;
}

std::size_t Adapter::segment(const Frame& frame, OffloadCaps caps, std::span<const Frame*> out) noexcept {
  Segmenter segmenter({frame.header, frame.header_bytes}, frame.length, frame.offload);
  const std::size_t segments = segmenter.segments();
  if (segments == 0 || !has_room(segments, out.size())) return 0;
  Finish finish = Finish::none;
  if (!caps.checksum) {
    const bool tcp = frame.offload.gso_kind() != Offload::kGsoUdpL4;
    finish = tcp ? Finish::checksum_as_is : Finish::checksum;
  }
  const Offload partial{.flags = Offload::kNeedsChecksum,
                        .csum_start = frame.offload.csum_start,
                        .csum_offset = frame.offload.csum_offset};
  for (std::size_t i = 0; i < segments; ++i) {
    // Member by member: a Frame put together on the stack and then copied would wait for its own stores.
    Frame& derived = memory_->frames[used_];
    derived.header = memory_->headers[used_].data();
    const Segmenter::Segment segment = segmenter.next({derived.header, kHeaderBytes});
    derived.data = frame.data + segment.offset;
    derived.length = segment.length;
    derived.header_bytes = segment.header_bytes;
    derived.vlan = frame.vlan;
    derived.offload = partial;
    derived.finish = finish;
    out[i] = &derived;
    ++used_;
  }
  return segments;
}

}  // namespace vswitch
