#include "vswitch/net/checksum.h"

#include <array>

#include "vswitch/net/checksum_kernels.h"

namespace vswitch {
namespace {

constexpr ChecksumKernel kPortable{"portable", add_portable, copy_portable};

/// The kernels of this CPU, fastest first.
struct Supported {
  std::array<ChecksumKernel, 3> kernels{};
  std::size_t count = 0;
};

Supported find_supported() noexcept {
  Supported found;
#if defined(__x86_64__)
  if (has_avx512()) found.kernels[found.count++] = {"avx512", add_avx512, copy_avx512};
  if (has_avx2()) found.kernels[found.count++] = {"avx2", add_avx2, copy_avx2};
#endif
  found.kernels[found.count++] = kPortable;
  return found;
}

const Supported& supported() noexcept {
  static const Supported found = find_supported();
  return found;
}

// Written once, before main(): nobody who sums has to ask whether it is there. Whoever sums earlier still, in another
// file's initializer, gets the portable one.
constinit ChecksumKernel chosen = kPortable;
[[maybe_unused]] const bool kHasChosen = (chosen = supported().kernels[0], true);

}  // namespace

std::span<const ChecksumKernel> checksum_kernels() noexcept {
  return std::span(supported().kernels).first(supported().count);
}

const ChecksumKernel& checksum_kernel() noexcept { return chosen; }

std::uint64_t checksum_add_long(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept {
  return chosen.add(sum, from, length);
}

std::uint64_t checksum_copy_long(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept {
  return chosen.copy(sum, to, from, length);
}

std::uint64_t pseudo_sum_v4(const std::byte* addresses, std::uint8_t protocol, std::uint32_t length) noexcept {
  return checksum_add(checksum_word(protocol) + checksum_word(length), {addresses, 8});
}

std::uint64_t pseudo_sum_v6(const std::byte* addresses, std::uint8_t protocol, std::uint32_t length) noexcept {
  return checksum_add(checksum_word(protocol) + checksum_word(length), {addresses, 32});
}

}  // namespace vswitch
