#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/softnic/core/headers.h"
#include "tests/softnic/core/offload.h"

/// headers.cpp and offload.cpp. Frames live in vectors of exactly their size, so that the address sanitizer sees every
/// access behind their end.
namespace softnic {
namespace {

using Frame = std::vector<std::uint8_t>;

constexpr std::uint8_t kTcpProtocol = 6;
constexpr std::uint8_t kUdpProtocol = 17;

/// What build() makes: all lengths right, UDP without checksum, the other checksums wrong.
struct Recipe {
  std::string name;
  bool ipv6 = false;
  std::uint16_t tag_type = 0;              ///< 0 = no tag
  std::size_t ip_options = 0;              ///< bytes, IPv4; a multiple of 4
  std::vector<std::uint8_t> extensions{};  ///< IPv6 extension headers by number, 16 bytes each; fragment (44): 8 bytes
  std::uint8_t protocol = kTcpProtocol;
  std::size_t tcp_options = 0;  ///< bytes; a multiple of 4
  std::size_t payload = 0;
  std::size_t padding = 0;     ///< bytes behind the IP datagram
  std::uint16_t fragment = 0;  ///< flags and offset field of IPv4, or of the IPv6 fragment header
};

/// Where parse() should find the headers of a recipe.
struct Layout {
  std::size_t l3, l4, payload, end;
};

std::size_t extension_length(std::uint8_t kind) { return kind == 44 ? 8 : 16; }

Layout layout(const Recipe& recipe) {
  Layout at{};
  at.l3 = recipe.tag_type == 0 ? 14 : 18;
  at.l4 = at.l3 + (recipe.ipv6 ? 40 : 20 + recipe.ip_options);
  for (const std::uint8_t kind : recipe.extensions) at.l4 += extension_length(kind);
  at.payload = at.l4 + (recipe.protocol == kTcpProtocol ? 20 + recipe.tcp_options : 8);
  at.end = at.payload + recipe.payload;
  return at;
}

Frame from_hex(const std::string& digits) {
  Frame out;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    out.push_back(static_cast<std::uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return out;
}

/// Arbitrary, not repeating with any power of two.
Frame bytes(std::size_t count) {
  Frame out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(i * 37 + i / 251 + 11);
  return out;
}

void build_ipv4(Frame& frame, const Recipe& recipe, const Layout& at) {
  std::uint8_t* const ip = &frame[at.l3];
  ip[0] = static_cast<std::uint8_t>(0x40 | (20 + recipe.ip_options) / 4);
  store_be16(ip + 2, static_cast<std::uint16_t>(at.end - at.l3));
  store_be16(ip + 4, 0xfffe);  // wraps soon
  store_be16(ip + 6, recipe.fragment);
  ip[9] = recipe.protocol;
}

void build_ipv6(Frame& frame, const Recipe& recipe, const Layout& at) {
  std::uint8_t* const ip = &frame[at.l3];
  store_be32(ip, 0x60012345);
  store_be16(ip + 4, static_cast<std::uint16_t>(at.end - at.l3 - 40));
  std::uint8_t *next = ip + 6, *header = ip + 40;
  for (const std::uint8_t kind : recipe.extensions) {
    *next = kind;
    next = header;
    header[1] = kind == 44 ? 0 : 1;
    if (kind == 44) store_be16(header + 2, recipe.fragment);
    header += extension_length(kind);
  }
  *next = recipe.protocol;
}

Frame build(const Recipe& recipe) {
  const Layout at = layout(recipe);
  Frame frame = bytes(at.end + recipe.padding);
  if (recipe.tag_type != 0) {
    store_be16(&frame[12], recipe.tag_type);
    store_be16(&frame[14], 0x6123);
  }
  store_be16(&frame[at.l3 - 2], recipe.ipv6 ? 0x86dd : 0x0800);
  recipe.ipv6 ? build_ipv6(frame, recipe, at) : build_ipv4(frame, recipe, at);
  if (recipe.protocol == kTcpProtocol) {
    store_be32(&frame[at.l4 + 4], 0xfffffff0);  // wraps soon
    frame[at.l4 + 12] = static_cast<std::uint8_t>((20 + recipe.tcp_options) / 4 << 4 | 1);
    frame[at.l4 + 13] = 0xff;
  } else if (recipe.protocol == kUdpProtocol) {
    store_be16(&frame[at.l4 + 4], static_cast<std::uint16_t>(at.end - at.l4));
    store_be16(&frame[at.l4 + 6], 0);
  }
  return frame;
}

/// The checksum again, bit by bit and without carries: a one's-complement sum of 16-bit words is the whole input, read
/// as one big number, modulo 65535.
std::uint16_t bitwise_checksum(const Frame& input) {
  std::uint32_t remainder = 0;
  for (const std::uint8_t byte : input) {
    for (int bit = 7; bit >= 0; --bit) remainder = (remainder * 2 + (byte >> bit & 1u)) % 65535;
  }
  if (input.size() % 2 != 0) remainder = remainder * 256 % 65535;
  return static_cast<std::uint16_t>((65535 - remainder) % 65535);
}

std::uint16_t expected_l3(const Frame& frame, std::size_t l3, std::size_t length) {
  Frame header(&frame[l3], &frame[l3] + length);
  store_be16(&header[10], 0);
  return bitwise_checksum(header);
}

/// Where the L4 checksum is.
std::size_t l4_field(const Recipe& recipe) { return layout(recipe).l4 + (recipe.protocol == kTcpProtocol ? 16 : 6); }

std::uint16_t expected_l4(Frame frame, const Recipe& recipe, std::size_t l4_bytes) {
  const Layout at = layout(recipe);
  store_be16(&frame[l4_field(recipe)], 0);
  Frame input(&frame[at.l3 + (recipe.ipv6 ? 8u : 12u)], &frame[at.l3 + (recipe.ipv6 ? 40u : 20u)]);
  input.resize(input.size() + 8);
  store_be32(&input[input.size() - 8], static_cast<std::uint32_t>(l4_bytes));
  input.back() = recipe.protocol;
  input.insert(input.end(), &frame[at.l4], &frame[at.l4] + l4_bytes);
  const std::uint16_t sum = bitwise_checksum(input);
  return recipe.protocol == kUdpProtocol && sum == 0 ? std::uint16_t{0xffff} : sum;
}

void insert_checksums(Frame& frame) {
  const Headers headers = parse(frame);
  insert_l3_checksum(frame, headers);
  insert_l4_checksum(frame, headers);
}

/// Whole frames: each has an l4 header.
const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all{
      {.name = "tcp4", .payload = 33},
      {.name = "tcp4 empty", .padding = 6},
      {.name = "tcp4 options", .ip_options = 40, .tcp_options = 40, .payload = 8},
      {.name = "tcp4 do not fragment", .tcp_options = 12, .payload = 100, .fragment = 0x4000},
      {.name = "tcp4 tagged", .tag_type = 0x8100, .ip_options = 4, .payload = 5, .padding = 3},
      {.name = "udp4", .protocol = kUdpProtocol, .payload = 31},
      {.name = "udp4 padded", .protocol = kUdpProtocol, .payload = 1, .padding = 17},
      {.name = "udp4 service tag", .tag_type = 0x88a8, .ip_options = 8, .protocol = kUdpProtocol},
      {.name = "tcp6", .ipv6 = true, .tcp_options = 12, .payload = 21},
      {.name = "tcp6 extensions", .ipv6 = true, .extensions = {0, 60, 43}, .payload = 9, .padding = 2},
      {.name = "tcp6 atomic fragment", .ipv6 = true, .extensions = {0, 44}, .payload = 10},
      {.name = "tcp6 eight extensions", .ipv6 = true, .extensions = {60, 60, 60, 60, 60, 60, 60, 60}, .payload = 2},
      {.name = "udp6 tagged", .ipv6 = true, .tag_type = 0x8100, .protocol = kUdpProtocol, .payload = 64},
      {.name = "udp6 extension", .ipv6 = true, .extensions = {60}, .protocol = kUdpProtocol, .payload = 7},
  };
  return all;
}

TEST(Parse, FindsTheHeaders) {
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    const Layout at = layout(recipe);
    const Headers headers = parse(build(recipe));
    EXPECT_EQ(headers.ether_type, recipe.ipv6 ? 0x86dd : 0x0800);
    EXPECT_EQ(headers.tagged, recipe.tag_type == 0x8100);
    EXPECT_EQ(headers.tci, recipe.tag_type == 0x8100 ? 0x6123 : 0);
    EXPECT_EQ(headers.ipv4, !recipe.ipv6);
    EXPECT_EQ(headers.ipv6, recipe.ipv6);
    EXPECT_FALSE(headers.fragment);
    EXPECT_EQ(headers.protocol, recipe.protocol);
    EXPECT_TRUE(recipe.protocol == kTcpProtocol ? headers.tcp() : headers.udp());
    EXPECT_EQ(headers.l3, at.l3);
    EXPECT_EQ(headers.l4, at.l4);
    EXPECT_EQ(headers.payload, at.payload);
    EXPECT_EQ(headers.l3_end, at.end);
  }
}

TEST(Parse, SeesFragmentsAndLeavesTheirL4Alone) {
  const std::vector<Recipe> fragments{
      {.name = "first4", .payload = 32, .fragment = 0x2000},
      {.name = "last4", .protocol = kUdpProtocol, .payload = 32, .fragment = 0x0100},
      {.name = "first6", .ipv6 = true, .extensions = {44}, .payload = 32, .fragment = 0x0001},
      {.name = "last6", .ipv6 = true, .extensions = {0, 44}, .protocol = kUdpProtocol, .payload = 32, .fragment = 8},
  };
  for (const Recipe& recipe : fragments) {
    SCOPED_TRACE(recipe.name);
    Frame frame = build(recipe);
    const Headers headers = parse(frame);
    EXPECT_TRUE(headers.fragment);
    EXPECT_EQ(headers.protocol, recipe.protocol);
    EXPECT_EQ(headers.l4, 0);
    EXPECT_EQ(headers.l3_end, layout(recipe).end);
    insert_l3_checksum(frame, headers);
    const Frame before = frame;
    insert_l4_checksum(frame, headers);
    EXPECT_EQ(frame, before);
    EXPECT_TRUE(verify(frame, headers).l3_ok);
    EXPECT_FALSE(verify(frame, headers).l4_ok);
    EXPECT_FALSE((Segmenter{Bytes{frame}.first(layout(recipe).payload), {}, 100}.valid()));
  }
}

TEST(Parse, RefusesWhatIsNoHeader) {
  struct Change {
    std::string name;
    bool ipv6;
    std::size_t at;
    std::uint8_t value;
    bool l3, l4;
  };
  const std::vector<Change> changes{
      {"other ether type", false, 13, 0x06, false, false},
      {"ipv4 says ipv6", false, 14, 0x65, false, false},
      {"ipv4 header of 16", false, 14, 0x44, false, false},
      {"ipv4 header of 60", false, 14, 0x4f, false, false},
      {"tcp header of 16", false, 46, 0x40, true, false},
      {"tcp header of 60", false, 46, 0xf0, true, false},
      {"icmp", false, 23, 1, true, false},
      {"total below header", false, 17, 19, false, false},
      {"total cuts tcp", false, 17, 39, true, false},
      {"total ends with tcp", false, 17, 40, true, true},
      {"ipv6 says ipv4", true, 14, 0x40, false, false},
      {"length cuts tcp", true, 19, 19, true, false},
      {"length ends with tcp", true, 19, 20, true, true},
      {"extension behind the end", true, 20, 60, true, false},
      {"unknown extension", true, 20, 50, true, false},
  };
  for (const Change& change : changes) {
    SCOPED_TRACE(change.name);
    Frame frame = build({.name = {}, .ipv6 = change.ipv6, .payload = 4});
    if (change.at == 20) frame[14 + 40 + 1] = 9;  // length of the pretended extension
    frame[change.at] = change.value;
    const Headers headers = parse(frame);
    EXPECT_EQ(headers.ipv4 || headers.ipv6, change.l3);
    EXPECT_EQ(headers.l4 != 0, change.l4);
  }
  EXPECT_EQ(parse(build({.name = {}, .ipv6 = true, .extensions = Frame(9, 60), .payload = 2})).l4, 0);
}

TEST(Parse, LooksBehindOneTagOnly) {
  Frame frame = build({.name = {}, .tag_type = 0x8100, .payload = 4});
  frame.resize(frame.size() + 4);
  EXPECT_EQ(insert_vlan(frame, frame.size() - 4, 7), frame.size());
  const Headers headers = parse(frame);
  EXPECT_TRUE(headers.tagged);
  EXPECT_EQ(headers.tci, 7);
  EXPECT_EQ(headers.ether_type, 0x8100);
  EXPECT_FALSE(headers.ipv4);
}

TEST(Checksum, MatchesPublishedExamples) {
  const Frame rfc1071 = from_hex("0001f203f4f5f6f7");
  EXPECT_EQ(sum_words(rfc1071), 0x2ddf0u);
  EXPECT_EQ(fold(0x2ddf0), 0x220d);
  EXPECT_EQ(fold(sum_words(Bytes{rfc1071}.subspan(4), sum_words(Bytes{rfc1071}.first(4)))), 0x220d);
  EXPECT_EQ(fold(sum_words(from_hex("450000730000400040110000c0a80001c0a800c7"))), 0xb861);
  EXPECT_EQ(sum_words({}), 0u);
  EXPECT_EQ(sum_words(Frame{0xab}), 0xab00u);
  EXPECT_EQ(fold(0), 0xffff);
  EXPECT_EQ(fold(0xffff0000ffff0001), 0xfffe);
}

TEST(Checksum, InsertsWhatBitwiseArithmeticSays) {
  for (Recipe recipe : recipes()) {
    for (std::size_t more = 0; more < 4; ++more, ++recipe.payload) {
      SCOPED_TRACE(recipe.name + " +" + std::to_string(more));
      const Layout at = layout(recipe);
      const Frame plain = build(recipe);
      Frame frame = plain;
      insert_checksums(frame);
      Frame expected = plain;
      if (!recipe.ipv6) store_be16(&expected[at.l3 + 10], expected_l3(plain, at.l3, 20 + recipe.ip_options));
      store_be16(&expected[l4_field(recipe)], expected_l4(plain, recipe, at.end - at.l4));
      EXPECT_EQ(frame, expected);
      insert_checksums(frame);  // what the fields held before does not matter
      EXPECT_EQ(frame, expected);
    }
  }
}

TEST(Checksum, VerifySeesEveryFlippedBit) {
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    const Layout at = layout(recipe);
    Frame frame = build(recipe);
    insert_checksums(frame);
    const Headers headers = parse(frame);
    EXPECT_TRUE(verify(frame, headers).l3_ok);
    EXPECT_TRUE(verify(frame, headers).l4_ok);
    for (std::size_t bit = at.l3 * 8; bit < frame.size() * 8; ++bit) {
      const std::size_t byte = bit / 8;
      frame[byte] = static_cast<std::uint8_t>(frame[byte] ^ 1 << bit % 8);
      const ChecksumResult result = verify(frame, headers);
      const std::size_t l3_header_end = at.l3 + 20 + recipe.ip_options;
      EXPECT_EQ(result.l3_ok, recipe.ipv6 || byte >= l3_header_end) << byte;
      EXPECT_TRUE(byte < at.l4 || result.l4_ok == (byte >= at.end)) << byte;
      frame[byte] = static_cast<std::uint8_t>(frame[byte] ^ 1 << bit % 8);
    }
  }
}

