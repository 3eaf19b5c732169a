#include "vswitch/net/ip.h"

#include <arpa/inet.h>

#include <charconv>

namespace vswitch {

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  if (copy.find('\0') != std::string::npos) return std::nullopt;  // inet_pton() would stop reading there
  IpAddress address;
  if (::inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1) return address;
  address.length = 16;
  if (::inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) return address;
  return std::nullopt;
}

std::string IpAddress::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(family(), bytes.data(), text.data(), text.size());
  return text.data();
}

int IpAddress::family() const noexcept { return is_v6() ? AF_INET6 : AF_INET; }

std::optional<IpPrefix> IpPrefix::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  const unsigned bits = address->length * 8U;
  IpPrefix prefix{*address, static_cast<std::uint8_t>(bits)};
  if (slash == std::string_view::npos) return prefix;
  const std::string_view digits = text.substr(slash + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix.prefix_length);
  if (error != std::errc{} || end != digits.data() + digits.size() || prefix.prefix_length > bits) return std::nullopt;
  return prefix;
}

std::string IpPrefix::to_string() const { return address.to_string() + "/" + std::to_string(prefix_length); }

}  // namespace vswitch
