#include "vswitch/net/checksum_kernels.h"
#include "vswitch/net/checksum_words.h"

// Vectors of 128 bits, in the compiler's own notation: SSE2 on every x86-64 (paddq, psrlq, paddq for each 16 bytes),
// NEON on every arm64 (add, usra), and pairs of 64-bit registers where there is neither.

namespace vswitch {
namespace {

using Wide = std::uint64_t __attribute__((vector_size(16)));
constexpr std::size_t kWide = sizeof(Wide);
constexpr std::size_t kUnrolled = 4 * kWide;

/// As loaded_once(); where nothing is stored it saves loads.
Wide load(const std::byte* from) noexcept {
  auto value = load_raw<Wide>(from);
#if defined(__x86_64__)
  asm volatile("" : "+x"(value));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(value));
#else
  asm volatile("" : "+m"(value));  // no name for its registers that all compilers share
#endif
  return value;
}

void store(std::byte* to, Wide value) noexcept { store_raw(to, value); }

/// As copy_word().
Wide copy_wide(std::byte* to, const std::byte* from) noexcept {
  const Wide value = load(from);
  store(to, value);
  return value;
}

/// As WordSum, in two lanes. There are two of them: chains of additions half as long.
struct WideSum {
  Wide all{};
  Wide high{};

  void add(Wide a) noexcept {
    all += a;
    high += a >> 32;
  }
  /// As WordSum::total().
  [[nodiscard]] std::uint64_t total() const noexcept {
    const Wide lanes = (all - (high << 32)) + high;
    return fold_once(lanes[0] + lanes[1]);
  }
};

}  // namespace

std::uint64_t add_portable(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept {
  WideSum even;
  WideSum odd;
  for (; length >= kUnrolled; length -= kUnrolled, from += kUnrolled) {
    even.add(load(from));
    odd.add(load(from + kWide));
    even.add(load(from + 2 * kWide));
    odd.add(load(from + 3 * kWide));
  }
  for (; length >= kWide; length -= kWide, from += kWide) even.add(load(from));
  WordSum words;
  add_words(words, from, length);
  return sum + even.total() + odd.total() + words.total();
}

std::uint64_t copy_portable(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept {
  WideSum even;
  WideSum odd;
  for (; length >= kUnrolled; length -= kUnrolled, from += kUnrolled, to += kUnrolled) {
    const Wide a = load(from);
    const Wide b = load(from + kWide);
    const Wide c = load(from + 2 * kWide);
    const Wide d = load(from + 3 * kWide);
    store(to, a);
    store(to + kWide, b);
    store(to + 2 * kWide, c);
    store(to + 3 * kWide, d);
    even.add(a);
    odd.add(b);
    even.add(c);
    odd.add(d);
  }
  for (; length >= kWide; length -= kWide, from += kWide, to += kWide) even.add(copy_wide(to, from));
  WordSum words;
  copy_words(words, to, from, length);
  return sum + even.total() + odd.total() + words.total();
}

}  // namespace vswitch
