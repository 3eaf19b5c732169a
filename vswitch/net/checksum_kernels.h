#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

// The ways to sum long messages that this build has: one for every kind of vector unit. checksum.h chooses among them;
// tests and benchmarks want them one by one.

namespace vswitch {

/// One of them. Any length, any alignment; pure but for what `copy` writes; any thread. `sum` and the rules of overflow
/// are those of checksum_add() and checksum_copy().
struct ChecksumKernel {
  const char* name;
  std::uint64_t (*add)(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept;
  std::uint64_t (*copy)(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept;
};

/// Those that this CPU can run, fastest first; the last one is "portable". Lives as long as the program.
[[nodiscard]] std::span<const ChecksumKernel> checksum_kernels() noexcept;

/// The one that checksum_add() and checksum_copy() use for long messages.
[[nodiscard]] const ChecksumKernel& checksum_kernel() noexcept;

// What they are made of, each in a file of its own.
std::uint64_t add_portable(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept;
std::uint64_t copy_portable(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept;
#if defined(__x86_64__)
/// Whether this CPU, and its operating system, can run the two.
[[nodiscard]] bool has_avx2() noexcept;
std::uint64_t add_avx2(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept;
std::uint64_t copy_avx2(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept;
/// Likewise; and whether it runs 512-bit code at full speed.
[[nodiscard]] bool has_avx512() noexcept;
std::uint64_t add_avx512(std::uint64_t sum, const std::byte* from, std::size_t length) noexcept;
std::uint64_t copy_avx512(std::uint64_t sum, std::byte* to, const std::byte* from, std::size_t length) noexcept;
#endif

}  // namespace vswitch