TEST(Checksum, ZeroMeansNoneInUdpOverIpv4Only) {
  for (const bool ipv6 : {false, true}) {
    for (const std::uint8_t protocol : {kTcpProtocol, kUdpProtocol}) {
      const Recipe recipe{.name = {}, .ipv6 = ipv6, .protocol = protocol, .payload = 2};
      Frame frame = build(recipe);
      const Headers headers = parse(frame);
      EXPECT_EQ(verify(frame, headers).l4_ok, !ipv6 && protocol == kUdpProtocol);

      // A payload that makes the sum 0xffff, hence the checksum 0.
      store_be16(&frame[headers.payload], 0);
      store_be16(&frame[headers.payload], expected_l4(frame, recipe, headers.l3_end - std::size_t{headers.l4}));
      insert_l4_checksum(frame, headers);
      EXPECT_EQ(load_be16(&frame[l4_field(recipe)]), protocol == kUdpProtocol ? 0xffff : 0);
      EXPECT_TRUE(verify(frame, headers).l4_ok);
    }
  }
}

TEST(Checksum, CoversTheUdpLengthAndRefusesWrongOnes) {
  for (const bool ipv6 : {false, true}) {
    const Recipe recipe{.name = {}, .ipv6 = ipv6, .protocol = kUdpProtocol, .payload = 24, .padding = 40};
    for (const std::uint16_t length : std::vector<std::uint16_t>{0, 7, 8, 9, 31, 32, 33, 72, 65535}) {
      SCOPED_TRACE(length);
      Frame frame = build(recipe);
      const Headers headers = parse(frame);
      store_be16(&frame[headers.l4 + 4], length);
      const bool good = length >= 8 && length <= 32;
      const std::uint16_t expected = good ? expected_l4(frame, recipe, length) : std::uint16_t{0};
      insert_l4_checksum(frame, headers);
      EXPECT_EQ(load_be16(&frame[l4_field(recipe)]), expected);
      EXPECT_EQ(verify(frame, headers).l4_ok, good);
    }
  }
}

