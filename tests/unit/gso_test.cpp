#include "vswitch/net/gso.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "offload_frames.h"

namespace vswitch {
namespace {

using test::build;
using test::BuiltFrame;
using test::Bytes;
using test::FrameSpec;
using test::get16;
using test::get32;
using test::get8;

constexpr std::size_t kPrivate = 128;

/// All segments of a frame, with the checksums they were left with; `split` bytes of it are the private copy.
std::vector<Bytes> cut_partial(const BuiltFrame& frame, std::size_t split = kPrivate) {
  const std::span<const std::byte> bytes(frame.bytes);
  split = std::min(split, bytes.size());
  Segmenter segmenter(bytes.first(split), bytes.size(), frame.offload);
  std::vector<Bytes> segments;
  Bytes out(split);
  for (auto segment = segmenter.next(out); segment.length != 0; segment = segmenter.next(out)) {
    EXPECT_LE(segment.header_bytes, split);
    Bytes& whole = segments.emplace_back(out.begin(), out.begin() + segment.header_bytes);
    // Only what the private copy does not have may be taken from where the frame lies.
    EXPECT_TRUE(segment.header_bytes == segment.length || segment.offset + segment.header_bytes >= split);
    const auto rest = bytes.subspan(segment.offset + std::size_t{segment.header_bytes},
                                    segment.length - std::size_t{segment.header_bytes});
    whole.insert(whole.end(), rest.begin(), rest.end());
  }
  EXPECT_EQ(segments.size(), segmenter.segments());
  EXPECT_EQ(segmenter.next(out).length, 0U);
  return segments;
}

/// The same, finished as who receives them would.
std::vector<Bytes> cut(const BuiltFrame& frame, std::size_t split = kPrivate) {
  std::vector<Bytes> segments = cut_partial(frame, split);
  for (Bytes& segment : segments) {
    const auto summed = std::span<const std::byte>(segment).subspan(frame.l4);
    test::set16(segment, frame.l4 + frame.offload.csum_offset, 0xffff ^ test::reference_sum(summed));
  }
  return segments;
}

/// What the golden vectors list of a TCP segment.
struct TcpSegment {
  std::size_t ip_length, id, sequence, flags, payload;
  bool operator==(const TcpSegment&) const = default;
};
std::vector<TcpSegment> tcp_of(const std::vector<Bytes>& segments, const BuiltFrame& like, bool ipv6) {
  std::vector<TcpSegment> result;
  for (const Bytes& s : segments) {
    result.push_back({get16(s, like.l3 + (ipv6 ? 4 : 2)), ipv6 ? 0 : get16(s, like.l3 + 4), get32(s, like.l4 + 4),
                      get16(s, like.l4 + 12) & 0x1ff, s.size() - like.header_length});
  }
  return result;
}

void expect_finished(const std::vector<Bytes>& segments, const BuiltFrame& like, const FrameSpec& spec) {
  for (const Bytes& segment : segments) EXPECT_TRUE(test::is_finished(segment, like, spec.ipv6, spec.tcp));
}

Bytes payload_of(const std::vector<Bytes>& segments, std::size_t header_length) {
  Bytes all;
  for (const Bytes& s : segments)
    all.insert(all.end(), s.begin() + static_cast<std::ptrdiff_t>(header_length), s.end());
  return all;
}

// The vectors below were read off a kernel (tap -> bridge -> veth without TSO, GSO and checksum offload);
// tests/kernel/gso_differential_test.cpp asks the running one.

TEST(Gso, GoldenTcp4) {
  const FrameSpec spec;
  const BuiltFrame frame = build(spec);
  const auto segments = cut(frame);
  const std::vector<TcpSegment> expected{{1500, 0x1000, 0xffffff00, 0x090, 1448},
                                         {1500, 0x1001, 0x000004a8, 0x010, 1448},
                                         {656, 0x1002, 0x00000a50, 0x019, 604}};
  EXPECT_EQ(tcp_of(segments, frame, false), expected);
  EXPECT_EQ(segments[0].size(), 1514U);
  EXPECT_EQ(segments[2].size(), 670U);
  expect_finished(segments, frame, spec);
}

TEST(Gso, GoldenTcp6) {
  FrameSpec spec;
  spec.ipv6 = true;
  spec.gso_size = 1428;
  const BuiltFrame frame = build(spec);
  const auto segments = cut(frame);
  const std::vector<TcpSegment> expected{
      {1460, 0, 0xffffff00, 0x090, 1428}, {1460, 0, 0x00000494, 0x010, 1428}, {676, 0, 0x00000a28, 0x019, 644}};
  EXPECT_EQ(tcp_of(segments, frame, true), expected);
  expect_finished(segments, frame, spec);
}

TEST(Gso, GoldenUdp) {
  for (const bool ipv6 : {false, true}) {
    FrameSpec spec;
    spec.ipv6 = ipv6;
    spec.tcp = false;
    spec.gso_size = 1400;
    const BuiltFrame frame = build(spec);
    const auto segments = cut(frame);
    ASSERT_EQ(segments.size(), 3U);
    const std::size_t payloads[] = {1400, 1400, 700};
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(segments[i].size(), frame.header_length + payloads[i]);
      EXPECT_EQ(get16(segments[i], frame.l4 + 4), 8 + payloads[i]);
      if (!ipv6) {
        EXPECT_EQ(get16(segments[i], frame.l3 + 4), 0x1000 + i);
      }
    }
    expect_finished(segments, frame, spec);
  }
}

TEST(Gso, Ipv4IdWrapsAndCountsEvenWithDf) {
  FrameSpec spec;
  spec.id = 0xfffe;
  const BuiltFrame frame = build(spec);
  const auto segments = tcp_of(cut(frame), frame, false);
  EXPECT_EQ(segments[0].id, 0xfffeU);
  EXPECT_EQ(segments[1].id, 0xffffU);
  EXPECT_EQ(segments[2].id, 0x0000U);
}

TEST(Gso, SynRstUrgEceAndAckAreOnAllSegments) {
  for (const unsigned flags : {0x012U, 0x034U, 0x050U, 0x150U}) {
    FrameSpec spec;
    spec.flags = flags;
    const BuiltFrame frame = build(spec);
    for (const TcpSegment& segment : tcp_of(cut(frame), frame, false)) EXPECT_EQ(segment.flags, flags);
  }
}

TEST(Gso, TagsOptionsAndExtensionHeadersRepeat) {
  for (const bool ipv6 : {false, true}) {
    FrameSpec spec;
    spec.ipv6 = ipv6;
    spec.tags = {0x6064, 7};
    spec.ip_options = 8;
    spec.extensions = {0, 43, 60};
    const BuiltFrame frame = build(spec);
    const auto segments = cut(frame);
    ASSERT_EQ(segments.size(), 3U);
    for (const Bytes& segment : segments) {
      EXPECT_TRUE(std::equal(frame.bytes.begin(), frame.bytes.begin() + static_cast<std::ptrdiff_t>(frame.l3),
                             segment.begin()));
      const std::size_t options = frame.l3 + (ipv6 ? 6 : 12);
      EXPECT_TRUE(std::equal(frame.bytes.begin() + static_cast<std::ptrdiff_t>(options),
                             frame.bytes.begin() + static_cast<std::ptrdiff_t>(frame.l4),
                             segment.begin() + static_cast<std::ptrdiff_t>(options)));
    }
    expect_finished(segments, frame, spec);
  }
}

TEST(Gso, PayloadIsWholeWhereverThePrivateCopyEnds) {
  FrameSpec spec;
  spec.payload = 500;
  spec.gso_size = 7;
  const BuiltFrame frame = build(spec);
  const Bytes payload(frame.bytes.begin() + static_cast<std::ptrdiff_t>(frame.header_length), frame.bytes.end());
  for (std::size_t split = frame.header_length; split <= frame.bytes.size(); ++split) {
    const auto segments = cut(frame, split);
    ASSERT_EQ(segments.size(), 72U) << split;
    ASSERT_EQ(payload_of(segments, frame.header_length), payload) << split;
  }
}

TEST(Gso, ExactMultipleHasNoEmptySegment) {
  FrameSpec spec;
  spec.payload = 2 * 1448;
  const BuiltFrame frame = build(spec);
  const auto segments = tcp_of(cut(frame), frame, false);
  ASSERT_EQ(segments.size(), 2U);
  EXPECT_EQ(segments[1].payload, 1448U);
  EXPECT_EQ(segments[1].flags, 0x019U);
}

TEST(Gso, PartialChecksumsAreWhatAReceiverFinishes) {
  for (const bool tcp : {true, false}) {
    FrameSpec spec;
    spec.tcp = tcp;
    const BuiltFrame frame = build(spec);
    for (const Bytes& segment : cut_partial(frame)) EXPECT_FALSE(test::is_finished(segment, frame, false, tcp));
    expect_finished(cut(frame), frame, spec);
  }
}

TEST(Gso, AddressesBehindTheSendersSumAreKept) {
  // A routing header makes the pseudo-header's destination another one than the IPv6 header's (RFC 8200 section 8.1).
  FrameSpec spec;
  spec.ipv6 = true;
  BuiltFrame frame = build(spec);
  test::set16(frame.bytes, frame.l3 + 38, 0x0099);  // sent to ::99 first; the sum was made for ::2
  for (Bytes segment : cut(frame)) {
    EXPECT_FALSE(test::is_finished(segment, frame, true, true));
    test::set16(segment, frame.l3 + 38, 2);
    EXPECT_TRUE(test::is_finished(segment, frame, true, true));
  }
}

TEST(Gso, TooSmallABufferTakesNothing) {
  const BuiltFrame frame = build(FrameSpec{});
  Segmenter segmenter(std::span<const std::byte>(frame.bytes).first(kPrivate), frame.bytes.size(), frame.offload);
  Bytes buffer(kPrivate);
  EXPECT_EQ(segmenter.next(std::span(buffer).first(kPrivate - 1)).length, 0U);
  EXPECT_EQ(segmenter.next(buffer).length, 1514U);
  EXPECT_EQ(get8(buffer, frame.header_length), 0U);
  EXPECT_EQ(get8(buffer, frame.header_length + 1), 1U);
}

TEST(Gso, WhatIsNotAValidGsoFrameHasNoSegments) {
  BuiltFrame frame = build(FrameSpec{});
  frame.offload.csum_start = 36;
  EXPECT_TRUE(cut(frame).empty());
  frame = build(FrameSpec{});
  frame.offload.gso_type = Offload::kGsoNone;
  EXPECT_TRUE(cut(frame).empty());
  frame = build(FrameSpec{});
  frame.offload.gso_size = 1;
  EXPECT_TRUE(cut(frame).empty());
}

}  // namespace
}  // namespace vswitch
