// What libvswitch makes of offload metadata, and whether the switch agrees with it. Every frame lies in memory of
// exactly its size, so that the address sanitizer sees each byte that is read outside.

#include <gtest/gtest.h>
#include <vswitch/vswitch.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>

#include "tests/unit/offload_frames.h"
#include "vswitch/net/offload_check.h"

namespace vswitch::test {
namespace {

constexpr std::size_t kRoutingHeader = 43;

/// A frame in memory of its own.
class Sent {
 public:
  explicit Sent(std::span<const std::byte> bytes) : memory_(new std::byte[bytes.size()]) {
    std::copy(bytes.begin(), bytes.end(), memory_.get());
    frame.data = memory_.get();
    frame.length = static_cast<std::uint32_t>(bytes.size());
  }
  [[nodiscard]] Bytes bytes() const { return {memory_.get(), memory_.get() + frame.length}; }
  [[nodiscard]] Offload offload() const { return std::bit_cast<Offload>(frame.offload); }
  /// What the switch says.
  [[nodiscard]] bool accepted() const {
    Bytes header = bytes();
    header.resize(std::min<std::size_t>(header.size(), VSWITCH_RING_HEADER_BYTES));
    return offload_is_valid(offload(), header, frame.length) &&
           sanitize(offload(), header, frame.length, OffloadOrigin::tenant) == offload();
  }
  /// What vswitch_frame_finish() makes of it; empty when it refuses.
  [[nodiscard]] Bytes finished() const {
    const std::unique_ptr<std::byte[]> out(new std::byte[frame.length]);
    if (tenant::finish(frame, {out.get(), frame.length}) != 0) return {};
    return {out.get(), out.get() + frame.length};
  }

  tenant::Frame frame{};

