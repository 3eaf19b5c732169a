#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "vswitch/base/fd.h"
#include "vswitch/base/memory.h"

namespace vswitch::bench {

/// The Linux kernel's csum_partial(), as far as a process can reach it: a BPF program that calls the helper
/// bpf_csum_diff() again and again, run by BPF_PROG_TEST_RUN. The helper adds a few instructions to csum_partial() (in
/// kernels before 6.13 also a copy, and it takes at most 512 bytes); so one program sums `length` bytes and another one
/// none, and what counts is the difference. Needs CAP_BPF and CAP_NET_ADMIN, or root.
class KernelChecksum {
 public:
  static constexpr std::uint32_t kCalls = 64;  ///< of the helper in one run of a program

  /// @param length a multiple of 4. Throws Error
  explicit KernelChecksum(std::uint32_t length);

  /// What is summed, page-aligned. Write to it before the first call.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return memory_.bytes().first(length_); }
  /// The sum of kCalls times the bytes, each added to the sum of those before; in memory order, not folded.
  [[nodiscard]] std::uint32_t sum() const;
  /// One csum_partial(), measured for about so long. Throws Error.
  [[nodiscard]] double nanoseconds(double seconds) const;

 private:
  std::uint32_t length_;
  Fd map_;
  Mapping memory_;
  Fd summing_;
  Fd idle_;  ///< the same with no bytes
};

}  // namespace vswitch::bench
