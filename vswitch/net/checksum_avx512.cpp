#if defined(__x86_64__)
  #include <immintrin.h>

  #include "vswitch/net/checksum_kernels.h"
  #include "vswitch/net/checksum_words.h"

// As checksum_avx2.cpp, but what is left at the end is loaded and stored under a mask of bytes.

namespace vswitch {
namespace {

using Wide = std::uint64_t __attribute__((vector_size(64)));
constexpr std::size_t kWide = sizeof(Wide);
constexpr std::size_t kUnrolled = 4 * kWide;
constexpr std::size_t kAligned = 512;  // bytes from which on alignment pays for itself

/// As WordSum, in eight lanes.
struct WideSum {
  Wide all{};
  Wide high{};
};

/// As loaded_once(); where nothing is stored it saves loads.
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline Wide load(const std::byte* from) noexcept {
  Wide value;
  __builtin_memcpy(&value, from, kWide);
  asm volatile("" : "+v"(value));
  return value;
}

[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline void store(std::byte* to, Wide value) noexcept {
  __builtin_memcpy(to, &value, kWide);
}

/// As copy_word().
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline Wide copy_wide(std::byte* to,
                                                                              const std::byte* from) noexcept {
  const Wide value = load(from);
  store(to, value);
  return value;
}

[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline void add_one(WideSum& sum, Wide a) noexcept {
  sum.all += a;
  sum.high += a >> 32;
}

/// Four at once: the chain from one step to the next is one addition long.
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline void add_four(WideSum& sum, Wide a, Wide b, Wide c,
                                                                             Wide d) noexcept {
  sum.all += (a + b) + (c + d);
  sum.high += ((a >> 32) + (b >> 32)) + ((c >> 32) + (d >> 32));
}

/// As WordSum::total().
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline std::uint64_t total(const WideSum& sum) noexcept {
  const Wide eight = (sum.all - (sum.high << 32)) + sum.high;
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  const auto two = __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return fold_once(two[0] + two[1]);
}

/// The first `length` bytes of a vector, 0..63.
constexpr std::uint64_t mask_of(std::size_t length) noexcept { return (std::uint64_t{1} << length) - 1; }

/// As load(), of the first `length` bytes, 0..63; the others are zero.
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline Wide load_part(const std::byte* from,
                                                                              std::size_t length) noexcept {
  Wide value = reinterpret_cast<Wide>(_mm512_maskz_loadu_epi8(mask_of(length), from));
  asm volatile("" : "+v"(value));
  return value;
}

/// As copy_wide(), of the first `length` bytes, 0..63.
[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline Wide copy_part(std::byte* to, const std::byte* from,
                                                                              std::size_t length) noexcept {
  const Wide value = load_part(from, length);
  _mm512_mask_storeu_epi8(to, mask_of(length), reinterpret_cast<__m512i>(value));
  return value;
}

[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline std::uint64_t add_run(const std::byte* from,
                                                                                     std::size_t length) noexcept {
  WideSum wide;
  for (; length >= kUnrolled; length -= kUnrolled, from += kUnrolled) {
    add_four(wide, load(from), load(from + kWide), load(from + 2 * kWide), load(from + 3 * kWide));
  }
  for (; length >= kWide; length -= kWide, from += kWide) add_one(wide, load(from));
  if (length != 0) add_one(wide, load_part(from, length));
  return total(wide);
}

[[gnu::target("avx512f,avx512bw"), gnu::always_inline]] inline std::uint64_t copy_run(std::byte* to,
                                                                                      const std::byte* from,
                                                                                      std::size_t length) noexcept {
  WideSum wide;
  for (; length >= kUnrolled; length -= kUnrolled, from += kUnrolled, to += kUnrolled) {
    const Wide a = load(from);
    const Wide b = load(from + kWide);
    const Wide c = load(from + 2 * kWide);
    const Wide d = load(from + 3 * kWide);
    store(to, a);
    store(to + kWide, b);
    store(to + 2 * kWide, c);
    store(to + 3 * kWide, d);
    add_four(wide, a, b, c, d);
  }
  for (; length >= kWide; length -= kWide, from += kWide, to += kWide) add_one(wide, copy_wide(to, from));
  if (length != 0) add_one(wide, copy_part(to, from, length));
  return total(wide);
}

}  // namespace

/// VBMI2 is not used: CPUs that have it (Ice Lake, Zen 4 and later) are those that do not slow down for 512-bit code.
bool has_avx512() noexcept {
  __builtin_cpu_init();  // may run before the constructors that would have done it
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vbmi2") != 0;
}

// Every access to an address that is not a multiple of its width touches two cache lines, at half the speed: what is
// long is loaded from such addresses, or stored to them, after a first part that leads there.

[[gnu::target("avx512f,avx512bw")]] std::uint64_t add_avx512(std::uint64_t sum, const std::byte* from,
                                                             std::size_t length) noexcept {
  const std::size_t head = length < kAligned ? 0 : bytes_before_multiple(from, kWide);
  if (head == 0) return sum + add_run(from, length);
  WideSum first;
  add_one(first, load_part(from, head));
  return sum + total(first) + sum_at(head, add_run(from + head, length - head));
}

[[gnu::target("avx512f,avx512bw")]] std::uint64_t copy_avx512(std::uint64_t sum, std::byte* to, const std::byte* from,
                                                              std::size_t length) noexcept {
  const std::size_t head = length < kAligned ? 0 : bytes_before_multiple(to, kWide);
  if (head == 0) return sum + copy_run(to, from, length);
  WideSum first;
  add_one(first, copy_part(to, from, head));
  return sum + total(first) + sum_at(head, copy_run(to + head, from + head, length - head));
}

}  // namespace vswitch
#endif
