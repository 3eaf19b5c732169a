#include "tests/softnic/client/frame.h"

#include <algorithm>

namespace softnic_client {
namespace {

constexpr std::size_t kIp = 14;
constexpr std::size_t kL4 = 34;
constexpr std::uint8_t kTcp = 6, kUdp = 17;

/// RFC 1071, folded, not inverted.
std::uint16_t sum(const Frame& frame, std::size_t from, std::size_t to, std::uint32_t start) {
  for (std::size_t i = from; i < to; ++i) start += (i - from) % 2 == 0 ? frame[i] * 256U : frame[i];
  while (start > 0xffff) start = (start & 0xffff) + (start >> 16);
  return static_cast<std::uint16_t>(start);
}

std::uint16_t l4_sum(const Frame& frame) {
  const std::size_t end = kIp + word(frame, kIp + 2);
  const auto pseudo = static_cast<std::uint32_t>(frame[kIp + 9] + (end - kL4));
  return sum(frame, kL4, end, sum(frame, kIp + 12, kL4, pseudo));
}

Frame headers(const Mac& to, const Flow& flow, std::uint8_t protocol, std::size_t bytes) {
  Frame frame(bytes);
  std::copy(to.begin(), to.end(), frame.begin());
  frame[6] = 2;
  frame[11] = 0x77;
  set_word(frame, 12, 0x0800);
  frame[kIp] = 0x45;
  set_word(frame, kIp + 2, static_cast<std::uint16_t>(bytes - kIp));
  frame[kIp + 8] = 64;
  frame[kIp + 9] = protocol;
  std::copy(flow.source.begin(), flow.source.end(), frame.begin() + kIp + 12);
  std::copy(flow.destination.begin(), flow.destination.end(), frame.begin() + kIp + 16);
  set_word(frame, kL4, flow.source_port);
  set_word(frame, kL4 + 2, flow.destination_port);
  return frame;
}

Mac numbered(std::uint8_t first, std::uint16_t number) {
  return {first, 0x51, 0, 0, static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)};
}

}  // namespace

Mac mac(std::uint16_t number) { return numbered(2, number); }
Mac group(std::uint16_t number) { return numbered(3, number); }

std::uint16_t word(const Frame& frame, std::size_t at) {
  return static_cast<std::uint16_t>(frame.at(at) << 8 | frame.at(at + 1));
}

void set_word(Frame& frame, std::size_t at, std::uint16_t value) {
  frame.at(at) = static_cast<std::uint8_t>(value >> 8);
  frame.at(at + 1) = static_cast<std::uint8_t>(value);
}

Frame plain(const Mac& to, std::uint8_t fill, std::size_t bytes) {
  Frame frame(bytes, fill);
  std::copy(to.begin(), to.end(), frame.begin());
  const Mac from = {2, 0, 0, 0, 0, 0x77};
  std::copy(from.begin(), from.end(), frame.begin() + 6);
  set_word(frame, 12, 0x88b5);
  return frame;
}

Frame tagged(Frame frame, std::uint16_t tci) {
  frame.insert(frame.begin() + 12, 4, 0);
  set_word(frame, 12, 0x8100);
  set_word(frame, 14, tci);
  return frame;
}

Frame udp(const Mac& to, const Flow& flow, const Frame& payload) {
  Frame frame = headers(to, flow, kUdp, kUdpHeaders + payload.size());
  std::copy(payload.begin(), payload.end(), frame.begin() + kUdpHeaders);
  set_word(frame, kL4 + 4, static_cast<std::uint16_t>(frame.size() - kL4));
  set_word(frame, kIp + 10, static_cast<std::uint16_t>(~sum(frame, kIp, kL4, 0)));
  set_word(frame, kL4 + 6, static_cast<std::uint16_t>(~l4_sum(frame)));
  return frame;
}

Frame tso_header(const Mac& to, const Flow& flow, std::uint32_t sequence) {
  Frame frame = headers(to, flow, kTcp, kTcpHeaders);
  set_word(frame, kL4 + 4, static_cast<std::uint16_t>(sequence >> 16));
  set_word(frame, kL4 + 6, static_cast<std::uint16_t>(sequence));
  frame[kL4 + 12] = 0x50;
  frame[kL4 + 13] = 0x18;  // PSH, ACK
  return frame;
}

bool checksums_right(const Frame& frame) { return sum(frame, kIp, kL4, 0) == 0xffff && l4_sum(frame) == 0xffff; }

}  // namespace softnic_client
