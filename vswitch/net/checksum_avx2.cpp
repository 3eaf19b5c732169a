#if defined(__x86_64__)
  #include "vswitch/net/checksum_kernels.h"
  #include "vswitch/net/checksum_words.h"

// Functions with a target of their own, not a file compiled with -mavx2: what such a file instantiates of the headers'
// inline functions may be what the linker keeps for the whole program, which then needs AVX2 everywhere.

namespace vswitch {
namespace {

using Wide = std::uint64_t __attribute__((vector_size(32)));
constexpr std::size_t kWide = sizeof(Wide);
constexpr std::size_t kUnrolled = 4 * kWide;
constexpr std::size_t kAligned = 512;  // bytes from which on alignment pays for itself

/// As WordSum, in four lanes.
struct WideSum {
  Wide all{};
  Wide high{};
};

/// As loaded_once(); where nothing is stored it saves loads.
[[gnu::target("avx2"), gnu::always_inline]] inline Wide load(const std::byte* from) noexcept {
  Wide value;
  __builtin_memcpy(&value, from, kWide);
  asm volatile("" : "+x"(value));
  return value;
}

[[gnu::target("avx2"), gnu::always_inline]] inline void store(std::byte* to, Wide value) noexcept {
  __builtin_memcpy(to, &value, kWide);
}

/// As copy_word().
[[gnu::target("avx2"), gnu::always_inline]] inline Wide copy_wide(std::byte* to, const std::byte* from) noexcept {
  const Wide value = load(from);
  store(to, value);
  return value;
}

[[gnu::target("avx2"), gnu::always_inline]] inline void add_one(WideSum& sum, Wide a) noexcept {
  sum.all += a;
  sum.high += a >> 32;
}

/// Four at once: the chain from one step to the next is one addition long.
[[gnu::target("avx2"), gnu::always_inline]] inline void add_four(WideSum& sum, Wide a, Wide b, Wide c,
                                                                 Wide d) noexcept {
  sum.all += (a + b) + (c + d);
  sum.high += ((a >> 32) + (b >> 32)) + ((c >> 32) + (d >> 32));
}

/// As WordSum::total().
[[gnu::target("avx2"), gnu::always_inline]] inline std::uint64_t total(const WideSum& sum) noexcept {
  const Wide four = (sum.all - (sum.high << 32)) + sum.high;
  const auto two = __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return fold_once(two[0] + two[1]);
}

[[gnu::target("avx2"), gnu::always_inline]] inline std::uint64_t copy_run(std::byte* to, const std::byte* from,
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
  WordSum words;
  copy_words(words, to, from, length);
  return total(wide) + words.total();
}

}  // namespace

bool has_avx2() noexcept {
  __builtin_cpu_init();  // may run before the constructors that would have done it
  return __builtin_cpu_supports("avx2") != 0;
}

[[gnu::target("avx2")]] std::uint64_t add_avx2(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept {
  WideSum wide;
  for (; length >= kUnrolled; length -= kUnrolled, from += kUnrolled) {
    add_four(wide, load(from), load(from + kWide), load(from + 2 * kWide), load(from + 3 * kWide));
  }
  for (; length >= kWide; length -= kWide, from += kWide) add_one(wide, load(from));
  WordSum words;
  add_words(words, from, length);
  return sum + total(wide) + words.total();
}

/// Stores to addresses that are not a multiple of 32 touch two cache lines every other time: what is long gets there
/// first. Loads gain too little from it.
[[gnu::target("avx2")]] std::uint64_t copy_avx2(std::uint64_t sum, std::byte* to, const std::byte* from,
                                                std::size_t length) noexcept {
  const std::size_t head = length < kAligned ? 0 : bytes_before_multiple(to, kWide);
  if (head == 0) return sum + copy_run(to, from, length);
  WordSum first;
  copy_words(first, to, from, head);
  return sum + first.total() + sum_at(head, copy_run(to + head, from + head, length - head));
}

}  // namespace vswitch
#endif