/// Everything that takes a frame, on a copy of exactly its size. @return its headers.
Headers exercise(const Frame& given) {
  Frame frame{given};
  const Headers headers = parse(frame);
  EXPECT_LE(headers.l3_end, frame.size());
  EXPECT_LE(headers.payload, headers.l3_end);
  insert_l3_checksum(frame, headers);
  insert_l4_checksum(frame, headers);
  const ChecksumResult result = verify(frame, headers);
  EXPECT_EQ(result.l3_ok, headers.ipv4 || headers.ipv6);
  EXPECT_TRUE(!result.l4_ok || headers.l4 != 0);
  const Frame header(frame.begin(), frame.begin() + headers.payload);
  Segmenter segmenter{header, given, 5};
  EXPECT_EQ(segmenter.valid(), headers.tcp());
  for (Frame out(header.size() + 5); segmenter.next(out) != 0;) continue;
  const std::size_t stripped = strip_vlan(frame);
  EXPECT_TRUE(!headers.tagged || stripped == frame.size() - 4);
  EXPECT_EQ(insert_vlan(frame, stripped, 1), stripped < frame.size() ? frame.size() : stripped);
  return headers;
}

TEST(Hostile, FramesCutAnywhere) {
  for (const Recipe& recipe : recipes()) {
    const Layout at = layout(recipe);
    Frame whole = build(recipe);
    insert_checksums(whole);
    const Headers all = parse(whole);
    for (std::size_t length = 0; length <= whole.size(); ++length) {
      SCOPED_TRACE(recipe.name + " cut to " + std::to_string(length));
      Frame cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      const Headers headers = exercise(cut);
      EXPECT_EQ(headers.l4 != 0, length >= at.payload);
      EXPECT_EQ(verify(cut, headers).l3_ok, length >= at.l3 + (recipe.ipv6 ? 40 : 20 + recipe.ip_options));
      EXPECT_EQ(verify(cut, headers).l4_ok, length >= at.end);
      const bool tso = recipe.protocol == kTcpProtocol && length == at.payload;
      EXPECT_EQ((Segmenter{cut, {}, 1}.valid()), tso);
      // An incomplete datagram gets no checksum; headers of the whole frame lead to nothing behind the cut.
      if (length >= at.end) continue;
      const Frame before = cut;
      insert_l4_checksum(cut, headers);
      insert_l3_checksum(cut, all);
      insert_l4_checksum(cut, all);
      EXPECT_EQ(cut, before);
      EXPECT_FALSE(verify(cut, all).l4_ok);
    }
  }
}

