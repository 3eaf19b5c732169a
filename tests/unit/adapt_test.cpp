#include "vswitch/core/adapt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "offload_frames.h"
#include "vswitch/core/copy_out.h"

namespace vswitch {
namespace {

using test::build;
using test::BuiltFrame;
using test::Bytes;
using test::FrameSpec;

constexpr OffloadCaps kNone{};
constexpr OffloadCaps kChecksum{.checksum = true};

/// A frame as a queue lends it: headers private, the rest where it arrived.
class Lent {
 public:
  explicit Lent(const BuiltFrame& built) : bytes_(built.bytes) {
    frame_.data = bytes_.data();
    frame_.header = header_.data();
    frame_.length = static_cast<std::uint32_t>(bytes_.size());
    frame_.header_bytes = static_cast<std::uint16_t>(std::min(bytes_.size(), kHeaderBytes));
    frame_.offload = built.offload;
    std::copy_n(bytes_.begin(), frame_.header_bytes, header_.begin());
    // Whoever reads these bytes where they arrived sees what no header says.
    std::fill_n(bytes_.begin(), frame_.header_bytes, std::byte{0xee});
  }
  Frame& frame() { return frame_; }
  Bytes& shared() { return bytes_; }

 private:
  Bytes bytes_;
  std::array<std::byte, kHeaderBytes> header_{};
  Frame frame_;
};

/// As a queue copies it out.
Bytes bytes_of(const Frame& frame) {
  Bytes bytes(copied_length(frame, false));
  copy_out(bytes.data(), frame, false);
  return bytes;
}

using Out = std::array<const Frame*, kMaxSegments>;

TEST(Adapt, IsNeededOnlyForWhatTheQueueDoesNotTake) {
  const auto needed = [](const FrameSpec& spec, OffloadCaps caps) {
    Lent lent(build(spec));
    return Adapter::needed(lent.frame(), caps);
  };
  const FrameSpec checksum{.payload = 100, .gso_size = 0};
  const FrameSpec tcp4{.flags = 0x010};
  const FrameSpec ecn{};
  const FrameSpec tcp6{.ipv6 = true, .flags = 0x010};
  const FrameSpec uso{.tcp = false};
  for (const FrameSpec& spec : {checksum, tcp4, ecn, tcp6, uso}) {
    EXPECT_TRUE(needed(spec, kNone));
    EXPECT_FALSE(needed(spec, OffloadCaps::all()));
  }
  EXPECT_FALSE(needed(checksum, kChecksum));
  EXPECT_TRUE(needed(tcp4, kChecksum));
  EXPECT_FALSE(needed(tcp4, {.checksum = true, .tso4 = true}));
  EXPECT_TRUE(needed(tcp4, {.tso4 = true}));
  EXPECT_TRUE(needed(ecn, {.checksum = true, .tso4 = true}));
  EXPECT_FALSE(needed(ecn, {.checksum = true, .tso4 = true, .ecn = true}));
  EXPECT_TRUE(needed(tcp6, {.checksum = true, .tso4 = true, .ecn = true, .uso = true}));
  EXPECT_FALSE(needed(tcp6, {.checksum = true, .tso6 = true}));
  EXPECT_TRUE(needed(uso, {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true}));
  EXPECT_FALSE(needed(uso, {.checksum = true, .uso = true}));
  Lent plain(build(checksum));
  plain.frame().offload = {.flags = Offload::kDataValid};
  EXPECT_TRUE(Adapter::needed(plain.frame(), kNone));
  EXPECT_FALSE(Adapter::needed(plain.frame(), kChecksum));
  plain.frame().offload = {};
  EXPECT_FALSE(Adapter::needed(plain.frame(), kNone));
}

TEST(Adapt, FinishesChecksums) {
  for (const bool ipv6 : {false, true}) {
    for (const bool tcp : {false, true}) {
      for (const std::size_t payload : {0U, 1U, 40U, 70U, 71U, 1400U, 9001U}) {
        const BuiltFrame built = build({.ipv6 = ipv6, .tcp = tcp, .tags = {7}, .payload = payload, .gso_size = 0});
        Lent lent(built);
        lent.frame().vlan = 0x2123;
        Adapter adapter;
        Out out{};
        ASSERT_EQ(adapter.adapt(lent.frame(), kNone, out), 1U);
        EXPECT_EQ(out[0]->left_to_do(), Offload{});
        EXPECT_EQ(out[0]->vlan, 0x2123);
        EXPECT_EQ(out[0]->length, built.bytes.size());
        Bytes finished = bytes_of(*out[0]);
        EXPECT_TRUE(test::is_finished(finished, built, ipv6, tcp));
        const std::size_t field = built.l4 + built.offload.csum_offset;
        test::set16(finished, field, test::get16(built.bytes, field));
        EXPECT_EQ(finished, built.bytes);
      }
    }
  }
}

TEST(Adapt, DataValidIsForThoseWhoKnowIt) {
  const BuiltFrame built = build({.payload = 700, .gso_size = 0});
  Lent lent(built);
  lent.frame().offload = {.flags = Offload::kDataValid};
  Adapter adapter;
  Out out{};
  ASSERT_EQ(adapter.adapt(lent.frame(), kNone, out), 1U);
  EXPECT_EQ(out[0]->left_to_do(), Offload{});
  EXPECT_EQ(bytes_of(*out[0]), built.bytes) << "nobody touches its checksum";
}

TEST(Adapt, ChecksumZeroIsSpelledAsAllOnes) {
  for (const bool tcp : {false, true}) {
    BuiltFrame built = build({.tcp = tcp, .payload = 100, .gso_size = 0});
    test::set16(built.bytes, built.header_length, 0);
    const auto summed = std::span<const std::byte>(built.bytes).subspan(built.l4);
    test::set16(built.bytes, built.header_length, 0xffff ^ test::reference_sum(summed));
    Lent lent(built);
    Adapter adapter;
    Out out{};
    ASSERT_EQ(adapter.adapt(lent.frame(), kNone, out), 1U);
    EXPECT_EQ(test::get16(bytes_of(*out[0]), built.l4 + built.offload.csum_offset), 0xffffU);
  }
}

TEST(Adapt, InSegmentsZeroIsSpelledAsAllOnesForUdpOnly) {
  for (const bool tcp : {true, false}) {
    BuiltFrame built = build({.tcp = tcp, .payload = 200, .gso_size = 100});
    // Put the finished checksum of the second segment into its payload: then the next one comes out as 0.
    const std::size_t field = built.l4 + built.offload.csum_offset;
    const std::size_t second = built.header_length + 100;
    const auto second_segment = [&] {
      Lent lent(built);
      Adapter adapter;
      Out out{};
      EXPECT_EQ(adapter.adapt(lent.frame(), kNone, out), 2U);
      return bytes_of(*out[1]);
    };
    test::set16(built.bytes, second, 0);
    test::set16(built.bytes, second, test::get16(second_segment(), field));
    EXPECT_EQ(test::get16(second_segment(), field), tcp ? 0x0000U : 0xffffU);
    EXPECT_TRUE(test::is_finished(second_segment(), built, false, tcp));
  }
}

TEST(Adapt, CutsGsoFramesIntoFinishedSegments) {
  for (const bool ipv6 : {false, true}) {
    for (const bool tcp : {false, true}) {
      const BuiltFrame built = build({.ipv6 = ipv6, .tcp = tcp, .tags = {5}, .payload = 20'000, .gso_size = 1400});
      Lent lent(built);
      lent.frame().vlan = 9;
      Adapter adapter;
      Out out{};
      ASSERT_EQ(adapter.adapt(lent.frame(), kNone, out), 15U);
      Bytes payload;
      for (std::size_t i = 0; i < 15; ++i) {
        EXPECT_EQ(out[i]->left_to_do(), Offload{});
        EXPECT_EQ(out[i]->vlan, 9);
        const Bytes segment = bytes_of(*out[i]);
        EXPECT_TRUE(test::is_finished(segment, built, ipv6, tcp)) << i;
        payload.insert(payload.end(), segment.begin() + static_cast<std::ptrdiff_t>(built.header_length),
                       segment.end());
      }
      const Bytes sent(built.bytes.begin() + static_cast<std::ptrdiff_t>(built.header_length), built.bytes.end());
      EXPECT_EQ(payload, sent);
    }
  }
}

TEST(Adapt, LeavesChecksumsToAQueueThatTakesThem) {
  const BuiltFrame built = build({});
  Lent lent(built);
  Adapter adapter;
  Out first{};
  Out second{};
  ASSERT_EQ(adapter.adapt(lent.frame(), kChecksum, first), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(Adapter::needed(*first[i], kChecksum));
    EXPECT_EQ(first[i]->left_to_do(), (Offload{.flags = Offload::kNeedsChecksum, .csum_start = 34, .csum_offset = 16}));
    ASSERT_EQ(adapter.adapt(*first[i], kNone, std::span(second).subspan(i)), 1U);
    EXPECT_TRUE(test::is_finished(bytes_of(*second[i]), built, false, true));
  }
}

TEST(Adapt, ExhaustionIsToldApartAndEndsWithReset) {
  const BuiltFrame built = build({.payload = 60'000, .gso_size = 500});
  Lent lent(built);
  Adapter adapter;
  Out out{};
  std::size_t fitted = 0;
  while (adapter.adapt(lent.frame(), kNone, out) != 0) ++fitted;
  EXPECT_GE(fitted, 2U);
  EXPECT_TRUE(adapter.exhausted());
  adapter.reset();
  EXPECT_EQ(adapter.adapt(lent.frame(), kNone, out), 120U);
  EXPECT_FALSE(adapter.exhausted());
}

TEST(Adapt, EveryValidFrameFitsAfterReset) {
  Adapter adapter;
  Out out{};
  const std::size_t most = 65'535 - 52;  // what IPv4 leaves behind 20 + 32 bytes of headers
  for (const std::size_t gso_size : {512U, 513U, 1448U, 9000U, 32'741U, 32'742U, 65'482U}) {
    Lent lent(build({.tags = {1, 2}, .payload = most, .gso_size = static_cast<std::uint16_t>(gso_size)}));
    adapter.reset();
    EXPECT_EQ(adapter.adapt(lent.frame(), kNone, out), (most + gso_size - 1) / gso_size) << gso_size;
  }
  for (const std::size_t options : {0U, 40U}) {
    Lent lent(build({.tcp_options = options, .payload = kMaxSegments, .gso_size = 1}));
    adapter.reset();
    EXPECT_EQ(adapter.adapt(lent.frame(), kNone, out), kMaxSegments);
  }
  Lent longest(build({.payload = kMaxFrameBytes - 66, .gso_size = 0}));
  adapter.reset();
  EXPECT_EQ(adapter.adapt(longest.frame(), kNone, out), 1U);
}

TEST(Adapt, FewerPointersThanSegmentsIsExhaustion) {
  Lent lent(build({}));
  Adapter adapter;
  Out out{};
  EXPECT_EQ(adapter.adapt(lent.frame(), kNone, std::span(out).first(2)), 0U);
  EXPECT_TRUE(adapter.exhausted());
}

TEST(Adapt, ImpossibleFramesAreToldApart) {
  Adapter adapter;
  Out out{};
  const auto impossible = [&](Lent& lent) {
    return adapter.adapt(lent.frame(), kNone, out) == 0 && !adapter.exhausted();
  };
  Lent beyond(build({.payload = 100, .gso_size = 0}));
  beyond.frame().offload.csum_offset = 200;
  EXPECT_TRUE(impossible(beyond));
  Lent amplified(build({.payload = 5000, .gso_size = 1}));
  EXPECT_TRUE(impossible(amplified));
  Lent oversized(build({.payload = kMaxFrameBytes, .gso_size = 0}));
  EXPECT_TRUE(impossible(oversized));
}

TEST(Adapt, SegmentsDoNotShareHeaders) {
  Lent lent(build({.payload = 200, .gso_size = 2}));
  Adapter adapter;
  Out out{};
  ASSERT_EQ(adapter.adapt(lent.frame(), kNone, out), 100U);
  // Readers may load the whole private header, whatever the frame's length.
  for (std::size_t i = 0; i < 100; ++i) std::fill_n(out[i]->header, kHeaderBytes, static_cast<std::byte>(i));
  for (std::size_t i = 0; i < 100; ++i) {
    const std::span<const std::byte> header(out[i]->header, kHeaderBytes);
    EXPECT_TRUE(std::all_of(header.begin(), header.end(), [&](std::byte b) { return b == static_cast<std::byte>(i); }));
  }
}

TEST(CopyOut, WritesTagsAndChecksumsWhereverTheHeaderCopyEnds) {
  for (const bool tagged : {false, true}) {
    for (const std::size_t payload : {0U, 1U, 61U, 62U, 63U, 900U, 901U}) {
      const BuiltFrame built = build({.payload = payload, .gso_size = 0});
      for (std::size_t header = built.header_length; header <= std::min(built.bytes.size(), kHeaderBytes); ++header) {
        Lent lent(built);
        Frame frame = lent.frame();
        std::copy_n(built.bytes.begin(), built.bytes.size(), lent.shared().begin());
        frame.header_bytes = static_cast<std::uint16_t>(header);
        frame.vlan = 0x2123;
        frame.finish = Finish::checksum;
        Bytes copy(copied_length(frame, tagged) + 1, std::byte{0xa5});
        copy_out(copy.data(), frame, tagged);
        EXPECT_EQ(copy.back(), std::byte{0xa5}) << "writes no more than it says";
        copy.pop_back();
        if (tagged) {
          EXPECT_EQ(test::get32(copy, 12), 0x81002123U);
          copy.erase(copy.begin() + 12, copy.begin() + 16);
        }
        ASSERT_TRUE(test::is_finished(copy, built, false, true)) << header << " of " << copy.size();
      }
    }
  }
}

TEST(CopyOut, ChecksumsThatStartBehindTheHeaderCopy) {
  for (const std::uint16_t start : {std::uint16_t{128}, std::uint16_t{129}, std::uint16_t{300}}) {
    BuiltFrame built = build({.tcp = false, .payload = 901, .gso_size = 0});
    built.offload.csum_start = start;
    built.offload.csum_offset = 6;
    Lent lent(built);
    lent.frame().finish = Finish::checksum;
    const Bytes copy = bytes_of(lent.frame());
    const auto summed = std::span<const std::byte>(built.bytes).subspan(start);
    EXPECT_EQ(test::get16(copy, start + 6), 0xffffU ^ test::reference_sum(summed)) << start;
  }
}

}  // namespace
}  // namespace vswitch
