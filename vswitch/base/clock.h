#pragma once
#include <cstdint>
#include <ctime>

namespace vswitch {

/// Nanoseconds since an arbitrary start (CLOCK_MONOTONIC).
using Nanoseconds = std::uint64_t;

inline constexpr Nanoseconds kMicrosecond = 1'000;
inline constexpr Nanoseconds kMillisecond = 1'000'000;
inline constexpr Nanoseconds kSecond = 1'000'000'000;

/// The current time; a vDSO call, no system call where the clock source is the TSC. Only thread loops call it:
/// everything below takes the time as an argument.
[[nodiscard]] inline Nanoseconds monotonic_now() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * kSecond + static_cast<Nanoseconds>(now.tv_nsec);
}

}  // namespace vswitch
