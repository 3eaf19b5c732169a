#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vswitch {

/// An IPv4 or IPv6 address, bytes in wire order.
struct IpAddress {
  std::uint8_t length = 4;  ///< 4 or 16 bytes used
  std::array<std::uint8_t, 16> bytes{};

  /// Parses dotted-quad or RFC 4291 text; nullopt for anything else.
  static std::optional<IpAddress> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] bool is_v6() const noexcept { return length == 16; }
  [[nodiscard]] int family() const noexcept;  ///< AF_INET or AF_INET6
  [[nodiscard]] std::span<const std::uint8_t> wire() const noexcept { return {bytes.data(), length}; }
  auto operator<=>(const IpAddress&) const = default;
};

/// An address with its prefix length, "198.18.0.11/24".
struct IpPrefix {
  IpAddress address;
  std::uint8_t prefix_length = 32;

  /// Parses "ADDRESS/LENGTH"; a missing "/LENGTH" means a host prefix. nullopt for anything else.
  static std::optional<IpPrefix> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const IpPrefix&) const = default;
};

}  // namespace vswitch
