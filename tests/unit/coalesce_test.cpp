#include "vswitch/core/coalesce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "offload_frames.h"
#include "vswitch/core/adapt.h"
#include "vswitch/core/copy_out.h"

namespace vswitch {
namespace {

using test::build;
using test::BuiltFrame;
using test::Bytes;
using test::FrameSpec;

constexpr OffloadCaps kAll = OffloadCaps::all();
constexpr unsigned kAck = 0x010;
constexpr unsigned kPsh = 0x008;

/// A frame as a queue lends it.
class Lent {
 public:
  explicit Lent(Bytes bytes, const Offload& offload = {}, std::uint16_t vlan = 0) : bytes_(std::move(bytes)) {
    frame_.data = bytes_.data();
    frame_.header = header_.data();
    frame_.length = static_cast<std::uint32_t>(bytes_.size());
    frame_.header_bytes = static_cast<std::uint16_t>(std::min(bytes_.size(), kHeaderBytes));
    frame_.vlan = vlan;
    frame_.offload = offload;
    std::copy_n(bytes_.begin(), frame_.header_bytes, header_.begin());
    std::fill_n(bytes_.begin(), frame_.header_bytes, std::byte{0xee});  // not to be read where it lies
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  Frame& frame() { return frame_; }
  Bytes& shared() { return bytes_; }

 private:
  Bytes bytes_;
  std::array<std::byte, kHeaderBytes> header_{};
  Frame frame_;
};

Bytes bytes_of(const Frame& frame) {
  Bytes bytes(copied_length(frame, false));
  copy_out(bytes.data(), frame, false);
  return bytes;
}

/// What one burst brings, and what comes out.
class Burst64 {
 public:
  Frame& add(Bytes bytes, const Offload& offload = {}, std::uint16_t vlan = 0) {
    return lent_.emplace_back(std::make_unique<Lent>(std::move(bytes), offload, vlan))->frame();
  }
  std::vector<const Frame*> merge(OffloadCaps caps = kAll) {
    std::vector<const Frame*> frames;
    for (const auto& lent : lent_) frames.push_back(&lent->frame());
    frames.resize(coalescer_.merge(frames, caps));
    return frames;
  }
  /// As merge(), in sizes.
  std::vector<std::size_t> lengths(OffloadCaps caps = kAll) {
    std::vector<std::size_t> lengths;
    for (const Frame* frame : merge(caps)) lengths.push_back(frame->length);
    return lengths;
  }
  std::vector<std::unique_ptr<Lent>>& lent() { return lent_; }

