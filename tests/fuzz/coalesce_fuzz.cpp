// Bursts of TCP-like frames, each a little spoilt, through the coalescer: whatever it merges, cutting the result again
// gives the frames that came in, and none is lost, doubled or changed. Input: a byte of capabilities, then six bytes a
// frame: what it is, how its sequence number goes on, payload length (2), which header byte is overwritten with what.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "tests/unit/offload_frames.h"
#include "vswitch/core/adapt.h"
#include "vswitch/core/coalesce.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/net/offload_check.h"

namespace vswitch {
namespace {

using test::BuiltFrame;
using test::Bytes;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr std::size_t kRecord = 6;
constexpr std::size_t kMaxPayload = 3000;

struct Lent {
  Bytes bytes;
  std::array<std::byte, kHeaderBytes> header{};
  Frame frame;
};

/// Checksums as a sender leaves them: right, so that merging is not refused for them alone.
void seal(BuiltFrame& frame, bool ipv6) {
  Bytes& b = frame.bytes;
  if (!ipv6) {
    test::set16(b, frame.l3 + 10, 0);
    test::set16(b, frame.l3 + 10, 0xffff ^ test::reference_sum(std::span(b).subspan(frame.l3, frame.l4 - frame.l3)));
  }
  test::set16(b, frame.l4 + 16, 0);
  const auto addresses = std::span(b).subspan(frame.l3 + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
  const std::size_t pseudo = test::reference_sum(addresses, b.size() - frame.l4 + 6);
  test::set16(b, frame.l4 + 16, 0xffff ^ test::reference_sum(std::span(b).subspan(frame.l4), pseudo));
}

std::unique_ptr<Lent> make(const std::uint8_t* record, std::array<std::size_t, 4>& next) {
  const unsigned what = record[0];
  const std::size_t flow = what & 3;
  test::FrameSpec spec;
  spec.ipv6 = (what & 1) != 0;
  if ((what & 4) != 0) spec.tags = {7};
  if ((what & 8) != 0) spec.tcp_options = 0;
  spec.flags = (what & 16) != 0 ? 0x018 : 0x010;
  spec.payload = (record[2] | std::size_t{record[3]} << 8) % kMaxPayload;
  spec.sequence = (next[flow] + record[1]) & 0xffffffff;
  spec.id = next[flow] / 1000;
  spec.gso_size = 0;
  next[flow] = spec.sequence + spec.payload;
  BuiltFrame frame = build(spec);
  if (record[4] < frame.header_length) frame.bytes[record[4]] = static_cast<std::byte>(record[5]);
  if ((what & 32) == 0) seal(frame, spec.ipv6);

  auto lent = std::make_unique<Lent>();
  lent->bytes = frame.bytes;
  lent->frame.data = lent->bytes.data();
  lent->frame.header = lent->header.data();
  lent->frame.length = static_cast<std::uint32_t>(frame.bytes.size());
  lent->frame.header_bytes = static_cast<std::uint16_t>(std::min(frame.bytes.size(), kHeaderBytes));
  std::copy_n(frame.bytes.begin(), lent->frame.header_bytes, lent->header.begin());
  return lent;
}

Bytes bytes_of(const Frame& frame) {
  Bytes bytes(copied_length(frame, false));
  copy_out(bytes.data(), frame, false);
  return bytes;
}

/// Without what may differ: the ID of a frame with DF that did not count up, and so the header's checksum.
Bytes normal(Bytes bytes) {
  const std::size_t l3 = test::get16(bytes, 12) == 0x8100 ? 18 : 14;
  if (bytes.size() >= l3 + 20 && test::get16(bytes, l3 - 2) == 0x0800) {
    test::set16(bytes, l3 + 4, 0);
    test::set16(bytes, l3 + 10, 0);
  }
  return bytes;
}

}  // namespace
}  // namespace vswitch

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vswitch;
  static Coalescer coalescer;
  if (size == 0) return 0;
  const OffloadCaps caps{
      .checksum = true, .tso4 = (data[0] & 1) != 0, .tso6 = (data[0] & 2) != 0, .ecn = (data[0] & 4) != 0};
  std::vector<std::unique_ptr<Lent>> lent;
  std::array<std::size_t, 4> next{};
  for (std::size_t at = 1; at + kRecord <= size && lent.size() < kBurstFrames; at += kRecord) {
    lent.push_back(make(data + at, next));
  }
  std::vector<const Frame*> frames;
  std::vector<Bytes> sent;
  for (const auto& one : lent) {
    frames.push_back(&one->frame);
    sent.push_back(normal(bytes_of(one->frame)));
  }
  frames.resize(coalescer.merge(frames, caps));

  Adapter adapter;
  std::vector<Bytes> got;
  for (const Frame* frame : frames) {
    if (!frame->offload.is_gso()) {
      got.push_back(normal(bytes_of(*frame)));
      continue;
    }
    require(Adapter::covers(caps, frame->offload));
    require(offload_is_valid(frame->offload, {frame->header, frame->header_bytes}, frame->length));
    adapter.reset();
    std::array<const Frame*, kMaxSegments> pieces{};
    const std::size_t count = adapter.adapt(*frame, {}, pieces);
    require(count >= 2);
    for (const Frame* piece : std::span(pieces).first(count)) got.push_back(normal(bytes_of(*piece)));
  }
  std::ranges::sort(sent);
  std::ranges::sort(got);
  require(got == sent);
  return 0;
}
