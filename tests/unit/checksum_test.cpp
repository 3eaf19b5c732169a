#include "vswitch/net/checksum.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "offload_frames.h"
#include "vswitch/base/memory.h"
#include "vswitch/net/checksum_kernels.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

using test::Bytes;
using test::put;
using test::reference_sum;

/// Of a sum in memory order: what it is as a number.
std::size_t folded(std::uint64_t sum) { return swap_to_wire(checksum_fold(sum)); }

Bytes random_bytes(std::size_t length, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(length);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// reference_sum() of ever longer messages: one byte at a time.
class GrowingReference {
 public:
  void add(std::byte byte) {
    sum_ += std::to_integer<std::size_t>(byte) << (length_++ % 2 == 0 ? 8 : 0);
    sum_ = (sum_ & 0xffff) + (sum_ >> 16);
  }
  [[nodiscard]] std::size_t sum() const { return sum_; }

 private:
  std::size_t sum_ = 0;
  std::size_t length_ = 0;
};

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

TEST(Checksum, ChunksAtOddOffsetsAddUpOnceShifted) {
  const Bytes bytes = random_bytes(3001, 3);
  const std::span<const std::byte> all(bytes);
  std::mt19937 random(4);
  for (int round = 0; round < 2000; ++round) {
    std::uint64_t sum = 0;
    for (std::size_t done = 0; done < bytes.size();) {
      const std::size_t length = std::min<std::size_t>(random() % 700, bytes.size() - done);
      const std::uint64_t chunk = checksum_add(0, all.subspan(done, length));
      sum += done % 2 == 0 ? chunk : checksum_shift(chunk);
      done += length;
    }
    ASSERT_EQ(folded(sum), reference_sum(bytes)) << round;
  }
}

TEST(Checksum, ReplacingAWordIsSummingAgain) {
  std::mt19937 random(5);
  constexpr std::array<std::uint16_t, 4> kEdges{0, 1, 0xfffe, 0xffff};
  const auto word = [&] {  // often one where the carries wrap around
    return random() % 4 == 0 ? kEdges[random() % kEdges.size()] : static_cast<std::uint16_t>(random());
  };
  std::set<std::uint16_t> results;
  for (int round = 0; round < 100'000; ++round) {
    std::array<std::uint16_t, 10> header{};  // an IPv4 header is never all zeros
    for (auto& each : header) each = word();
    header[0] = 0x45;
    if (round % 3 == 0)
      header[2] = static_cast<std::uint16_t>(0xffff - 0x45), std::fill(header.begin() + 3, header.end(), 0);
    const auto sum = [&] { return checksum_add(0, std::as_bytes(std::span(header))); };
    const std::uint16_t before = checksum_complement(sum());
    const std::uint16_t old = header[1];
    header[1] = word();
    const std::uint16_t after = checksum_replace(before, old, header[1]);
    ASSERT_EQ(after, checksum_complement(sum())) << round;
    results.insert(after);
  }
  EXPECT_TRUE(results.contains(0));        // this is how zero is spelled,
  EXPECT_FALSE(results.contains(0xffff));  // not so
}

TEST(Checksum, ReplacingSpellsZeroAsOnesOnlyWhenNothingElseIsKnown) {
  EXPECT_EQ(checksum_replace(0xffff, 0xffff, 0), 0xffffU);
  EXPECT_EQ(checksum_replace(0xffff, 0xffff, 0xffff), 0U);  // as 0xffff it came in, as 0 it comes out
  EXPECT_EQ(checksum_replace(0, 0, 0), 0U);
  EXPECT_EQ(checksum_replace(0x1234, 0x1234, 0), checksum_complement(0xffff - 0x1234 + 0xffff - 0x1234));
}

std::vector<ChecksumKernel> all_kernels() {
  const auto kernels = checksum_kernels();
  std::vector<ChecksumKernel> all(kernels.begin(), kernels.end());
  all.push_back({"dispatched",
                 [](std::uint64_t sum, const std::byte* from, std::size_t length) noexcept {
                   return checksum_add(sum, {from, length});
                 },
                 [](std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept {
                   return checksum_copy(sum, to, {from, length});
                 }});
  return all;
}

std::vector<std::string> names_of_kernels() {
  std::vector<std::string> names;
  for (const ChecksumKernel& kernel : all_kernels()) names.emplace_back(kernel.name);
  return names;
}

/// What every kernel must do, by name; "dispatched" is what the rest of the switch calls.
class Kernel : public testing::TestWithParam<std::string> {
 protected:
  Kernel() {
    for (const ChecksumKernel& kernel : all_kernels()) {
      if (kernel.name == GetParam()) kernel_ = kernel;
    }
  }
  [[nodiscard]] const ChecksumKernel& kernel() const { return kernel_; }

 private:
  ChecksumKernel kernel_{};
};

INSTANTIATE_TEST_SUITE_P(Checksum, Kernel, testing::ValuesIn(names_of_kernels()),
                         [](const auto& test) { return test.param; });

constexpr std::size_t kLongest = 600;
constexpr std::size_t kAlignments = 64;

TEST_P(Kernel, AddsEveryLengthAtEveryAlignment) {
  for (const Bytes& bytes : {random_bytes(kLongest + 2 * kAlignments, 6), Bytes(kLongest + 2 * kAlignments),
                             Bytes(kLongest + 2 * kAlignments, std::byte{0xff})}) {
    const std::byte* line = bytes.data() + bytes_before_multiple(bytes.data(), kAlignments);
    for (std::size_t start = 0; start < kAlignments; ++start) {
      GrowingReference reference;
      for (std::size_t length = 0; length <= kLongest; ++length) {
        ASSERT_EQ(folded(kernel().add(0, line + start, length)), reference.sum()) << start << "+" << length;
        reference.add(line[start + length]);
      }
    }
  }
}

TEST_P(Kernel, CopiesEveryLengthFromEveryAlignmentToEveryAlignment) {
  const Bytes source = random_bytes(kLongest + 2 * kAlignments, 7);
  Bytes destination(kLongest + 4 * kAlignments);
  const std::byte* from = source.data() + bytes_before_multiple(source.data(), kAlignments);
  std::byte* to = destination.data() + kAlignments + bytes_before_multiple(destination.data(), kAlignments);
  constexpr std::byte kCanary{0xa5};
  constexpr std::size_t kCanaries = 64;  // an access of any vector's width too far hits one
  const Bytes canaries(kCanaries, kCanary);
  for (std::size_t start = 0; start < kAlignments; ++start) {
    GrowingReference reference;
    for (std::size_t length = 0; length <= kLongest; ++length) {
      for (std::size_t there = 0; there < kAlignments; ++there) {
        std::memset(to + there - kCanaries, static_cast<int>(kCanary), length + 2 * kCanaries);
        const std::uint64_t sum = kernel().copy(0, to + there, from + start, length);
        const bool is_right = folded(sum) == reference.sum() && std::memcmp(to + there, from + start, length) == 0 &&
                              std::memcmp(to + there - kCanaries, canaries.data(), kCanaries) == 0 &&
                              std::memcmp(to + there + length, canaries.data(), kCanaries) == 0;
        ASSERT_TRUE(is_right) << length << " bytes from " << start << " to " << there;
      }
      reference.add(from[start + length]);
    }
  }
}

TEST_P(Kernel, SumsLongMessages) {
  constexpr std::size_t kLong = 70'000;
  std::mt19937 random(8);
  for (const Bytes& bytes : {random_bytes(kLong + kAlignments, 9), Bytes(kLong + kAlignments),
                             Bytes(kLong + kAlignments, std::byte{0xff})}) {
    for (int round = 0; round < 200; ++round) {
      const std::size_t length = round == 0 ? kLong : random() % (kLong + 1);
      const auto from = std::span(bytes).subspan(random() % kAlignments, length);
      Bytes to(length + kAlignments + 1, std::byte{0xa5});
      const std::size_t start = random() % kAlignments;
      ASSERT_EQ(folded(kernel().add(0, from.data(), length)), reference_sum(from)) << length;
      ASSERT_EQ(folded(kernel().copy(0, to.data() + start, from.data(), length)), reference_sum(from)) << length;
      ASSERT_TRUE(std::equal(from.begin(), from.end(), to.begin() + static_cast<std::ptrdiff_t>(start))) << length;
      ASSERT_EQ(to[start + length], std::byte{0xa5});
    }
  }
}

TEST_P(Kernel, KeepsWhatWasThereBefore) {
  const Bytes bytes = random_bytes(1500, 10);
  Bytes to(1500);
  const std::uint64_t before = 0x1234'5678'9abcULL;
  const std::size_t expected = reference_sum(bytes, folded(before));
  EXPECT_EQ(folded(kernel().add(before, bytes.data(), bytes.size())), expected);
  EXPECT_EQ(folded(kernel().copy(before, to.data(), bytes.data(), bytes.size())), expected);
}

TEST_P(Kernel, SumsMegabytesOfOnesWithoutLosingACarry) {
  const Bytes ones((std::size_t{16} << 20) + 1, std::byte{0xff});
  Bytes to(ones.size());
  EXPECT_EQ(folded(kernel().add(0, ones.data(), ones.size())), reference_sum(ones));
  EXPECT_EQ(folded(kernel().copy(0, to.data(), ones.data(), ones.size())), reference_sum(ones));
}

/// What the two processes of the next test share.
struct Stepped {
  volatile bool is_copying;
  volatile std::size_t length, start;  ///< of the copy that failed; or of the last one
  std::array<std::byte, 1024> source;
};

/// The copying process. @return its exit status
int copy_while_stepped(const ChecksumKernel& kernel, Stepped& shared) {
  Bytes destination(sizeof(shared.source) + kAlignments);
  std::byte* line = destination.data() + bytes_before_multiple(destination.data(), kAlignments);
  const auto is_right = [&](std::size_t start, std::size_t length) {
    const std::span<std::byte> copy(line + start, length);
    shared.length = length;
    shared.start = start;
    shared.is_copying = true;
    syscall(SYS_kill, getpid(), SIGSTOP);  // raise() is long under sanitizers
    const std::uint64_t sum = kernel.copy(0, copy.data(), &shared.source[1], length);
    shared.is_copying = false;
    return folded(sum) == reference_sum(copy);
  };
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) return 2;
  for (const unsigned length :
       {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 15U, 31U, 63U, 64U, 65U, 97U, 127U, 159U, 191U, 255U, 383U}) {
    if (!is_right(0, length)) return 1;  // bodies and tails
  }
  for (const unsigned start : {1U, 2U}) {
    if (!is_right(start, 515)) return 1;  // heads
  }
  return 0;
}

/// The owner of the source rewrites all of it after every single instruction of the process that copies it: whatever
/// reads a byte in two instructions gets two values, and a sum that is not that of the copy.
TEST_P(Kernel, SumsWhatItStoredWhoeverWritesToTheSource) {
  const Fd file = make_sealed_memory("checksum-test", sizeof(Stepped));
  const Mapping mapping = Mapping::shared(file.get(), sizeof(Stepped), true);
  Stepped& shared = *reinterpret_cast<Stepped*>(mapping.data());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(copy_while_stepped(kernel(), shared));
  int status = 0;
  std::size_t steps = 0;
  while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
    if (shared.is_copying) ++steps;
    for (std::byte& byte : shared.source) byte = static_cast<std::byte>(std::to_integer<unsigned>(byte) + 1);
    ASSERT_EQ(ptrace(shared.is_copying ? PTRACE_SINGLESTEP : PTRACE_CONT, child, nullptr, nullptr), 0);
  }
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: the sum of " << shared.length << " bytes copied to " << shared.start
                                    << " is not that of the copy; 2: ptrace is not allowed";
  EXPECT_GT(steps, 300U) << "too little was rewritten meanwhile";
}

#if defined(__x86_64__)
/// The flags that the kernel of this machine reports: not from where the dispatch gets them.
std::set<std::string> cpu_flags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

TEST(ChecksumDispatch, PicksTheWidestKernelThatTheCpuHas) {
  const std::set<std::string> flags = cpu_flags();
  ASSERT_FALSE(flags.empty());
  const bool wide = flags.contains("avx512f") && flags.contains("avx512bw") && flags.contains("avx512_vbmi2");
  const std::string expected = wide ? "avx512" : flags.contains("avx2") ? "avx2" : "portable";
  EXPECT_EQ(checksum_kernel().name, expected);
}
#endif

TEST(ChecksumDispatch, OffersOnlyWhatTheCpuSupportsFastestFirst) {
  ASSERT_FALSE(checksum_kernels().empty());
  EXPECT_STREQ(checksum_kernels().front().name, checksum_kernel().name);
  EXPECT_EQ(checksum_kernels().front().add, checksum_kernel().add);
  EXPECT_STREQ(checksum_kernels().back().name, "portable");
}

}  // namespace
}  // namespace vswitch
