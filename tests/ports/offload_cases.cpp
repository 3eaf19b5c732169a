#include "tests/ports/offload_cases.h"

#include <cstdint>
#include <cstring>
#include <span>

#include "tests/ports/test_frames.h"
#include "tests/unit/offload_frames.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

constexpr std::uint16_t kTag = 0x6064;     // priority 3, VLAN 100
constexpr std::size_t kPayload = 1001;     // odd: the last byte is summed alone
constexpr std::size_t kGsoPayload = 5001;  // three whole segments and a shorter one
constexpr std::uint16_t kGsoSize = 1400;   // fits MTU 1500 with every header below
constexpr unsigned kFlags = 0x018;         // PSH ACK
constexpr unsigned kFlagsWithCwr = 0x099;  // FIN PSH ACK CWR

enum class Protocol { tcp, udp, icmp };

struct Transport {
  const char* name;
  Protocol protocol;
  bool ipv6;
};
constexpr Transport kTransports[] = {{"TCPv4", Protocol::tcp, false},   {"TCPv6", Protocol::tcp, true},
                                     {"UDPv4", Protocol::udp, false},   {"UDPv6", Protocol::udp, true},
                                     {"ICMPv4", Protocol::icmp, false}, {"ICMPv6", Protocol::icmp, true}};

/// Makes an echo request of a UDP datagram: both headers are 8 bytes long.
void make_echo(BuiltFrame& frame, bool ipv6) {
  constexpr std::size_t kUdp = 17;
  constexpr std::size_t kIcmpv6 = 58;
  constexpr std::uint16_t kChecksum = 2;
  Bytes& bytes = frame.bytes;
  const std::size_t udp_pseudo = get16(bytes, frame.l4 + 6);
  set16(bytes, frame.l4 + 4, 0x1234);
  set16(bytes, frame.l4 + 6, 1);
  if (ipv6) {
    bytes[frame.l3 + 6] = static_cast<std::byte>(kIcmpv6);
    set16(bytes, frame.l4, 128 << 8);
    set16(bytes, frame.l4 + kChecksum, reference_sum({}, udp_pseudo + kIcmpv6 - kUdp));
  } else {
    bytes[frame.l3 + 9] = std::byte{1};
    set16(bytes, frame.l3 + 10, 0);
    set16(bytes, frame.l3 + 10, 0xffff ^ reference_sum(std::span(bytes).subspan(frame.l3, frame.l4 - frame.l3)));
    set16(bytes, frame.l4, 8 << 8);
    set16(bytes, frame.l4 + kChecksum, 0);  // has no pseudo-header
  }
  frame.offload.csum_offset = kChecksum;
}

/// @param gso_size 0: not GSO
TestFrame unfinished(const Transport& transport, bool tagged, std::uint16_t gso_size, unsigned tcp_flags,
                     unsigned seed) {
  BuiltFrame built = build({.ipv6 = transport.ipv6,
                            .tcp = transport.protocol == Protocol::tcp,
                            .tags = tagged ? std::vector<std::uint16_t>{kTag} : std::vector<std::uint16_t>{},
                            .flags = tcp_flags,
                            .payload = gso_size != 0 ? kGsoPayload : kPayload,
                            .gso_size = gso_size,
                            .seed = seed});
  if (transport.protocol == Protocol::icmp) make_echo(built, transport.ipv6);
  TestFrame frame{std::move(built.bytes), 0, built.offload};
  std::memcpy(frame.bytes.data(), kTo.bytes.data(), kTo.bytes.size());
  std::memcpy(frame.bytes.data() + kTo.bytes.size(), kFrom.bytes.data(), kFrom.bytes.size());
  return frame;
}

class Cases {
 public:
  explicit Cases(KernelPath& kernel) : kernel_(kernel) {}

  void add(const Transport& transport, bool tagged) {
    const std::string suffix = tagged ? " tagged" : "";
    const auto name = [&](const char* state) { return std::string(transport.name) + " " + state + suffix; };
    const auto next = [&](std::uint16_t gso_size, unsigned flags) {
      return unfinished(transport, tagged, gso_size, flags, static_cast<unsigned>(cases_.size()));
    };
    if (transport.protocol != Protocol::icmp) add(name("gso"), next(kGsoSize, kFlags));
    if (transport.protocol == Protocol::tcp) add(name("gso with CWR"), next(kGsoSize, kFlagsWithCwr));
    const TestFrame partial = next(0, kFlags);
    add(name("partial"), partial);
    const std::size_t field = std::size_t{partial.offload.csum_start} + partial.offload.csum_offset;

    TestFrame complete = next(0, kFlags);
    complete = {finish(complete).front(), 0, {}};
    add(name("complete"), complete);
    complete.offload.flags = Offload::kDataValid;
    add(name("verified"), complete);
    complete.offload = {};
    set16(complete.bytes, field, get16(complete.bytes, field) ^ 0x0400);
    add(name("wrong"), complete);
    if (transport.protocol == Protocol::udp && !transport.ipv6) {
      set16(complete.bytes, field, 0);
      add(name("without checksum"), complete);
    }
  }
  std::vector<OffloadCase> take() { return std::move(cases_); }

 private:
  std::vector<KernelPath::Bytes> finish(const TestFrame& frame) {
    kernel_.put(frame.bytes, frame.offload);
    return kernel_.take();
  }

  void add(std::string name, TestFrame frame) {
    OffloadCase added{std::move(name), std::move(frame), {}};
    added.finished = finish(added.frame);
    const bool gso = added.frame.offload.is_gso();
    const std::size_t frames = gso ? (kGsoPayload + kGsoSize - 1) / kGsoSize : 1;
    if (added.finished.size() != frames) throw Error(0, "let the kernel finish", added.name);
    const bool was_finished = !gso && !added.frame.offload.needs_checksum();
    if (was_finished != (added.finished.front() == added.frame.bytes)) throw Error(0, "trust the kernel", added.name);
    cases_.push_back(std::move(added));
  }

  KernelPath& kernel_;
  std::vector<OffloadCase> cases_;
};

}  // namespace

std::vector<OffloadCase> offload_cases(KernelPath& kernel) {
  Cases cases(kernel);
  for (const Transport& transport : kTransports) {
    for (const bool tagged : {false, true}) cases.add(transport, tagged);
  }
  return cases.take();
}

}  // namespace vswitch::test