 private:
  std::unique_ptr<std::byte[]> memory_;
};

void for_each_layout(const std::function<void(const FrameSpec&)>& check) {
  const std::vector<std::vector<std::uint16_t>> tags = {{}, {100}, {200, 0x6064}};
  const std::vector<std::vector<unsigned>> extensions = {
      {}, {0}, {60}, {43}, {0, 60, 43, 60}, {0, 60, 60, 60, 60, 60, 60, 60}};
  for (const auto& tag : tags) {
    for (const bool tcp : {true, false}) {
      for (const std::size_t options : {0UL, 12UL, 40UL}) {
        if (!tcp && options != 0) continue;
        FrameSpec spec{.tcp = tcp, .tags = tag, .tcp_options = options, .payload = 0, .gso_size = 0};
        for (const std::size_t ip_options : {0UL, 4UL, 40UL}) {
          spec.ip_options = ip_options;
          check(spec);
        }
        spec.ip_options = 0;
        spec.ipv6 = true;
        for (const auto& chain : extensions) {
          spec.extensions = chain;
          check(spec);
        }
      }
    }
  }
}

/// A builder's frame whose routing headers have no segments left, and with whatever in its checksum field.
Bytes without_checksum(const FrameSpec& spec, const BuiltFrame& built) {
  Bytes bytes = built.bytes;
  for (std::size_t i = 0; i < spec.extensions.size(); ++i) {
    if (spec.extensions[i] == kRoutingHeader) bytes[built.l3 + 40 + i * 8 + 3] = std::byte{0};
  }
  set16(bytes, built.l4 + built.offload.csum_offset, 0xdead);
  return bytes;
}

std::string name_of(const FrameSpec& spec) {
  return (spec.ipv6 ? "IPv6 +" + std::to_string(spec.extensions.size()) : "IPv4 +" + std::to_string(spec.ip_options)) +
         (spec.tcp ? " TCP +" + std::to_string(spec.tcp_options) : " UDP") + " tags " +
         std::to_string(spec.tags.size()) + " payload " + std::to_string(spec.payload);
}

TEST(ClientOffload, PartialChecksumIsWhatTheSwitchExpects) {
  for_each_layout([](FrameSpec spec) {
    for (const std::size_t payload : {0UL, 1UL, 2UL, 3UL, 1001UL, 1400UL}) {
      spec.payload = payload;
      SCOPED_TRACE(name_of(spec));
      const BuiltFrame built = build(spec);
      const Bytes before = without_checksum(spec, built);
      Sent sent(before);
      ASSERT_EQ(vswitch_frame_partial_checksum(&sent.frame), 0);
      EXPECT_EQ(sent.offload(), built.offload);
      EXPECT_TRUE(sent.accepted());
      Bytes expected = before;
      set16(expected, built.l4 + built.offload.csum_offset, get16(built.bytes, built.l4 + built.offload.csum_offset));
      EXPECT_EQ(sent.bytes(), expected);
      EXPECT_EQ(tenant::checksum(sent.frame), tenant::Checksum::partial);
      EXPECT_EQ(tenant::segment_bytes(sent.frame), 0);
      const Bytes finished = sent.finished();
      ASSERT_FALSE(finished.empty());
      EXPECT_TRUE(is_finished(finished, built, spec.ipv6, spec.tcp));
    }
  });
}

TEST(ClientOffload, SegmentsAreWhatTheSwitchExpects) {
  for_each_layout([](FrameSpec spec) {
    for (const unsigned flags : {0x019U, 0x099U}) {
      spec.flags = flags;
      spec.payload = 3500;
      spec.gso_size = 1400;
      SCOPED_TRACE(name_of(spec));
      const BuiltFrame built = build(spec);
      Sent sent(without_checksum(spec, built));
      const Bytes before = sent.bytes();
      const int result = vswitch_frame_segment(&sent.frame, spec.gso_size);
      if (built.header_length > VSWITCH_RING_HEADER_BYTES) {
        EXPECT_EQ(result, -EOPNOTSUPP);
        EXPECT_EQ(sent.bytes(), before);
        sent.frame.offload = std::bit_cast<vswitch_offload>(built.offload);
        EXPECT_FALSE(sent.accepted()) << "the switch would have taken it";
        continue;
      }
      ASSERT_EQ(result, 0);
      EXPECT_EQ(sent.offload(), built.offload);
      EXPECT_TRUE(sent.accepted());
      EXPECT_EQ(tenant::segment_bytes(sent.frame), spec.gso_size);
      EXPECT_EQ(tenant::checksum(sent.frame), tenant::Checksum::partial);
      EXPECT_TRUE(sent.finished().empty()) << "cutting is not what finish is for";
    }
  });
}

TEST(ClientOffload, HowManySegments) {
  for (const bool tcp : {true, false}) {
    const BuiltFrame built = build({.tcp = tcp, .payload = 12'800, .gso_size = 0});
    Sent sent(built.bytes);
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 0), -EINVAL);
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 99), -EMSGSIZE);
    EXPECT_EQ(sent.offload(), Offload{});
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 100), 0);
    EXPECT_TRUE(sent.accepted());
    sent.frame.offload.gso_size = 99;
    EXPECT_FALSE(sent.accepted()) << "the switch's limit is another one";
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 12'799), 0);
    EXPECT_EQ(sent.frame.offload.gso_size, 12'799);
    EXPECT_TRUE(sent.accepted());
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 12'800), 0);
    EXPECT_EQ(sent.offload(), built.offload) << "one segment is no segmentation";
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 65'535), 0);
    EXPECT_EQ(sent.offload(), built.offload);
  }
  const BuiltFrame longest = build({.tcp_options = 0, .payload = 65'535 - 40, .gso_size = 0});
  Sent sent(longest.bytes);
  EXPECT_EQ(vswitch_frame_segment(&sent.frame, 1460), 0);
  EXPECT_TRUE(sent.accepted());
}

TEST(ClientOffload, TruncatedAtEveryLength) {
  for_each_layout([](FrameSpec spec) {
    spec.payload = 20;
    SCOPED_TRACE(name_of(spec));
    const BuiltFrame built = build(spec);
    const Bytes whole = without_checksum(spec, built);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      for (const bool consistent : {false, true}) {  // the IP length says what is there
        Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        const std::size_t ip = built.l3 + (spec.ipv6 ? 40 : 20);
        if (consistent && length >= ip)
          set16(cut, built.l3 + (spec.ipv6 ? 4 : 2), length - (spec.ipv6 ? ip : built.l3));
        Sent sent(cut);
        const int result = vswitch_frame_partial_checksum(&sent.frame);
        if (result == 0) {
          ASSERT_TRUE(consistent && spec.tcp && length >= built.header_length) << length;
          ASSERT_TRUE(sent.accepted()) << length;
          continue;
        }
        ASSERT_EQ(result, -EINVAL) << length;
        ASSERT_EQ(sent.bytes(), cut) << length;
        ASSERT_EQ(sent.offload(), Offload{}) << length;
        ASSERT_EQ(vswitch_frame_segment(&sent.frame, 4), result) << length;
      }
    }
  });
}

TEST(ClientOffload, WhatIsAcceptedHereIsAcceptedThere) {
  std::mt19937_64 random(11);
  std::vector<Bytes> seeds;
  for_each_layout([&](FrameSpec spec) {
    spec.payload = 300;
    seeds.push_back(without_checksum(spec, build(spec)));
  });
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (auto flips = random() % 4; flips > 0; --flips)
      bytes[random() % std::min<std::size_t>(bytes.size(), 160)] ^= std::byte(1U << random() % 8);
    Sent sent(bytes);
    const bool cut = random() % 2 == 0;
    const int result = cut ? vswitch_frame_segment(&sent.frame, static_cast<std::uint16_t>(random() % 400))
                           : vswitch_frame_partial_checksum(&sent.frame);
    ASSERT_TRUE(result == 0 || result == -EINVAL || result == -EOPNOTSUPP || (cut && result == -EMSGSIZE)) << result;
    if (result != 0) {
      ASSERT_EQ(sent.bytes(), bytes);
      continue;
    }
    ++accepted;
    ASSERT_TRUE(sent.accepted());
    ASSERT_EQ(sent.finished().empty(), sent.offload().is_gso());
  }
  EXPECT_GT(accepted, 50'000);
}

