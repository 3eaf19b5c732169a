#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
  #include <cpuid.h>
#endif

namespace softnic {

#if defined(__x86_64__)
/// CPUID leaf 7.
inline bool has_cldemote() noexcept {
  constexpr unsigned kLeaf = 7, kCldemote = 1U << 25;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(kLeaf, 0, &a, &b, &c, &d) != 0 && (c & kCldemote) != 0;
}
#endif

/// Hands what the NIC wrote over to the shared cache, as a NIC does that writes there (Intel Data Direct I/O): else it
/// would lie in the private cache of the core that the model runs on, from where others fetch it at twice the price. A
/// hint (CLDEMOTE, Intel SDM volume 2); nothing where the CPU does not have it.
inline void demote([[maybe_unused]] const void* written, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__x86_64__)
  constexpr std::size_t kLine = 64;
  static const bool known = has_cldemote();
  if (!known || bytes == 0) return;
  const auto first = reinterpret_cast<std::uintptr_t>(written) / kLine;
  const auto last = (reinterpret_cast<std::uintptr_t>(written) + bytes - 1) / kLine;
  for (auto line = first; line <= last; ++line) {
    asm volatile("cldemote %0" : : "m"(*reinterpret_cast<const char*>(line * kLine)) : "memory");
  }
#endif
}

}  // namespace softnic