 private:
  Coalescer coalescer_;
  std::vector<std::unique_ptr<Lent>> lent_;
};

/// A finished TCP frame: number `n` of a flow of frames with `payload` bytes each.
BuiltFrame segment(unsigned n, FrameSpec spec = {.flags = kAck, .payload = 1000}) {
  const std::size_t before = spec.payload * n;
  spec.sequence = (spec.sequence + before) & 0xffffffff;
  spec.id = (spec.id + n) & 0xffff;
  spec.seed = static_cast<unsigned>((spec.seed + before) % 251);
  spec.gso_size = 0;
  return build(spec);
}
/// Makes the checksums right, whatever was changed.
Bytes seal(BuiltFrame frame, bool ipv6 = false) {
  Bytes& b = frame.bytes;
  if (!ipv6) {
    test::set16(b, frame.l3 + 10, 0);
    test::set16(b, frame.l3 + 10, 0xffff ^ test::reference_sum(std::span(b).subspan(frame.l3, frame.l4 - frame.l3)));
  }
  const std::size_t field = frame.l4 + frame.offload.csum_offset;
  test::set16(b, field, 0);
  const std::size_t protocol = frame.offload.csum_offset == 16 ? 6 : 17;
  const auto addresses = std::span(b).subspan(frame.l3 + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
  const std::size_t pseudo = test::reference_sum(addresses, b.size() - frame.l4 + protocol);
  test::set16(b, field, 0xffff ^ test::reference_sum(std::span(b).subspan(frame.l4), pseudo));
  return b;
}

/// The segments of a GSO frame, finished.
std::vector<Bytes> cut(const Frame& frame) {
  Adapter adapter;
  std::array<const Frame*, kMaxSegments> out{};
  std::vector<Bytes> segments;
  for (std::size_t i = 0, count = adapter.adapt(frame, {}, out); i < count; ++i) segments.push_back(bytes_of(*out[i]));
  return segments;
}

TEST(Coalesce, UndoesWhatASegmenterDoes) {
  for (const bool ipv6 : {false, true}) {
    for (const unsigned flags : {0x010U, 0x018U, 0x019U, 0x090U, 0x0d9U}) {
      for (const std::vector<std::uint16_t>& tags : {std::vector<std::uint16_t>{}, {7}, {100, 7}}) {
        for (const std::size_t payload : {2U, 1449U, 2896U, 3500U, 60'000U}) {
          FrameSpec spec{.ipv6 = ipv6, .tags = tags, .flags = flags, .id = 0xfffe, .payload = payload};
          if (payload == 2) spec.gso_size = 1;
          const BuiltFrame whole = build(spec);
          Lent lent(whole.bytes, whole.offload);
          Burst64 burst;
          for (const Bytes& piece : cut(lent.frame())) burst.add(piece, {}, 0x2123);
          const auto merged = burst.merge();
          ASSERT_EQ(merged.size(), 1U);
          EXPECT_EQ(merged[0]->offload, whole.offload);
          EXPECT_EQ(merged[0]->vlan, 0x2123);
          EXPECT_EQ(bytes_of(*merged[0]), whole.bytes);
        }
      }
    }
  }
}

TEST(Coalesce, TakesPartialAndVouchedForChecksums) {
  for (const bool partial : {true, false}) {
    Burst64 burst;
    for (unsigned i = 0; i < 3; ++i) {
      BuiltFrame frame = segment(i);
      if (partial) {
        burst.add(frame.bytes, frame.offload);
      } else {
        // Nobody looks at a checksum that the uplink's kernel has verified.
        burst.add(frame.bytes, {.flags = Offload::kDataValid});
      }
    }
    EXPECT_EQ(burst.lengths(), std::vector<std::size_t>{66 + 3000}) << partial;
  }
}

TEST(Coalesce, MergedPayloadIsACopyThatNobodyElseWrites) {
  Burst64 burst;
  for (unsigned i = 0; i < 3; ++i) burst.add(seal(segment(i)));
  const auto merged = burst.merge();
  ASSERT_EQ(merged.size(), 1U);
  for (const auto& lent : burst.lent()) std::ranges::fill(lent->shared(), std::byte{0x55});
  const FrameSpec whole{.flags = kAck, .payload = 3000, .gso_size = 1000};
  EXPECT_EQ(bytes_of(*merged[0]), build(whole).bytes);
}

/// One way to make the second frame of a flow one that may not join the first.
struct Spoiler {
  const char* name;
  std::function<void(BuiltFrame&)> spoil;
  bool sealed = true;  ///< checksums are made right afterwards
};
void set8(Bytes& bytes, std::size_t at, unsigned value) { bytes.at(at) = static_cast<std::byte>(value); }

TEST(Coalesce, FramesThatMayNotJoin) {
  const std::vector<Spoiler> spoilers{
      {"destination MAC", [](BuiltFrame& f) { set8(f.bytes, 5, 9); }},
      {"source MAC", [](BuiltFrame& f) { set8(f.bytes, 11, 9); }},
      {"source address", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 15, 9); }},
      {"destination address", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 19, 9); }},
      {"source port", [](BuiltFrame& f) { test::set16(f.bytes, f.l4, 9); }},
      {"destination port", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 2, 9); }},
      {"TOS", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 1, 4); }},
      {"TTL", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 8, 63); }},
      {"DF", [](BuiltFrame& f) { test::set16(f.bytes, f.l3 + 6, 0); }},
      {"MF", [](BuiltFrame& f) { test::set16(f.bytes, f.l3 + 6, 0x6000); }},
      {"fragment offset", [](BuiltFrame& f) { test::set16(f.bytes, f.l3 + 6, 0x4001); }},
      {"ID two further", [](BuiltFrame& f) { test::set16(f.bytes, f.l3 + 4, 0x1002); }},
      {"ID backwards", [](BuiltFrame& f) { test::set16(f.bytes, f.l3 + 4, 0x0fff); }},
      {"gap", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 6, test::get16(f.bytes, f.l4 + 6) + 1); }},
      {"overlap", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 6, test::get16(f.bytes, f.l4 + 6) - 1); }},
      {"acknowledgment", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 10, 9); }},
      {"window", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 14, 501); }},
      {"urgent pointer", [](BuiltFrame& f) { test::set16(f.bytes, f.l4 + 18, 1); }},
      {"options", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 31, 0); }},
      {"reserved bits", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 12, 0x81); }},
      {"SYN", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 13, 0x12); }},
      {"RST", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 13, 0x14); }},
      {"URG", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 13, 0x30); }},
      {"ECE", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 13, 0x50); }},
      {"CWR", [](BuiltFrame& f) { set8(f.bytes, f.l4 + 13, 0x90); }},
      {"TCP checksum", [](BuiltFrame& f) { f.bytes.back() ^= std::byte{1}; }, false},
      {"IP header checksum", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 10, 0x99); }, false},
      {"padding", [](BuiltFrame& f) { f.bytes.push_back(std::byte{0}); }, false},
      {"longer than the first",
       [](BuiltFrame& f) { f = segment(1, {.flags = kAck, .sequence = 0xffffff00 - 1, .payload = 1001}); }},
      {"no payload",
       [](BuiltFrame& f) {
         f = build({.flags = kAck, .sequence = 0xffffff00 + 1000, .id = 0x1001, .payload = 0, .gso_size = 0});
       }},
      {"IP options", [](BuiltFrame& f) { f = segment(1, {.ip_options = 4, .flags = kAck, .payload = 1000}); }},
      {"more TCP options", [](BuiltFrame& f) { f = segment(1, {.tcp_options = 16, .flags = kAck, .payload = 1000}); }},
      {"UDP", [](BuiltFrame& f) { f = segment(1, {.tcp = false, .payload = 1000}); }},
  };
  for (const Spoiler& spoiler : spoilers) {
    Burst64 burst;
    burst.add(seal(segment(0)));
    BuiltFrame second = segment(1);
    if (!spoiler.sealed) second.bytes = seal(second);
    spoiler.spoil(second);
    burst.add(spoiler.sealed ? seal(second) : second.bytes);
    const auto frames = burst.merge();
    ASSERT_EQ(frames.size(), 2U) << spoiler.name;
    EXPECT_EQ(frames[0], &burst.lent()[0]->frame()) << spoiler.name;
    EXPECT_EQ(frames[1], &burst.lent()[1]->frame()) << spoiler.name;
  }
  // What is not spoilt joins: the table above says something.
  Burst64 good;
  good.add(seal(segment(0)));
  good.add(seal(segment(1)));
  EXPECT_EQ(good.merge().size(), 1U);
}

