#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// Big-endian numbers at any address. The caller has checked that the bytes are there.

namespace vswitch {

[[nodiscard]] constexpr std::uint16_t swap_to_wire(std::uint16_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap16(value);
  return value;
}
[[nodiscard]] constexpr std::uint32_t swap_to_wire(std::uint32_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap32(value);
  return value;
}

/// The T that starts at `at`, as it lies there.
template <class T>
[[nodiscard]] T load_raw(const std::byte* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
template <class T>
void store_raw(std::byte* at, T value) noexcept {
  std::memcpy(at, &value, sizeof(value));
}

[[nodiscard]] inline std::uint8_t load_u8(const std::byte* at) noexcept { return std::to_integer<std::uint8_t>(*at); }
[[nodiscard]] inline std::uint16_t load_be16(const std::byte* at) noexcept {
  return swap_to_wire(load_raw<std::uint16_t>(at));
}
[[nodiscard]] inline std::uint32_t load_be32(const std::byte* at) noexcept {
  return swap_to_wire(load_raw<std::uint32_t>(at));
}
inline void store_be16(std::byte* at, std::uint16_t value) noexcept { store_raw(at, swap_to_wire(value)); }
inline void store_be32(std::byte* at, std::uint32_t value) noexcept { store_raw(at, swap_to_wire(value)); }

}  // namespace vswitch
