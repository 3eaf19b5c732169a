#include "vswitch/net/checksum.h"

#include <gtest/gtest.h>

#include <random>

#include "offload_frames.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::put;
using test::reference_sum;

/// Of a sum in memory order: what it is as a number.
std::size_t folded(std::uint64_t sum) { return swap_to_wire(checksum_fold(sum)); }

TEST(Checksum, AddsTheExampleOfRfc1071) {
  Bytes bytes;
  put(bytes, {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7});
  EXPECT_EQ(folded(checksum_add(0, bytes)), 0xddf2U);
  EXPECT_EQ(swap_to_wire(checksum_complement(checksum_add(0, bytes))), 0x220dU);
}

TEST(Checksum, OfNothingIsNothing) {
  EXPECT_EQ(checksum_add(0, {}), 0U);
  EXPECT_EQ(checksum_fold(0), 0U);
}

TEST(Checksum, AgreesWithTheReferenceForEveryLengthAndAlignment) {
  std::mt19937 random(1);
  Bytes bytes(400);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  for (std::size_t start = 0; start < 16; ++start) {
    for (std::size_t length = 0; length <= 300; ++length) {
      const auto part = std::span<const std::byte>(bytes).subspan(start, length);
      ASSERT_EQ(folded(checksum_add(0, part)), reference_sum(part)) << start << "+" << length;
    }
  }
}

TEST(Checksum, CarriesOfLongRunsOfOnesAreNotLost) {
  for (const std::size_t length : {31U, 64U, 1500U, 65'535U, 1U << 20}) {
    const Bytes ones(length, std::byte{0xff});
    EXPECT_EQ(folded(checksum_add(0, ones)), reference_sum(ones)) << length;
  }
}

TEST(Checksum, ChunksAddUpToTheWhole) {
  std::mt19937 random(2);
  Bytes bytes(3001);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  const std::span<const std::byte> all(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); cut += 2) {
    ASSERT_EQ(checksum_fold(checksum_add(checksum_add(0, all.first(cut)), all.subspan(cut))),
              checksum_fold(checksum_add(0, all)))
        << cut;
  }
}

TEST(Checksum, FoldsEverySum) {
  EXPECT_EQ(checksum_fold(0xffff), 0xffffU);
  EXPECT_EQ(checksum_fold(0x1'0000), 1U);
  EXPECT_EQ(checksum_fold(0x1'ffff'ffffULL), 1U);  // 1 + ffff + ffff: carries of carries
  EXPECT_EQ(checksum_fold(~std::uint64_t{0}), 0xffffU);
  EXPECT_EQ(checksum_fold(0xffff'0000'0000'0001ULL), 1U);
}

TEST(Checksum, ZeroIsSpelledAsAllOnesOnlyWhereAsked) {
  EXPECT_EQ(checksum_complement(0xffff), 0U);
  EXPECT_EQ(checksum_finish(0xffff), 0xffffU);
  EXPECT_EQ(checksum_finish(0x1234), checksum_complement(0x1234));
}

TEST(Checksum, PseudoHeaderSumsAreThoseOfTheStandards) {
  Bytes v4;  // RFC 9293 figure 2: source, destination, zero, protocol, length
  put(v4, {198, 18, 0, 1, 198, 18, 0, 2, 0, 6, 0x0d, 0xcc});
  EXPECT_EQ(folded(pseudo_sum_v4(v4.data(), 6, 0x0dcc)), reference_sum(v4));
  Bytes v6;  // RFC 8200 section 8.1: source, destination, 32-bit length, zeros, next header
  for (unsigned i = 0; i < 32; ++i) put(v6, {0xe0 + i % 16});
  put(v6, {0x00, 0x01, 0x86, 0xa0, 0, 0, 0, 17});
  EXPECT_EQ(folded(pseudo_sum_v6(v6.data(), 17, 100'000)), reference_sum(v6));
}

}  // namespace
}  // namespace vswitch