TEST(Hostile, RandomChanges) {
  std::mt19937 random{20240229};
  for (int round = 0; round < 20000; ++round) {
    Frame frame = build(recipes()[random() % recipes().size()]);
    for (std::size_t changes = random() % 6; changes > 0; --changes) {
      frame[12 + random() % (frame.size() - 12)] = static_cast<std::uint8_t>(random());
    }
    if (random() % 2 == 0) frame.resize(random() % frame.size());
    exercise(frame);
    if (HasFailure()) FAIL() << "round " << round;
  }
}

/// Segment `index` of a request, byte for byte, computed without offload.cpp.
Frame expected_segment(const Frame& header, const Frame& payload, const Recipe& recipe, std::size_t mss,
                       std::size_t index) {
  const std::size_t begin = index * mss;
  const std::size_t end = std::min(begin + mss, payload.size());
  const Layout at = layout(recipe);
  Frame frame = header;
  frame.insert(frame.end(), payload.begin() + static_cast<std::ptrdiff_t>(begin),
               payload.begin() + static_cast<std::ptrdiff_t>(end));
  const std::size_t l3_bytes = frame.size() - at.l3;
  if (recipe.ipv6) {
    store_be16(&frame[at.l3 + 4], static_cast<std::uint16_t>(l3_bytes - 40));
  } else {
    store_be16(&frame[at.l3 + 2], static_cast<std::uint16_t>(l3_bytes));
    store_be16(&frame[at.l3 + 4], static_cast<std::uint16_t>(0xfffe + index));
    store_be16(&frame[at.l3 + 10], expected_l3(frame, at.l3, 20 + recipe.ip_options));
  }
  store_be32(&frame[at.l4 + 4], static_cast<std::uint32_t>(0xfffffff0 + begin));
  const int cleared = (begin > 0 ? 0x80 : 0) | (end < payload.size() ? 0x01 | 0x08 : 0);  // CWR; FIN, PSH
  frame[at.l4 + 13] = static_cast<std::uint8_t>(0xff & ~cleared);
  store_be16(&frame[at.l4 + 16], expected_l4(frame, recipe, frame.size() - at.l4));
  return frame;
}

