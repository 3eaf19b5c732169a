#include "tests/ports/test_frames.h"

#include <iterator>

namespace vswitch::test {
namespace {

constexpr std::size_t kIp = 14;
constexpr std::size_t kTransport = 34;

void put16(std::vector<std::byte>& bytes, std::size_t at, std::size_t value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value);
}

std::uint32_t sum(const std::vector<std::byte>& bytes, std::size_t from, std::size_t to) {
  std::uint32_t total = 0;
  for (std::size_t i = from; i + 1 < to; i += 2) {
    total += std::to_integer<std::uint32_t>(bytes[i]) << 8 | std::to_integer<std::uint32_t>(bytes[i + 1]);
  }
  return total;
}
std::uint32_t fold(std::uint32_t total) {
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return total;
}

/// Ethernet, IPv4 with a right checksum, zeroed transport header, counted payload.
TestFrame ipv4(std::uint8_t protocol, std::size_t transport_header, std::size_t payload, const Mac& to) {
  TestFrame frame = numbered(1, kTransport + transport_header + payload, to);
  auto& bytes = frame.bytes;
  put16(bytes, 12, 0x0800);
  for (std::size_t i = kIp; i < kTransport + transport_header; ++i) bytes[i] = std::byte{0};
  bytes[kIp] = std::byte{0x45};
  put16(bytes, kIp + 2, bytes.size() - kIp);
  put16(bytes, kIp + 4, 1);
  bytes[kIp + 8] = std::byte{64};
  bytes[kIp + 9] = std::byte{protocol};
  for (const std::size_t address : {kIp + 12, kIp + 16}) {
    bytes[address] = std::byte{198};
    bytes[address + 1] = std::byte{18};
    bytes[address + 3] = static_cast<std::byte>(address);
  }
  put16(bytes, kIp + 10, 0xffff - fold(sum(bytes, kIp, kTransport)));
  return frame;
}

void leave_checksum(TestFrame& frame, std::uint8_t protocol, std::uint16_t offset) {
  const std::size_t length = frame.bytes.size() - kTransport;
  const std::uint32_t pseudo = sum(frame.bytes, kIp + 12, kTransport) + protocol + static_cast<std::uint32_t>(length);
  put16(frame.bytes, kTransport + offset, fold(pseudo));
  frame.offload.flags = Offload::kNeedsChecksum;
  frame.offload.csum_start = static_cast<std::uint16_t>(kTransport);
  frame.offload.csum_offset = offset;
}

}  // namespace

TestFrame with_inline_tag(TestFrame frame, std::uint16_t type) {
  const std::byte tag[] = {static_cast<std::byte>(type >> 8), static_cast<std::byte>(type),
                           static_cast<std::byte>(frame.vlan >> 8), static_cast<std::byte>(frame.vlan)};
  frame.bytes.insert(frame.bytes.begin() + 12, std::begin(tag), std::end(tag));
  frame.vlan = 0;
  if (frame.offload.needs_checksum())
    frame.offload.csum_start = static_cast<std::uint16_t>(frame.offload.csum_start + 4);
  return frame;
}

TestFrame unfinished_tcp(std::size_t payload, std::uint16_t gso_size, std::uint16_t source_port, const Mac& to) {
  constexpr std::uint8_t kTcp = 6;
  TestFrame frame = ipv4(kTcp, 20, payload, to);
  put16(frame.bytes, kTransport, source_port);
  put16(frame.bytes, kTransport + 2, 5001);
  frame.bytes[kTransport + 12] = std::byte{0x50};
  frame.bytes[kTransport + 13] = std::byte{0x10};
  leave_checksum(frame, kTcp, 16);
  if (gso_size != 0) {
    frame.offload.gso_type = Offload::kGsoTcp4;
    frame.offload.gso_size = gso_size;
  }
  return frame;
}

TestFrame unfinished_udp(std::size_t payload, std::uint16_t gso_size, const Mac& to) {
  constexpr std::uint8_t kUdp = 17;
  TestFrame frame = ipv4(kUdp, 8, payload, to);
  put16(frame.bytes, kTransport, 4000);
  put16(frame.bytes, kTransport + 2, 5001);
  put16(frame.bytes, kTransport + 4, 8 + payload);
  leave_checksum(frame, kUdp, 6);
  if (gso_size != 0) {
    frame.offload.gso_type = Offload::kGsoUdpL4;
    frame.offload.gso_size = gso_size;
  }
  return frame;
}

}  // namespace vswitch::test
