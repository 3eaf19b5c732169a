#include "ports/af_packet/filter.h"

#include <linux/if_packet.h>

#include <cstdint>

namespace vswitch::af_packet {
namespace {

/// More sources than that are left to the steering table: the list is searched one by one for each frame of the host.
constexpr std::size_t kMaxSources = 64;
constexpr std::uint32_t kWholeFrame = 0xffff'ffff;
constexpr std::uint32_t kDestination = 0;  // offsets into the Ethernet header
constexpr std::uint32_t kSource = 6;

constexpr sock_filter load_half(std::uint32_t offset) { return {BPF_LD | BPF_H | BPF_ABS, 0, 0, offset}; }
constexpr sock_filter load_word(std::uint32_t offset) { return {BPF_LD | BPF_W | BPF_ABS, 0, 0, offset}; }
/// Skips `unequal` instructions unless the accumulator is `value`.
constexpr sock_filter skip_unless(std::uint32_t value, std::uint8_t unequal) {
  return {BPF_JMP | BPF_JEQ | BPF_K, 0, unequal, value};
}
constexpr sock_filter answer(std::uint32_t bytes) { return {BPF_RET | BPF_K, 0, 0, bytes}; }

constexpr std::uint32_t first_half(const Mac& mac) {
  return static_cast<std::uint32_t>(mac.bytes[0]) << 8 | mac.bytes[1];
}
constexpr std::uint32_t last_word(const Mac& mac) {
  return static_cast<std::uint32_t>(mac.bytes[2]) << 24 | static_cast<std::uint32_t>(mac.bytes[3]) << 16 |
         static_cast<std::uint32_t>(mac.bytes[4]) << 8 | mac.bytes[5];
}

/// Answers with `bytes` if the address at `offset` is `mac`, else falls through.
void answer_if_address(std::vector<sock_filter>& program, std::uint32_t offset, const Mac& mac, std::uint32_t bytes) {
  program.push_back(load_word(offset + 2));
  program.push_back(skip_unless(last_word(mac), 3));
  program.push_back(load_half(offset));
  program.push_back(skip_unless(first_half(mac), 1));
  program.push_back(answer(bytes));
}

}  // namespace

std::vector<sock_filter> make_filter(const Steering& wanted, const Mac& host) {
  if (wanted.unicast.empty() && wanted.sources.empty() && !wanted.everything) return {answer(0)};
  // PACKET_IGNORE_OUTGOING saves the kernel the work, but a fanout group has its own hook, to which kernels before 6.2
  // do not hand that wish on.
  std::vector<sock_filter> program{load_word(static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE)),
                                   skip_unless(PACKET_OUTGOING, 1), answer(0)};
  if (!wanted.everything) {
    if (wanted.sources.size() <= kMaxSources) {
      for (const Mac& source : wanted.sources) answer_if_address(program, kSource, source, kWholeFrame);
      answer_if_address(program, kDestination, host, 0);
    }
  }
  program.push_back(answer(kWholeFrame));
  return program;
}

}  // namespace vswitch::af_packet