/// Sends `payload` behind the headers of `recipe`, but with `length` in the IP length field.
void check_segments(const Recipe& recipe, const Frame& payload, std::size_t mss, std::uint16_t length) {
  Frame header = build(recipe);
  SCOPED_TRACE(recipe.name + " payload " + std::to_string(payload.size()) + " mss " + std::to_string(mss) +
               " length field " + std::to_string(length));
  store_be16(&header[layout(recipe).l3 + (recipe.ipv6 ? 4u : 2u)], length);
  Segmenter segmenter{header, payload, mss};
  ASSERT_TRUE(segmenter.valid());
  const std::size_t count = payload.empty() ? 1 : (payload.size() + mss - 1) / mss;
  Frame together;
  for (std::size_t i = 0; i < count; ++i) {
    const Frame expected = expected_segment(header, payload, recipe, mss, i);
    Frame small(expected.size() - 1);
    ASSERT_EQ(segmenter.next(small), 0u);  // changes nothing
    Frame frame(expected.size());
    ASSERT_EQ(segmenter.next(frame), expected.size()) << "segment " << i;
    ASSERT_EQ(frame, expected) << "segment " << i;
    const Headers headers = parse(frame);
    ASSERT_EQ(headers.l3_end, frame.size());
    ASSERT_TRUE(verify(frame, headers).l3_ok);
    ASSERT_TRUE(verify(frame, headers).l4_ok);
    together.insert(together.end(), frame.begin() + headers.payload, frame.end());
  }
  EXPECT_EQ(together, payload);
  Frame more(70000);
  EXPECT_EQ(segmenter.next(more), 0u);
}

