#pragma once
#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace vswitch {

/// An Ethernet MAC address, bytes in wire order.
struct Mac {
  std::array<std::uint8_t, 6> bytes{};

  /// Parses "02:00:00:00:00:11" (hex, any case, colons); nullopt for anything else.
  static std::optional<Mac> parse(std::string_view text);
  /// Lower-case, colons.
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] bool is_multicast() const noexcept { return (bytes[0] & 1U) != 0; }
  [[nodiscard]] bool is_zero() const noexcept { return *this == Mac{}; }
  auto operator<=>(const Mac&) const = default;
};

/// The 48 address bits at `bytes` as a number: opaque, equal for equal addresses, upper 16 bits zero. Reads 8 bytes.
[[nodiscard]] inline std::uint64_t mac_bits(const std::byte* bytes) noexcept {
  static_assert(std::endian::native == std::endian::little,
                "mask below keeps the first six bytes of a little-endian load");
  std::uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word & 0x0000'ffff'ffff'ffffULL;
}
[[nodiscard]] inline std::uint64_t mac_bits(const Mac& mac) noexcept {
  std::array<std::byte, 8> padded{};
  std::memcpy(padded.data(), mac.bytes.data(), mac.bytes.size());
  return mac_bits(padded.data());
}

}  // namespace vswitch
