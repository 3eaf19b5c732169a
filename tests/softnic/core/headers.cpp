#include "tests/softnic/core/headers.h"

#include <algorithm>

namespace softnic {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kTag = 4;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kTcp = 20;
constexpr std::size_t kUdp = 8;
constexpr int kMostExtensions = 8;

constexpr std::uint16_t kCustomerTag = 0x8100;
constexpr std::uint16_t kServiceTag = 0x88a8;

bool is_tag(std::uint16_t type) noexcept { return type == kCustomerTag || type == kServiceTag; }

std::uint16_t narrow(std::size_t offset) noexcept { return static_cast<std::uint16_t>(offset); }

void parse_l4(Bytes frame, std::size_t at, Headers& out) noexcept {
  const std::size_t end = out.l3_end;
  if (out.protocol == 6 && at + kTcp <= end) {
    const std::size_t length = std::size_t{4} * (frame[at + 12] >> 4);
    if (length < kTcp || at + length > end) return;
    out.l4 = narrow(at);
    out.payload = narrow(at + length);
  } else if (out.protocol == 17 && at + kUdp <= end) {
    out.l4 = narrow(at);
    out.payload = narrow(at + kUdp);
  }
}

void parse_ipv4(Bytes frame, std::size_t at, Headers& out) noexcept {
  if (at + kIpv4 > frame.size() || frame[at] >> 4 != 4) return;
  const std::size_t length = std::size_t{4} * (frame[at] & 0xf);
  const std::size_t total = load_be16(&frame[at + 2]);
  if (length < kIpv4 || total < length || at + length > frame.size()) return;
  out.ipv4 = true;
  out.l3 = narrow(at);
  out.l3_end = narrow(std::min(at + total, frame.size()));
  out.protocol = frame[at + 9];
  out.fragment = (load_be16(&frame[at + 6]) & 0x3fff) != 0;
  if (!out.fragment) parse_l4(frame, at + length, out);
}

bool is_extension(std::uint8_t next) noexcept { return next == 0 || next == 43 || next == 44 || next == 60; }

void parse_ipv6(Bytes frame, std::size_t at, Headers& out) noexcept {
  if (at + kIpv6 > frame.size() || frame[at] >> 4 != 6) return;
  out.ipv6 = true;
  out.l3 = narrow(at);
  out.l3_end = narrow(std::min(at + kIpv6 + load_be16(&frame[at + 4]), frame.size()));
  out.protocol = frame[at + 6];
  std::size_t next = at + kIpv6;
  for (int i = 0; i < kMostExtensions && is_extension(out.protocol); ++i) {
    if (next + 8 > out.l3_end) return;
    if (out.protocol == 44) {
      out.fragment = (load_be16(&frame[next + 2]) & 0xfff9) != 0;
      out.protocol = frame[next];
      next += 8;
      if (out.fragment) return;
      continue;
    }
    out.protocol = frame[next];
    next += 8 + std::size_t{8} * frame[next + 1];
  }
  parse_l4(frame, next, out);
}

}  // namespace

Headers parse(Bytes frame) noexcept {
  frame = frame.first(std::min<std::size_t>(frame.size(), 65535));
  Headers out;
  if (frame.size() < kEthernet) return out;
  std::size_t at = kEthernet;
  out.ether_type = load_be16(&frame[12]);
  if (is_tag(out.ether_type) && frame.size() >= kEthernet + kTag) {
    out.tagged = out.ether_type == kCustomerTag;
    if (out.tagged) out.tci = load_be16(&frame[14]);
    out.ether_type = load_be16(&frame[16]);
    at += kTag;
  }
  if (out.ether_type == 0x0800) parse_ipv4(frame, at, out);
  if (out.ether_type == 0x86dd) parse_ipv6(frame, at, out);
  return out;
}

}  // namespace softnic