TEST(Segmenter, CutsAsExpected) {
  const std::vector<Recipe> kinds{
      {.name = "tcp4"},
      {.name = "tcp4 options", .ip_options = 12, .tcp_options = 12},
      {.name = "tcp4 longest", .tag_type = 0x8100, .ip_options = 40, .tcp_options = 40},
      {.name = "tcp6", .ipv6 = true},
      {.name = "tcp6 tagged", .ipv6 = true, .tag_type = 0x88a8, .tcp_options = 40},
      {.name = "tcp6 extensions", .ipv6 = true, .extensions = {0, 44, 60}, .tcp_options = 4},
  };
  const std::vector<std::pair<std::size_t, std::size_t>> sizes{
      {0, 1},       {0, 1460},   {1, 1},        {77, 1},       {1459, 1460}, {1460, 1460},   {1461, 1460},
      {4381, 1460}, {9999, 333}, {65536, 1448}, {65536, 9000}, {65535, 7},   {65536, 65000}, {200001, 8961}};
  for (const Recipe& kind : kinds) {
    for (const auto& [size, mss] : sizes) {
      const Frame payload = bytes(size);
      // The length of the header alone, none, that of the whole request or what is left of it, and wrong ones.
      for (const std::size_t length :
           {std::size_t{40}, std::size_t{0}, size + 40, std::size_t{1}, std::size_t{65535}}) {
        if (size > 20000 && length == 1) continue;  // for speed
        check_segments(kind, payload, mss, static_cast<std::uint16_t>(length));
        if (HasFailure()) return;
      }
    }
  }
}