TEST(Coalesce, Ipv6FramesThatMayNotJoin) {
  const FrameSpec spec{.ipv6 = true, .flags = kAck, .payload = 1000};
  const std::vector<Spoiler> spoilers{
      {"traffic class", [](BuiltFrame& f) { set8(f.bytes, f.l3, 0x61); }},
      {"flow label", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 3, 1); }},
      {"hop limit", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 7, 63); }},
      {"address", [](BuiltFrame& f) { set8(f.bytes, f.l3 + 39, 9); }},
      {"extension header",
       [](BuiltFrame& f) { f = segment(1, {.ipv6 = true, .extensions = {60}, .flags = kAck, .payload = 1000}); }},
  };
  for (const Spoiler& spoiler : spoilers) {
    Burst64 burst;
    burst.add(seal(segment(0, spec), true));
    BuiltFrame second = segment(1, spec);
    spoiler.spoil(second);
    burst.add(seal(second, true));
    EXPECT_EQ(burst.merge().size(), 2U) << spoiler.name;
  }
}

TEST(Coalesce, AnotherVlanOrAnUnfinishedFrameIsNoPartOfTheFlow) {
  Burst64 burst;
  burst.add(seal(segment(0)), {}, 5);
  burst.add(seal(segment(1)), {}, 6);
  BuiltFrame gso =
      build({.flags = kAck, .sequence = 0xffffff00 + 2000, .id = 0x1002, .payload = 2000, .gso_size = 1000});
  burst.add(gso.bytes, gso.offload, 6);
  burst.add(seal(segment(4)), {}, 6).finish = Finish::checksum;
  EXPECT_EQ(burst.merge().size(), 4U);
}

TEST(Coalesce, SameIdsJoinOnlyWithDf) {
  for (const bool df : {true, false}) {
    Burst64 burst;
    for (unsigned i = 0; i < 3; ++i) {
      BuiltFrame frame = segment(i);
      test::set16(frame.bytes, frame.l3 + 4, 0);
      if (!df) test::set16(frame.bytes, frame.l3 + 6, 0);
      burst.add(seal(frame));
    }
    EXPECT_EQ(burst.merge().size(), df ? 1U : 3U);
  }
  // Once one way, once the other is no sequence.
  Burst64 mixed;
  for (const std::size_t id : {5U, 5U, 7U}) {
    BuiltFrame frame = segment(static_cast<unsigned>(mixed.lent().size()));
    test::set16(frame.bytes, frame.l3 + 4, id);
    mixed.add(seal(frame));
  }
  EXPECT_EQ(mixed.lengths(), (std::vector<std::size_t>{66 + 2000, 66 + 1000}));
}

