#include "vswitch/net/mac.h"

#include <charconv>
#include <cstdio>

namespace vswitch {

std::optional<Mac> Mac::parse(std::string_view text) {
  constexpr std::size_t kTextLength = 17;
  if (text.size() != kTextLength) return std::nullopt;
  Mac mac;
  for (std::size_t i = 0; i < mac.bytes.size(); ++i) {
    const std::string_view digits = text.substr(i * 3, 2);
    if (i > 0 && text[i * 3 - 1] != ':') return std::nullopt;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + 2, mac.bytes[i], 16);
    if (error != std::errc{} || end != digits.data() + 2) return std::nullopt;
  }
  return mac;
}

std::string Mac::to_string() const {
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2], bytes[3],
                bytes[4], bytes[5]);
  return text.data();
}

}  // namespace vswitch
