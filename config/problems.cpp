#include "config/problems.h"

namespace vswitch {
namespace {

constexpr std::size_t kMaxQuoted = 80;

void append_escaped(std::string& out, char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (c == '"' || c == '\\') {
    out.append(1, '\\').append(1, c);
  } else if (byte < 0x20 || byte == 0x7f) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out.append("\\u00").append(1, kDigits[byte >> 4]).append(1, kDigits[byte & 0xfU]);
  } else {
    out += c;
  }
}

}  // namespace

std::string child(std::string_view pointer, std::string_view key) {
  std::string result(pointer);
  result += '/';
  for (const char c : key) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

std::string child(std::string_view pointer, std::size_t index) { return child(pointer, std::to_string(index)); }

std::string port_pointer(std::string_view tenant, std::string_view port) {
  return child(child(child("/tenants", tenant), "ports"), port);
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) append_escaped(result, c);
  return result;
}

std::string in_quotes(std::string_view text) {
  if (text.size() <= kMaxQuoted) return '"' + escaped(text) + '"';
  std::size_t end = kMaxQuoted;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) --end;  // leaves no half of a character
  return '"' + escaped(text.substr(0, end)) + "...\"";
}

void Problems::add(std::string pointer, std::string text) {
  pointers_.insert(pointer);
  all_.push_back({std::move(pointer), std::move(text), false});
}

void Problems::add_key(std::string pointer, std::string text) {
  pointers_.insert(pointer);
  all_.push_back({std::move(pointer), std::move(text), true});
}

void Problems::append(const Problems& others) {
  all_.insert(all_.end(), others.all_.begin(), others.all_.end());
  pointers_.insert(others.pointers_.begin(), others.pointers_.end());
}

bool Problems::within(std::string_view pointer) const {
  if (pointers_.contains(pointer)) return true;
  const std::string below = std::string(pointer) + '/';
  const auto first = pointers_.lower_bound(below);
  return first != pointers_.end() && first->starts_with(below);
}

}  // namespace vswitch