TEST(Segmenter, CountsOnWhereTheIdentificationWraps) { check_segments({.name = "tcp4"}, bytes(70000), 1, 40); }

TEST(Segmenter, NeverMakesAFrameThatItsLengthFieldCannotDescribe) {
  for (const bool ipv6 : {false, true}) {
    const Frame header = build({.name = {}, .ipv6 = ipv6});
    const Frame payload = bytes(200000);
    Segmenter segmenter{header, payload, SIZE_MAX};
    Frame out(100000);
    std::size_t sent = 0;
    while (const std::size_t length = segmenter.next(out)) {
      ASSERT_LE(length, 65535u);
      const Bytes frame = Bytes{out}.first(length);
      ASSERT_EQ(parse(frame).l3_end, length);
      ASSERT_TRUE(verify(frame, parse(frame)).l4_ok);
      ASSERT_TRUE(std::equal(frame.begin() + static_cast<std::ptrdiff_t>(header.size()), frame.end(),
                             payload.begin() + static_cast<std::ptrdiff_t>(sent)));
      sent += length - header.size();
    }
    EXPECT_EQ(sent, payload.size());
  }
}

TEST(Segmenter, RefusesWhatIsNotExactlyTcpHeaders) {
  const Frame good = build({.name = {}, .tcp_options = 8});
  EXPECT_TRUE((Segmenter{good, {}, 1}.valid()));
  EXPECT_FALSE((Segmenter{good, {}, 0}.valid()));
  const std::vector<Frame> bad{
      {},
      Frame(300),
      build({.name = {}, .payload = 1}),
      build({.name = {}, .fragment = 0x2000}),
      Frame(good.begin(), good.end() - 1),
      build({.name = {}, .protocol = kUdpProtocol}),
      build({.name = {}, .ipv6 = true, .extensions = Frame(9, 60)}),
      build({.name = {}, .ipv6 = true, .extensions = Frame(8, 60), .tcp_options = 40, .payload = 100}),
  };
  for (const Frame& header : bad) {
    SCOPED_TRACE(header.size());
    const Frame payload = bytes(10);
    Segmenter segmenter{header, payload, 5};
    EXPECT_FALSE(segmenter.valid());
    Frame out(1000);
    EXPECT_EQ(segmenter.next(out), 0u);
  }
}

