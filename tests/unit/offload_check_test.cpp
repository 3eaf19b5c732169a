#include "vswitch/net/offload_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "offload_frames.h"
#include "vswitch/net/headers.h"

namespace vswitch {
namespace {

using test::build;
using test::BuiltFrame;
using test::Bytes;
using test::FrameSpec;
using test::get16;

constexpr std::size_t kPrivate = 128;

/// Judged as a port does it: the private copy is exactly as long as it may be, so that a sanitizer sees a byte too
/// much.
OffloadFault fault(const BuiltFrame& frame) {
  const auto end = frame.bytes.begin() + static_cast<std::ptrdiff_t>(std::min(frame.bytes.size(), kPrivate));
  const Bytes header(frame.bytes.begin(), end);
  return check_offload(frame.offload, header, static_cast<std::uint32_t>(frame.bytes.size()));
}
bool valid(const BuiltFrame& frame) { return fault(frame) == OffloadFault::none; }
Offload clean(BuiltFrame& frame, OffloadOrigin origin = OffloadOrigin::tenant) {
  return sanitize(frame.offload, std::span(frame.bytes).first(std::min(frame.bytes.size(), kPrivate)),
                  static_cast<std::uint32_t>(frame.bytes.size()), origin);
}
BuiltFrame tcp4() { return build(FrameSpec{}); }
BuiltFrame tcp6(std::vector<unsigned> extensions = {}) {
  FrameSpec spec;
  spec.ipv6 = true;
  spec.extensions = std::move(extensions);
  return build(spec);
}
BuiltFrame udp(bool ipv6 = false) {
  FrameSpec spec;
  spec.tcp = false;
  spec.ipv6 = ipv6;
  return build(spec);
}
/// A NEEDS_CSUM frame that is not GSO.
BuiltFrame plain(bool ipv6 = false) {
  FrameSpec spec;
  spec.ipv6 = ipv6;
  spec.payload = 300;
  spec.gso_size = 0;
  return build(spec);
}

TEST(OffloadCheck, HonestFramesAreValid) {
  EXPECT_TRUE(valid(tcp4()));
  EXPECT_TRUE(valid(tcp6()));
  EXPECT_TRUE(valid(tcp6({0, 43, 60})));
  EXPECT_TRUE(valid(udp()));
  EXPECT_TRUE(valid(udp(true)));
  EXPECT_TRUE(valid(plain()));
  EXPECT_TRUE(valid(plain(true)));
}

TEST(OffloadCheck, FrameShorterThanAnEthernetHeader) {
  const Bytes header(13);
  EXPECT_FALSE(offload_is_valid(Offload{}, header, 13));
  const Bytes enough(14);
  EXPECT_TRUE(offload_is_valid(Offload{}, enough, 14));
  EXPECT_FALSE(offload_is_valid(Offload{}, enough, 13));
}

TEST(OffloadCheck, FieldsWithoutAFlagAreNotRead) {
  BuiltFrame frame = plain();
  frame.offload = {.flags = 0, .gso_type = 0, .gso_size = 9, .csum_start = 60'000, .csum_offset = 60'000};
  EXPECT_TRUE(valid(frame));
  EXPECT_EQ(clean(frame), Offload{});
}

TEST(OffloadCheck, ChecksumFieldBeyondTheFrame) {
  BuiltFrame frame = plain();
  frame.offload.csum_start = 9000;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
  // A tunnel's inner checksum may lie deep, but not a byte too deep.
  frame = build({.tcp = false, .payload = 300, .gso_size = 0});
  const auto length = static_cast<std::uint16_t>(frame.bytes.size());
  frame.offload.csum_start = static_cast<std::uint16_t>(length - 8);
  frame.offload.csum_offset = 6;
  EXPECT_TRUE(valid(frame));
  frame.offload.csum_offset = 7;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
}

TEST(OffloadCheck, SumOfOffsetsDoesNotWrapAround) {
  BuiltFrame frame = plain();
  frame.offload.csum_offset = static_cast<std::uint16_t>(0x1'0000 - 2);  // start + offset + 2 is start again in 16 bits
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
  frame.offload.csum_start = 0xffff;
  frame.offload.csum_offset = 0xffff;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
}

TEST(OffloadCheck, ChecksumStartsBehindL2) {
  BuiltFrame frame = build({.tags = {7}, .payload = 300, .gso_size = 0});
  test::put(frame.bytes, {0});
  test::set16(frame.bytes, 16, 0x9999);  // no IP: only the L2 rule is left
  frame.offload.csum_start = 17;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
  frame.offload.csum_start = 18;
  EXPECT_TRUE(valid(frame));
}

TEST(OffloadCheck, ChecksumMayNotRewriteTheIpHeader) {
  for (const bool ipv6 : {false, true}) {
    BuiltFrame frame = plain(ipv6);
    frame.offload.csum_start = static_cast<std::uint16_t>(frame.l3);
    frame.offload.csum_offset = ipv6 ? 8 : 12;  // the source address
    EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
    frame.offload.csum_start = static_cast<std::uint16_t>(frame.l4 - 1);
    EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
  }
  BuiltFrame frame = build({.ipv6 = true, .extensions = {0, 60}, .payload = 300, .gso_size = 0});
  EXPECT_TRUE(valid(frame));
  frame.offload.csum_start = static_cast<std::uint16_t>(frame.l4 - 8);
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
}

TEST(OffloadCheck, ChecksumFieldIsWhereTheProtocolHasIt) {
  BuiltFrame frame = plain();
  frame.offload.csum_offset = 14;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_place);
  frame = build({.tcp = false, .payload = 300, .gso_size = 0});
  frame.offload.csum_offset = 4;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_place);
}

TEST(OffloadCheck, ChecksumMayNotRewriteNeighbourDiscovery) {
  BuiltFrame frame = build({.ipv6 = true, .tcp = false, .payload = 32, .gso_size = 0});
  frame.bytes[frame.l3 + 6] = std::byte{58};
  frame.offload.csum_offset = 2;
  EXPECT_TRUE(valid(frame));
  frame.offload.csum_offset = 8;  // the target address
  EXPECT_EQ(fault(frame), OffloadFault::checksum_place);
  frame.offload.csum_start = static_cast<std::uint16_t>(frame.l4 + 6);
  frame.offload.csum_offset = 2;
  EXPECT_EQ(fault(frame), OffloadFault::checksum_place);
}

TEST(OffloadCheck, ArpHasNoChecksum) {
  BuiltFrame frame = plain();
  test::set16(frame.bytes, 12, 0x0806);
  EXPECT_EQ(fault(frame), OffloadFault::checksum_place);
}

TEST(OffloadCheck, IpFragmentsHaveNoChecksumAndNoGso) {
  for (const std::size_t fragment : {0x2000U, 0x0001U, 0x3fffU}) {
    BuiltFrame frame = plain();
    test::set16(frame.bytes, frame.l3 + 6, fragment);
    EXPECT_EQ(fault(frame), OffloadFault::checksum_place) << fragment;
    frame = tcp4();
    frame.offload.flags = 0;
    test::set16(frame.bytes, frame.l3 + 6, fragment);
    EXPECT_EQ(fault(frame), OffloadFault::gso_type) << fragment;
  }
  EXPECT_EQ(fault(tcp6({44})), OffloadFault::gso_type);
  EXPECT_EQ(fault(tcp6({60, 44})), OffloadFault::gso_type);
}

TEST(OffloadCheck, GsoChecksumStartsAtTheTransportHeader) {
  for (BuiltFrame frame : {tcp4(), tcp6(), udp(), udp(true)}) {
    frame.offload.csum_start = static_cast<std::uint16_t>(frame.offload.csum_start + 2);
    EXPECT_EQ(fault(frame), OffloadFault::gso_checksum);
  }
}

TEST(OffloadCheck, GsoChecksumFieldIsTheProtocols) {
  BuiltFrame frame = tcp4();
  frame.offload.csum_offset = 6;
  EXPECT_EQ(fault(frame), OffloadFault::gso_checksum);
  frame = udp();
  frame.offload.csum_offset = 16;
  EXPECT_EQ(fault(frame), OffloadFault::gso_checksum);
}

TEST(OffloadCheck, InlineTagsMoveTheOffsets) {
  BuiltFrame frame = build({.tags = {7}});
  EXPECT_EQ(frame.offload.csum_start, 38);
  EXPECT_TRUE(valid(frame));
  frame.offload.csum_start = 34;
  EXPECT_EQ(fault(frame), OffloadFault::gso_checksum);
  EXPECT_TRUE(valid(build({.tags = {100, 7}})));
  EXPECT_EQ(fault(build({.tags = {100, 7, 8}})), OffloadFault::gso_type);
}

TEST(OffloadCheck, GsoTypeMatchesTheIpVersion) {
  BuiltFrame frame = tcp4();
  frame.offload.gso_type = Offload::kGsoTcp6;
  EXPECT_EQ(fault(frame), OffloadFault::gso_type);
  frame = tcp6();
  frame.offload.gso_type = Offload::kGsoTcp4;
  EXPECT_EQ(fault(frame), OffloadFault::gso_type);
}

TEST(OffloadCheck, GsoTypeMatchesTheProtocol) {
  for (BuiltFrame frame : {tcp4(), tcp6()}) {
    frame.offload.gso_type = Offload::kGsoUdpL4;
    EXPECT_EQ(fault(frame), OffloadFault::gso_type);
  }
  BuiltFrame frame = udp();
  frame.offload.gso_type = Offload::kGsoTcp4;
  EXPECT_EQ(fault(frame), OffloadFault::gso_type);
}

TEST(OffloadCheck, UnknownGsoTypesAndUfo) {
  for (unsigned type = 0; type < 256; ++type) {
    BuiltFrame frame = tcp4();
    frame.offload.gso_type = static_cast<std::uint8_t>(type);
    const unsigned kind = type & 0x7f;
    EXPECT_EQ(valid(frame), type == 0 || kind == Offload::kGsoTcp4) << type;
  }
  // ECN alone is no type.
  BuiltFrame frame = tcp4();
  frame.offload.gso_type = Offload::kGsoEcn;
  EXPECT_EQ(fault(frame), OffloadFault::gso_type);
  frame = udp();
  frame.offload.gso_type = 3;
  EXPECT_EQ(fault(frame), OffloadFault::gso_type);
}

TEST(OffloadCheck, HeaderLengthsThatLie) {
  BuiltFrame frame = tcp4();
  frame.bytes[frame.l3] = std::byte{0x44};  // ihl
  EXPECT_EQ(fault(frame), OffloadFault::headers);
  frame.bytes[frame.l3] = std::byte{0x65};  // version
  EXPECT_EQ(fault(frame), OffloadFault::headers);
  for (const unsigned offset : {0U, 1U, 4U}) {
    frame = tcp4();
    frame.bytes[frame.l4 + 12] = static_cast<std::byte>(offset << 4);  // doff
    EXPECT_EQ(fault(frame), OffloadFault::headers) << offset;
  }
  frame = build({.payload = 10, .gso_size = 5});
  frame.bytes[frame.l3] = std::byte{0x4f};
  EXPECT_EQ(fault(frame), OffloadFault::headers);
  frame = build({.tcp_options = 0, .payload = 10, .gso_size = 5});
  frame.bytes[frame.l4 + 12] = std::byte{0xf0};
  EXPECT_EQ(fault(frame), OffloadFault::headers);
}

TEST(OffloadCheck, HeadersLongerThanThePrivateCopy) {
  BuiltFrame frame = build({.ip_options = 40, .tcp_options = 12});
  EXPECT_LE(frame.header_length, kPrivate);
  EXPECT_TRUE(valid(frame));
  frame = build({.ipv6 = true, .extensions = {0, 60, 60}, .tcp_options = 40});
  EXPECT_GT(frame.header_length, kPrivate);
  EXPECT_EQ(fault(frame), OffloadFault::headers);
}

TEST(OffloadCheck, Ipv6ExtensionHeadersAreBounded) {
  EXPECT_TRUE(valid(build({.ipv6 = true, .tcp = false, .extensions = {0, 60, 60, 60, 60, 60}})));
  BuiltFrame frame = tcp6({60});
  frame.bytes[frame.l3 + 41] = std::byte{255};  // its length: 2 KiB
  EXPECT_EQ(fault(frame), OffloadFault::headers);
  // An endless chain of the smallest headers, all inside the span that is given.
  const BuiltFrame endless = build({.ipv6 = true, .extensions = std::vector<unsigned>(9, 60)});
  EXPECT_FALSE(offload_is_valid(endless.offload, endless.bytes, static_cast<std::uint32_t>(endless.bytes.size())));
  const BuiltFrame eight = build({.ipv6 = true, .extensions = std::vector<unsigned>(8, 60)});
  EXPECT_TRUE(offload_is_valid(eight.offload, eight.bytes, static_cast<std::uint32_t>(eight.bytes.size())));
}

TEST(OffloadCheck, ChecksumBehindAChainThatIsTooLong) {
  BuiltFrame frame =
      build({.ipv6 = true, .tcp = false, .extensions = std::vector<unsigned>(12, 60), .payload = 64, .gso_size = 0});
  EXPECT_TRUE(valid(frame));
  frame.offload.csum_start = kPrivate - 1;  // inside what is judged
  EXPECT_EQ(fault(frame), OffloadFault::checksum_range);
}

TEST(OffloadCheck, GsoSizeZero) {
  for (BuiltFrame frame : {tcp4(), tcp6(), udp()}) {
    frame.offload.gso_size = 0;
    EXPECT_EQ(fault(frame), OffloadFault::gso_size);
  }
}

TEST(OffloadCheck, SegmentsThatIpCannotDescribe) {
  BuiltFrame frame = tcp4();
  frame.offload.gso_size = 65'535 - 52;
  EXPECT_TRUE(valid(frame));
  frame.offload.gso_size = 65'535 - 51;
  EXPECT_EQ(fault(frame), OffloadFault::gso_size);
}

TEST(OffloadCheck, AmplificationIsBounded) {
  EXPECT_TRUE(valid(build({.payload = kMaxSegments * 10, .gso_size = 10})));
  EXPECT_EQ(fault(build({.payload = kMaxSegments * 10 + 1, .gso_size = 10})), OffloadFault::gso_segments);
  EXPECT_EQ(fault(build({.payload = 60'000, .gso_size = 1})), OffloadFault::gso_segments);
}

TEST(OffloadCheck, IpLengthIsNotMoreThanWhatIsThere) {
  for (const bool ipv6 : {false, true}) {
    BuiltFrame frame = ipv6 ? tcp6() : tcp4();
    const std::size_t field = frame.l3 + (ipv6 ? 4 : 2);
    test::set16(frame.bytes, field, get16(frame.bytes, field) + 1);
    EXPECT_EQ(fault(frame), OffloadFault::gso_length);
  }
}

TEST(OffloadCheck, GsoLongerThanAnyIpPacket) {
  BuiltFrame frame = build({.payload = 65'535 - 52});
  EXPECT_TRUE(valid(frame));
  frame.bytes.push_back({});
  EXPECT_EQ(fault(frame), OffloadFault::gso_length);
}

TEST(OffloadSanitize, TenantsDataValidAndUnknownFlagsAreIgnored) {
  BuiltFrame frame = plain();
  const Offload honest = frame.offload;
  frame.offload.flags = 0xff;
  EXPECT_EQ(clean(frame), honest);
  frame.offload.flags = 0xfe;
  EXPECT_EQ(clean(frame), Offload{});
}

TEST(OffloadSanitize, TheKernelsDataValidIsKept) {
  BuiltFrame frame = plain();
  frame.offload = {.flags = Offload::kDataValid | 4};
  EXPECT_EQ(clean(frame, OffloadOrigin::kernel), (Offload{.flags = Offload::kDataValid}));
  frame.offload.flags |= Offload::kNeedsChecksum;
  EXPECT_EQ(clean(frame, OffloadOrigin::kernel).flags, Offload::kNeedsChecksum);
}

TEST(OffloadSanitize, PayloadOfOneSegmentIsNotGso) {
  BuiltFrame frame = tcp4();
  frame.offload.gso_size = 3500;
  const Offload expected{.flags = Offload::kNeedsChecksum, .csum_start = 34, .csum_offset = 16};
  EXPECT_EQ(clean(frame), expected);
  frame.offload.gso_size = 3499;
  EXPECT_EQ(clean(frame), frame.offload);
}

TEST(OffloadSanitize, EcnSaysWhetherCwrIsSet) {
  BuiltFrame frame = tcp4();
  frame.offload.gso_type = Offload::kGsoTcp4;
  EXPECT_EQ(clean(frame).gso_type, Offload::kGsoTcp4 | Offload::kGsoEcn);
  frame = build({.flags = 0x010});
  frame.offload.gso_type |= Offload::kGsoEcn;
  EXPECT_EQ(clean(frame).gso_type, Offload::kGsoTcp4);
  frame = udp();
  frame.offload.gso_type |= Offload::kGsoEcn;
  EXPECT_EQ(clean(frame).gso_type, Offload::kGsoUdpL4);
}

TEST(OffloadSanitize, GsoWithoutChecksumRequestIsCompleted) {
  for (BuiltFrame frame : {tcp4(), tcp6(), udp(), udp(true)}) {
    const BuiltFrame honest = frame;
    frame.offload.flags = 0;
    frame.offload.csum_start = 1;
    frame.offload.csum_offset = 2;
    test::set16(frame.bytes, frame.l4 + honest.offload.csum_offset, 0xbad);
    EXPECT_TRUE(valid(frame));
    EXPECT_EQ(clean(frame), honest.offload);
    EXPECT_EQ(frame.bytes, honest.bytes);
  }
}

TEST(OffloadSanitize, TwiceIsOnce) {
  for (BuiltFrame frame : {tcp4(), tcp6({0, 60}), udp(), plain()}) {
    frame.offload.flags |= 0xf0;
    frame.offload = clean(frame);
    EXPECT_TRUE(valid(frame));
    EXPECT_EQ(clean(frame), frame.offload);
  }
}

TEST(OffloadHeaderLength, IsTheEndOfTheTransportHeader) {
  for (const BuiltFrame& frame : {tcp4(), tcp6({60}), udp(), udp(true), build({.tags = {1, 2}})}) {
    EXPECT_EQ(offload_header_length(frame.offload, std::span(frame.bytes).first(kPrivate)), frame.header_length);
    EXPECT_EQ(wire_length(frame.offload, std::span(frame.bytes).first(kPrivate), 9999),
              frame.header_length + frame.offload.gso_size);
  }
  const BuiltFrame frame = plain();
  EXPECT_EQ(offload_header_length(frame.offload, std::span(frame.bytes).first(kPrivate)), 0U);
  EXPECT_EQ(wire_length(frame.offload, std::span(frame.bytes).first(kPrivate), 354), 354U);
}

TEST(Headers, NothingIsReadBeyondTheSpan) {
  for (const BuiltFrame& frame : {tcp4(), tcp6({0, 43, 60}), udp(), build({.tags = {1, 2}, .ip_options = 16})}) {
    for (std::size_t length = 0; length <= frame.header_length; ++length) {
      const Bytes cut(frame.bytes.begin(), frame.bytes.begin() + static_cast<std::ptrdiff_t>(length));
      const auto headers = Headers::parse(cut);
      ASSERT_EQ(headers.has_value(), length >= frame.l3) << length;
      if (!headers) continue;
      EXPECT_EQ(headers->l3_offset(), frame.l3);
      EXPECT_EQ(headers->is_tcp() || headers->is_udp(), length >= frame.header_length) << length;
      if (headers->is_ip()) {
        EXPECT_LE(headers->l4_offset(), length);
      }
      if (headers->is_tcp() || headers->is_udp()) {
        EXPECT_EQ(headers->header_length(), frame.header_length);
      }
    }
  }
}

TEST(Headers, LaterFragmentsHaveNoTransportHeader) {
  BuiltFrame frame = udp();
  test::set16(frame.bytes, frame.l3 + 6, 0x2000);
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_fragment());
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_udp());
  test::set16(frame.bytes, frame.l3 + 6, 0x0010);
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_fragment());
  EXPECT_FALSE(Headers::parse(frame.bytes)->is_udp());
  frame = tcp6({44});
  test::set16(frame.bytes, frame.l3 + 42, 0);  // an atomic fragment (RFC 6946)
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_fragment());
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_tcp());
  test::set16(frame.bytes, frame.l3 + 42, 8);
  EXPECT_TRUE(Headers::parse(frame.bytes)->is_fragment());
  EXPECT_FALSE(Headers::parse(frame.bytes)->is_tcp());
}

}  // namespace
}  // namespace vswitch