TEST(Coalesce, PushAndShortFramesEndAMergedFrame) {
  Burst64 burst;
  FrameSpec spec{.flags = kAck, .payload = 1000};
  burst.add(seal(segment(0, spec)));
  spec.flags = kAck | kPsh;
  burst.add(seal(segment(1, spec)));
  spec.flags = kAck;
  burst.add(seal(segment(2, spec)));
  burst.add(seal(build({.flags = kAck, .sequence = 0xffffff00 + 3000, .id = 0x1003, .payload = 10, .gso_size = 0})));
  burst.add(seal(build({.flags = kAck, .sequence = 0xffffff00 + 3010, .id = 0x1004, .payload = 10, .gso_size = 0})));
  const auto frames = burst.merge();
  ASSERT_EQ(frames.size(), 3U);
  EXPECT_EQ(frames[0]->length, 66U + 2000);
  EXPECT_EQ(frames[0]->header[34 + 13], std::byte{kAck | kPsh});
  EXPECT_EQ(frames[1]->length, 66U + 1010);
  EXPECT_EQ(frames[2]->length, 66U + 10);
  // What has PSH itself takes nobody in.
  Burst64 pushed;
  spec.flags = kAck | kPsh;
  pushed.add(seal(segment(0, spec)));
  pushed.add(seal(segment(1, spec)));
  EXPECT_EQ(pushed.merge().size(), 2U);
}

TEST(Coalesce, CapabilitiesAreRespected) {
  const auto merged = [](const FrameSpec& spec, OffloadCaps caps) {
    Burst64 burst;
    FrameSpec rest = spec;
    rest.flags &= ~0x80U;
    burst.add(seal(segment(0, spec), spec.ipv6));
    burst.add(seal(segment(1, rest), spec.ipv6));
    return burst.merge(caps).size() == 1;
  };
  const FrameSpec v4{.flags = kAck, .payload = 1000};
  const FrameSpec v6{.ipv6 = true, .flags = kAck, .payload = 1000};
  const FrameSpec cwr{.flags = kAck | 0x80, .payload = 1000};
  EXPECT_TRUE(merged(v4, {.checksum = true, .tso4 = true}));
  EXPECT_FALSE(merged(v4, {.checksum = true, .tso6 = true}));
  EXPECT_TRUE(merged(v6, {.checksum = true, .tso6 = true}));
  EXPECT_FALSE(merged(v6, {.checksum = true, .tso4 = true}));
  EXPECT_TRUE(merged(cwr, kAll));
  EXPECT_FALSE(merged(cwr, {.checksum = true, .tso4 = true}));
}

TEST(Coalesce, NeverBeyondWhatIpCanDescribe) {
  Burst64 burst;
  for (unsigned i = 0; i < 64; ++i) burst.add(seal(segment(i, {.flags = kAck, .payload = 8948})));
  std::size_t payload = 0;
  for (const std::size_t length : burst.lengths()) {
    EXPECT_LE(length, 65'535U + 14);
    payload += length - 66;
  }
  EXPECT_EQ(payload, 64U * 8948);
  EXPECT_EQ(burst.lengths().size(), 10U);  // seven fit
}

/// Whatever comes in whatever order: cut again, every flow has the frames it had, in their order, and none is lost.
TEST(Coalesce, EveryFlowKeepsItsFramesAndTheirOrder) {
  std::mt19937 random(11);
  const auto below = [&](unsigned limit) { return static_cast<unsigned>(random() % limit); };
  std::size_t merged_frames = 0;
  for (int round = 0; round < 300; ++round) {
    Burst64 burst;
    std::map<std::size_t, std::vector<Bytes>> sent;
    std::array<unsigned, 12> next{};
    const unsigned flows = 1 + below(12);
    for (unsigned i = 0; i < kBurstFrames; ++i) {
      const unsigned flow = below(flows);
      FrameSpec spec{.ipv6 = flow % 2 != 0, .flags = below(12) == 0 ? kAck | kPsh : kAck, .payload = 1 + 100 * flow};
      BuiltFrame frame = segment(next[flow], spec);
      next[flow] += below(15) == 0 ? 2 : 1;  // now and then one is missing
      test::set16(frame.bytes, frame.l4, 5000 + flow);
      Bytes bytes = seal(frame, spec.ipv6);
      if (below(40) == 0) bytes.back() ^= std::byte{0xff};
      sent[flow].push_back(bytes);
      burst.add(bytes);
    }
    std::map<std::size_t, std::vector<Bytes>> got;
    for (const Frame* frame : burst.merge()) {
      const std::vector<Bytes> pieces = frame->offload.is_gso() ? cut(*frame) : std::vector<Bytes>{bytes_of(*frame)};
      merged_frames += pieces.size() - 1;
      for (const Bytes& piece : pieces) {
        const std::size_t l4 = test::get16(piece, 12) == 0x0800 ? 34 : 54;
        got[test::get16(piece, l4) - 5000].push_back(piece);
      }
    }
    ASSERT_EQ(got, sent) << "round " << round;
  }
  EXPECT_GT(merged_frames, 300U * 10);
}

}  // namespace
}  // namespace vswitch