const Frame& rss_key() {
  static const Frame key = from_hex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa");
  return key;
}

TEST(Toeplitz, MatchesTheVerificationSuite) {
  struct Vector {
    std::string addresses, ports;  ///< source, destination
    std::uint32_t with_ports, without;
  };
  const std::vector<Vector> vectors{
      {"420995bba18e6450", "0aea06e6", 0x51ccc178, 0x323e8fc2},
      {"c75c6f0241458c53", "37961283", 0xc626b0ea, 0xd718262a},
      {"1813c65f0c16cfb8", "32629488", 0x5c2b394a, 0xd2d0a5de},
      {"261bcd1ed18ea306", "bc6408a9", 0xafc7327f, 0x82989176},
      {"9927a3bfcabc7f02", "acdb0517", 0x10e828a2, 0x5d1809c5},
      {"3ffe250102001fff00000000000000073ffe2501020000030000000000000001", "0aea06e6", 0x40207d3d, 0x2cc18cd5},
      {"3ffe050100080000026097fffe40efabff020000000000000000000000000001", "37961283", 0xdde51bbf, 0x0f0c461c},
      {"3ffe1900454500030200f8fffe2167cffe800000000000000200f8fffe2167cf", "acdb9488", 0x02d1feef, 0x4b61e985},
  };
  for (const Vector& vector : vectors) {
    EXPECT_EQ(toeplitz(rss_key(), from_hex(vector.addresses + vector.ports)), vector.with_ports);
    EXPECT_EQ(toeplitz(rss_key(), from_hex(vector.addresses)), vector.without);
  }
}

TEST(Toeplitz, ReadsNothingBehindTheKey) {
  EXPECT_EQ(toeplitz(rss_key(), {}), 0u);
  EXPECT_EQ(toeplitz({}, Frame(36, 0xff)), 0u);
  EXPECT_EQ(toeplitz(rss_key(), Frame{0x80}), 0x6d5a56dau);
  EXPECT_EQ(toeplitz(Frame{0x6d, 0x5a}, Frame{0x80}), 0x6d5a0000u);
  Frame input(100);
  input[40] = 0xff;  // only these bits would need key bytes behind the 40
  EXPECT_EQ(toeplitz(rss_key(), input), 0u);
}

TEST(Vlan, InsertsAndStrips) {
  const Frame plain = build({.name = {}, .payload = 3});
  Frame frame = plain;
  frame.resize(plain.size() + 4);
  ASSERT_EQ(insert_vlan(frame, plain.size(), 0xa123), frame.size());
  Frame expected = plain;
  const Frame tag = from_hex("8100a123");
  expected.insert(expected.begin() + 12, tag.begin(), tag.end());
  EXPECT_EQ(frame, expected);
  EXPECT_EQ(parse(frame).tci, 0xa123);
  frame.resize(strip_vlan(frame));
  EXPECT_EQ(frame, plain);
}

TEST(Vlan, LeavesAloneWhatItCannotChange) {
  for (const std::size_t size : {0u, 1u, 12u, 13u, 14u, 17u, 60u}) {
    const Frame before = bytes(size);
    Frame frame = before;
    EXPECT_EQ(strip_vlan(frame), size);
    EXPECT_EQ(insert_vlan(frame, size, 1), size);  // no room
    EXPECT_EQ(insert_vlan(frame, size + 1, 1), size + 1);
    EXPECT_EQ(insert_vlan(frame, 13, 1), 13u);  // a runt
    EXPECT_EQ(frame, before);
  }
}

}  // namespace
}  // namespace softnic