int partial(const Bytes& bytes) {
  Sent sent(bytes);
  const int result = vswitch_frame_partial_checksum(&sent.frame);
  EXPECT_TRUE(sent.accepted());
  if (result != 0) {
    EXPECT_EQ(sent.bytes(), bytes);
  }
  return result;
}

TEST(ClientOffload, RefusesWhatItCannotKnow) {
  const BuiltFrame v4 = build({.payload = 100, .gso_size = 0});
  const BuiltFrame v6 = build({.ipv6 = true, .extensions = {43}, .payload = 100, .gso_size = 0});
  const auto changed = [](Bytes bytes, std::size_t at, unsigned value) {
    bytes.at(at) = static_cast<std::byte>(value);
    return bytes;
  };
  EXPECT_EQ(partial(v4.bytes), 0);
  EXPECT_EQ(partial(changed(v4.bytes, v4.l3 + 6, 0x20)), -EOPNOTSUPP) << "a first fragment";
  EXPECT_EQ(partial(changed(v4.bytes, v4.l3 + 7, 1)), -EOPNOTSUPP) << "a later fragment";
  EXPECT_EQ(partial(changed(v4.bytes, v4.l3 + 9, 1)), -EOPNOTSUPP) << "ICMP has no pseudo-header";
  EXPECT_EQ(partial(changed(v4.bytes, v4.l3 + 9, 58)), -EOPNOTSUPP) << "ICMPv6 over IPv4";
  EXPECT_EQ(partial(changed(v4.bytes, v4.l3 + 9, 132)), -EOPNOTSUPP) << "SCTP has another checksum";
  EXPECT_EQ(partial(changed(v4.bytes, 13, 6)), -EOPNOTSUPP) << "ARP";
  EXPECT_EQ(partial(v6.bytes), -EOPNOTSUPP) << "a routing header with segments left";
  EXPECT_EQ(partial(changed(v6.bytes, v6.l3 + 43, 0)), 0);
  EXPECT_EQ(partial(changed(v6.bytes, v6.l3 + 6, 44)), -EOPNOTSUPP) << "a fragment header";
  EXPECT_EQ(partial(changed(v6.bytes, v6.l3 + 6, 51)), -EOPNOTSUPP) << "an authentication header";
  const auto chain = [](std::size_t headers) {
    return build({.ipv6 = true, .extensions = std::vector<unsigned>(headers, 60), .payload = 9, .gso_size = 0}).bytes;
  };
  EXPECT_EQ(partial(chain(8)), 0);
  EXPECT_EQ(partial(chain(9)), -EOPNOTSUPP);
  const BuiltFrame tagged = build({.tags = {1, 2}, .payload = 100, .gso_size = 0});
  Bytes three = tagged.bytes;
  three.insert(three.begin() + 12, {std::byte{0x88}, std::byte{0xa8}, std::byte{0}, std::byte{3}});
  EXPECT_EQ(partial(three), -EOPNOTSUPP) << "a third tag";
}

TEST(ClientOffload, LengthsMustBeTheFrames) {
  for (const bool ipv6 : {false, true}) {
    const BuiltFrame udp = build({.ipv6 = ipv6, .tcp = false, .payload = 10, .gso_size = 0});
    const std::size_t field = udp.l3 + (ipv6 ? 4 : 2);
    for (const std::size_t wrong : {0UL, get16(udp.bytes, field) - 1, get16(udp.bytes, field) + 1, 0xffffUL}) {
      Bytes bytes = udp.bytes;
      set16(bytes, field, wrong);
      EXPECT_EQ(partial(bytes), -EINVAL) << wrong;
    }
    Bytes padded = udp.bytes;
    padded.resize(padded.size() + 1);
    EXPECT_EQ(partial(padded), -EINVAL);
    Bytes shorter = udp.bytes;
    set16(shorter, udp.l4 + 4, 17);
    EXPECT_EQ(partial(shorter), -EINVAL) << "a UDP length that is not the datagram's";
  }
}

