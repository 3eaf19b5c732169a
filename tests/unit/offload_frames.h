#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "vswitch/net/offload.h"

// Unfinished TCP and UDP frames as a sender with offloads makes them, and a checksum verifier that shares no code with
// what it verifies. For the tests of checksum, offload check, segmentation and adapter.

namespace vswitch::test {

using Bytes = std::vector<std::byte>;

inline void put(Bytes& to, std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) to.push_back(static_cast<std::byte>(byte));
}
inline void put16(Bytes& to, std::size_t value) { put(to, {unsigned(value >> 8) & 0xffU, unsigned(value) & 0xffU}); }
inline void put32(Bytes& to, std::size_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
inline std::size_t get8(const Bytes& from, std::size_t at) { return std::to_integer<std::size_t>(from.at(at)); }
inline std::size_t get16(const Bytes& from, std::size_t at) { return get8(from, at) << 8 | get8(from, at + 1); }
inline std::size_t get32(const Bytes& from, std::size_t at) { return get16(from, at) << 16 | get16(from, at + 2); }
inline void set16(Bytes& to, std::size_t at, std::size_t value) {
  to.at(at) = static_cast<std::byte>(value >> 8);
  to.at(at + 1) = static_cast<std::byte>(value);
}

/// RFC 1071 as its section 4.1 spells it: big-endian 16-bit words, carries added at the end.
inline std::size_t reference_sum(std::span<const std::byte> bytes, std::size_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += std::to_integer<std::size_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

/// What to build. Defaults are the frame of the golden vectors.
struct FrameSpec {
  bool ipv6 = false;
  bool tcp = true;
  std::vector<std::uint16_t> tags = {};   ///< TCIs; with two the outer one is 802.1ad
  std::vector<unsigned> extensions = {};  ///< IPv6: next-header values of extension headers, 8 bytes each
  std::size_t ip_options = 0;             ///< IPv4: bytes of NOPs, a multiple of 4
  std::size_t tcp_options = 12;           ///< bytes of NOPs, a multiple of 4
  unsigned flags = 0x099;                 ///< FIN PSH ACK CWR
  std::size_t sequence = 0xffffff00;
  std::size_t id = 0x1000;
  std::size_t payload = 3500;
  std::uint16_t gso_size = 1448;  ///< 0: not GSO
  unsigned seed = 0;              ///< payload bytes: (seed + i) mod 251
};

struct BuiltFrame {
  Bytes bytes;
  Offload offload;
  std::size_t l3 = 0;
  std::size_t l4 = 0;
  std::size_t header_length = 0;
};

/// A finished frame but for its transport checksum, which is the pseudo-header sum.
inline BuiltFrame build(const FrameSpec& spec) {
  BuiltFrame frame;
  Bytes& b = frame.bytes;
  put(b, {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2});
  for (std::size_t i = 0; i < spec.tags.size(); ++i) {
    put16(b, i + 1 < spec.tags.size() ? 0x88a8 : 0x8100);
    put16(b, spec.tags[i]);
  }
  put16(b, spec.ipv6 ? 0x86dd : 0x0800);
  frame.l3 = b.size();
  const std::size_t transport = (spec.tcp ? 20 + spec.tcp_options : 8) + spec.payload;
  const unsigned protocol = spec.tcp ? 6 : 17;
  Bytes pseudo;
  if (spec.ipv6) {
    put32(b, 0x60000000);
    put16(b, spec.extensions.size() * 8 + transport);
    put(b, {spec.extensions.empty() ? protocol : spec.extensions.front(), 64});
    for (const unsigned last : {1U, 2U}) put(b, {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
    pseudo.assign(b.end() - 32, b.end());
    for (std::size_t i = 0; i < spec.extensions.size(); ++i) {
      put(b, {i + 1 < spec.extensions.size() ? spec.extensions[i + 1] : protocol, 0, 1, 4, 0, 0, 0, 0});
    }
  } else {
    put(b, {unsigned(0x45 + spec.ip_options / 4), 0});
    put16(b, 20 + spec.ip_options + transport);
    put16(b, spec.id);
    put(b, {0x40, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2});
    pseudo.assign(b.end() - 8, b.end());
    for (std::size_t i = 0; i < spec.ip_options; ++i) put(b, {1});
    set16(b, frame.l3 + 10, 0xffff ^ reference_sum(std::span(b).subspan(frame.l3)));
  }
  frame.l4 = b.size();
  const std::size_t partial = reference_sum(pseudo, transport + protocol);
  put16(b, 1000);
  put16(b, 2000);
  if (spec.tcp) {
    put32(b, spec.sequence);
    put32(b, 7);
    put16(b, (20 + spec.tcp_options) / 4 << 12 | spec.flags);
    put16(b, 500);
    put16(b, partial);
    put16(b, 0);
    for (std::size_t i = 0; i < spec.tcp_options; ++i) put(b, {1});
  } else {
    put16(b, transport);
    put16(b, partial);
  }
  frame.header_length = b.size();
  b.resize(b.size() + spec.payload);
  unsigned byte = spec.seed % 251;
  for (std::size_t i = frame.header_length; i < b.size(); ++i, byte = byte == 250 ? 0 : byte + 1) {
    b[i] = static_cast<std::byte>(byte);
  }
  frame.offload.flags = Offload::kNeedsChecksum;
  frame.offload.csum_start = static_cast<std::uint16_t>(frame.l4);
  frame.offload.csum_offset = spec.tcp ? 16 : 6;
  if (spec.gso_size != 0) {
    frame.offload.gso_size = spec.gso_size;
    frame.offload.gso_type = !spec.tcp ? Offload::kGsoUdpL4 : spec.ipv6 ? Offload::kGsoTcp6 : Offload::kGsoTcp4;
    if (spec.tcp && (spec.flags & 0x80) != 0) frame.offload.gso_type |= Offload::kGsoEcn;
  }
  return frame;
}

/// Whether lengths and checksums of a finished frame with the header layout of `like` are right.
inline bool is_finished(const Bytes& frame, const BuiltFrame& like, bool ipv6, bool tcp) {
  const std::span<const std::byte> bytes(frame);
  const std::size_t transport = frame.size() - like.l4;
  std::size_t sum = transport + (tcp ? 6 : 17);
  if (ipv6) {
    if (get16(frame, like.l3 + 4) != frame.size() - like.l3 - 40) return false;
    sum = reference_sum(bytes.subspan(like.l3 + 8, 32), sum);
  } else {
    if (get16(frame, like.l3 + 2) != frame.size() - like.l3) return false;
    if (reference_sum(bytes.subspan(like.l3, like.l4 - like.l3)) != 0xffff) return false;
    sum = reference_sum(bytes.subspan(like.l3 + 12, 8), sum);
  }
  if (!tcp && get16(frame, like.l4 + 4) != transport) return false;
  return reference_sum(bytes.subspan(like.l4), sum) == 0xffff;
}

}  // namespace vswitch::test