TEST(ClientOffload, HeadersLongerThanTheSwitchJudges) {
  for (const bool tcp : {true, false}) {
    BuiltFrame built = build({.ipv6 = true, .tcp = tcp, .extensions = {60}, .payload = 500, .gso_size = 0});
    constexpr std::size_t kMore = 160;
    const auto extension = static_cast<std::ptrdiff_t>(built.l4);
    built.bytes.insert(built.bytes.begin() + extension, kMore, std::byte{0});
    built.bytes[built.l4 - 7] = std::byte{kMore / 8};
    set16(built.bytes, built.l3 + 4, get16(built.bytes, built.l3 + 4) + kMore);
    built.l4 += kMore;
    Sent sent(built.bytes);
    EXPECT_EQ(vswitch_frame_segment(&sent.frame, 100), -EOPNOTSUPP);
    ASSERT_EQ(vswitch_frame_partial_checksum(&sent.frame), 0);
    EXPECT_EQ(sent.frame.offload.csum_start, built.l4);
    EXPECT_TRUE(sent.accepted());
    EXPECT_TRUE(is_finished(sent.finished(), built, true, tcp));
    ASSERT_EQ(vswitch_frame_segment(&sent.frame, 500), 0) << "nothing to cut";
    EXPECT_TRUE(sent.accepted());
    EXPECT_FALSE(sent.offload().is_gso());
  }
}

TEST(ClientOffload, Icmpv6HasAPseudoHeader) {
  BuiltFrame echo = build({.ipv6 = true, .tcp = false, .payload = 33, .gso_size = 0});
  echo.bytes[echo.l3 + 6] = std::byte{58};
  set16(echo.bytes, echo.l4, 0x8000);
  Sent sent(echo.bytes);
  EXPECT_EQ(vswitch_frame_segment(&sent.frame, 10), -EOPNOTSUPP);
  ASSERT_EQ(vswitch_frame_partial_checksum(&sent.frame), 0);
  EXPECT_EQ(sent.frame.offload.csum_offset, 2);
  EXPECT_TRUE(sent.accepted());
  const Bytes finished = sent.finished();
  const std::span<const std::byte> bytes(finished);
  const std::size_t pseudo = reference_sum(bytes.subspan(echo.l3 + 8, 32), finished.size() - echo.l4 + 58);
  EXPECT_EQ(reference_sum(bytes.subspan(echo.l4), pseudo), 0xffffU);
}

tenant::Frame received(Bytes& bytes, const Offload& offload) {
  tenant::Frame frame{};
  frame.data = bytes.data();
  frame.length = static_cast<std::uint32_t>(bytes.size());
  frame.offload = std::bit_cast<vswitch_offload>(offload);
  return frame;
}

TEST(ClientOffload, ReadsWhatIsKnown) {
  Bytes bytes(60);
  EXPECT_EQ(tenant::checksum(received(bytes, {})), tenant::Checksum::unknown);
  EXPECT_EQ(tenant::checksum(received(bytes, {.flags = 2})), tenant::Checksum::valid);
  EXPECT_EQ(tenant::checksum(received(bytes, {.flags = 3})), tenant::Checksum::partial);
  EXPECT_EQ(tenant::segment_bytes(received(bytes, {.flags = 1, .gso_size = 7})), 0) << "means nothing without a type";
  EXPECT_EQ(tenant::segment_bytes(received(bytes, {.flags = 1, .gso_type = 0x81, .gso_size = 7})), 7);
}

TEST(ClientOffload, FinishStaysInsideTheFrame) {
  Bytes bytes(40, std::byte{1});
  Bytes out(40, std::byte{9});
  const Bytes untouched = out;
  for (const Offload& offload : {Offload{1, 0, 0, 39, 0}, Offload{1, 0, 0, 0, 39}, Offload{1, 0, 0, 65'535, 65'535},
                                 Offload{1, 0, 0, 20, 65'535}, Offload{1, 0, 0, 40, 0}}) {
    EXPECT_EQ(tenant::finish(received(bytes, offload), out), -EINVAL);
  }
  EXPECT_EQ(tenant::finish(received(bytes, {}), std::span(out).first(39)), -ENOBUFS);
  EXPECT_EQ(tenant::finish(received(bytes, {1, 1, 100, 34, 16}), out), -EOPNOTSUPP);
  EXPECT_EQ(out, untouched);
  EXPECT_EQ(tenant::finish(received(bytes, {.flags = 2}), out), 0);
  EXPECT_EQ(out, bytes) << "a finished frame is copied";
  EXPECT_EQ(tenant::finish(received(bytes, Offload{1, 0, 0, 38, 0}), out), 0) << "the last two bytes";
}

TEST(ClientOffload, FinishWritesZeroAsItsOtherSpelling) {
  Bytes bytes(20);
  set16(bytes, 14, 0x1234);
  set16(bytes, 16, 0xffff - 0x1234);
  Bytes out(20);
  ASSERT_EQ(tenant::finish(received(bytes, Offload{1, 0, 0, 14, 2}), out), 0);
  EXPECT_EQ(get16(out, 16), 0xffffU);
}

}  // namespace
}  // namespace vswitch::test
