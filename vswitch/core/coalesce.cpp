#include "vswitch/core/coalesce.h"

#include <algorithm>
#include <cstring>

#include "vswitch/net/checksum.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

constexpr std::uint32_t kMaxIpBytes = 65'535;

constexpr std::size_t kIpv4Bytes = 20;
constexpr std::size_t kIpv4Tos = 1;
constexpr std::size_t kIpv4TotalLength = 2;
constexpr std::size_t kIpv4Id = 4;
constexpr std::size_t kIpv4Fragment = 6;
constexpr std::size_t kIpv4Ttl = 8;
constexpr std::size_t kIpv4Protocol = 9;
constexpr std::size_t kIpv4Checksum = 10;
constexpr std::size_t kIpv4Addresses = 12;
constexpr std::uint16_t kIpv4DontFragment = 0x4000;

constexpr std::size_t kIpv6PayloadLength = 4;
constexpr std::size_t kIpv6NextHeader = 6;
constexpr std::size_t kIpv6HopLimit = 7;
constexpr std::size_t kIpv6Addresses = 8;

constexpr std::size_t kTcpSequence = 4;
constexpr std::size_t kTcpAcknowledgment = 8;
constexpr std::size_t kTcpDataOffset = 12;
constexpr std::size_t kTcpFlags = 13;
constexpr std::size_t kTcpWindow = 14;
constexpr std::uint16_t kTcpChecksum = 16;
constexpr std::size_t kTcpUrgent = 18;  // and options
constexpr std::byte kFin{0x01};
constexpr std::byte kPsh{0x08};
constexpr std::byte kCwr{0x80};
constexpr std::byte kEndsFlow{0x01 | 0x02 | 0x04 | 0x08 | 0x20};  // FIN SYN RST PSH URG
constexpr std::byte kMayDiffer = kCwr | kFin | kPsh;

bool has(std::byte flags, std::byte wanted) noexcept { return (flags & wanted) != std::byte{0}; }
bool same_bytes(const std::byte* a, const std::byte* b, std::size_t bytes) noexcept {
  return std::memcmp(a, b, bytes) == 0;
}

/// Most of what is not TCP, at two loads; the tagged rest is found out by parsing.
bool cannot_be_tcp(const Frame& frame) noexcept {
  const std::uint16_t type = load_be16(frame.header + kEthernetHeaderBytes - 2);
  const std::byte* ip = frame.header + kEthernetHeaderBytes;
  if (type == kEtherIpv4) return load_u8(ip + kIpv4Protocol) != kProtocolTcp;
  if (type == kEtherIpv6) return load_u8(ip + kIpv6NextHeader) != kProtocolTcp;
  return type != kEtherVlan && type != kEtherQinq;
}

std::uint64_t pseudo_sum(const std::byte* ip, bool ipv4, std::uint32_t length) noexcept {
  return ipv4 ? pseudo_sum_v4(ip + kIpv4Addresses, kProtocolTcp, length)
              : pseudo_sum_v6(ip + kIpv6Addresses, kProtocolTcp, length);
}

}  // namespace

Coalescer::Coalescer() : regions_(Mapping::anonymous(kMerged * kRegionBytes)), memory_(std::make_unique<Memory>()) {}

std::size_t Coalescer::merge(std::span<const Frame*> frames, OffloadCaps caps) noexcept {
  open_count_ = used_regions_ = used_frames_ = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (cannot_be_tcp(*frames[i])) continue;
    const Segment segment = look_at(*frames[i], caps);
    if (segment.header_length != 0) offer(frames, i, segment, caps);
  }
  while (open_count_ != 0) close(frames, open_count_ - 1);
  if (used_frames_ == 0) return frames.size();
  const auto end = std::remove(frames.begin(), frames.end(), nullptr);
  return static_cast<std::size_t>(end - frames.begin());
}

/// @return header_length 0: not TCP
Coalescer::Segment Coalescer::look_at(const Frame& frame, OffloadCaps caps) noexcept {
  const auto headers = Headers::parse({frame.header, frame.header_bytes});
  Segment segment;
  if (!headers || !headers->is_tcp()) return segment;
  segment.l3 = headers->l3_offset();
  segment.l4 = headers->l4_offset();
  segment.header_length = headers->header_length();
  segment.ipv4 = headers->is_ipv4();
  segment.payload = frame.length - segment.header_length;
  const Offload& offload = frame.offload;
  const bool whole_checksum =
      !offload.needs_checksum() || (offload.csum_start == segment.l4 && offload.csum_offset == kTcpChecksum);
  segment.mergeable = (segment.ipv4 ? caps.tso4 : caps.tso6) && segment.payload != 0 && !offload.is_gso() &&
                      frame.finish == Finish::none && whole_checksum && is_plain_ip(frame, segment);
  return segment;
}

/// A whole datagram without options or extension headers, as long as its frame, and undamaged.
bool Coalescer::is_plain_ip(const Frame& frame, const Segment& segment) noexcept {
  const std::byte* ip = frame.header + segment.l3;
  const std::uint32_t bytes = frame.length - segment.l3;
  if (!segment.ipv4) {
    return segment.l4 == segment.l3 + kIpv6HeaderBytes &&
           load_be16(ip + kIpv6PayloadLength) == bytes - kIpv6HeaderBytes;
  }
  return segment.l4 == segment.l3 + kIpv4Bytes && load_be16(ip + kIpv4TotalLength) == bytes &&
         (load_be16(ip + kIpv4Fragment) & ~kIpv4DontFragment) == 0 &&
         checksum_fold(checksum_add(0, {ip, kIpv4Bytes})) == 0xffff;
}

bool Coalescer::same_flow(const Flow& flow, const Frame& frame, const Segment& segment) noexcept {
  const Frame& first = *flow.first;
  if (segment.l3 != flow.segment.l3 || segment.ipv4 != flow.segment.ipv4 || frame.vlan != first.vlan) return false;
  const std::size_t addresses = segment.l3 + (segment.ipv4 ? kIpv4Addresses : kIpv6Addresses);
  return same_bytes(frame.header + segment.l4, first.header + flow.segment.l4, 4) &&
         same_bytes(frame.header + addresses, first.header + addresses, segment.ipv4 ? 8 : 32) &&
         same_bytes(frame.header, first.header, segment.l3);
}

bool Coalescer::may_join(const Flow& flow, const Frame& frame, const Segment& segment) noexcept {
  const Segment& first = flow.segment;
  if (!segment.mergeable || segment.header_length != first.header_length || segment.payload > first.payload)
    return false;
  if (flow.bytes + segment.payload + segment.header_length - segment.l3 > kMaxIpBytes) return false;
  const std::byte* tcp = frame.header + segment.l4;
  const std::byte* with = flow.first->header + first.l4;
  if (load_be32(tcp + kTcpSequence) != load_be32(with + kTcpSequence) + flow.bytes) return false;
  if (has(tcp[kTcpFlags], kCwr) || has(tcp[kTcpFlags] ^ with[kTcpFlags], ~kMayDiffer)) return false;
  return same_bytes(tcp + kTcpAcknowledgment, with + kTcpAcknowledgment, 4) &&
         tcp[kTcpDataOffset] == with[kTcpDataOffset] && same_bytes(tcp + kTcpWindow, with + kTcpWindow, 2) &&
         same_bytes(tcp + kTcpUrgent, with + kTcpUrgent, segment.header_length - segment.l4 - kTcpUrgent) &&
         same_ip(flow, frame);
}

bool Coalescer::same_ip(const Flow& flow, const Frame& frame) noexcept {
  const std::byte* ip = frame.header + flow.segment.l3;
  const std::byte* with = flow.first->header + flow.segment.l3;
  if (!flow.segment.ipv4) return same_bytes(ip, with, kIpv6PayloadLength) && ip[kIpv6HopLimit] == with[kIpv6HopLimit];
  if (ip[kIpv4Tos] != with[kIpv4Tos] || ip[kIpv4Ttl] != with[kIpv4Ttl] ||
      !same_bytes(ip + kIpv4Fragment, with + kIpv4Fragment, 2)) {
    return false;
  }
  const auto distance = static_cast<std::uint16_t>(load_be16(ip + kIpv4Id) - load_be16(with + kIpv4Id));
  if (distance != 0) return distance == flow.frames && !flow.same_id;
  return (load_be16(ip + kIpv4Fragment) & kIpv4DontFragment) != 0 && (flow.frames == 1 || flow.same_id);
}

/// Copies the payload of a frame. @return false: its checksum is wrong
bool Coalescer::copy_verified(std::byte* to, const Frame& frame, const Segment& segment) noexcept {
  const std::size_t in_header = frame.header_bytes - std::size_t{segment.header_length};
  std::memcpy(to, frame.header + segment.header_length, in_header);
  const auto rest = frame.rest();
  // DATA_VALID is an uplink's kernel's word; a partial checksum never left this host.
  if (!frame.offload.is_plain()) {
    std::memcpy(to + in_header, rest.data(), rest.size());
    return true;
  }
  const std::span<const std::byte> head(frame.header + segment.l4, frame.header_bytes - std::size_t{segment.l4});
  std::uint64_t sum = pseudo_sum(frame.header + segment.l3, segment.ipv4, frame.length - segment.l4);
  sum = checksum_add(sum, head);
  const std::uint64_t behind = checksum_copy(0, to + in_header, rest);
  return checksum_fold(sum + (head.size() % 2 == 0 ? behind : checksum_shift(behind))) == 0xffff;
}

void Coalescer::offer(std::span<const Frame*> frames, std::size_t i, const Segment& segment,
                      OffloadCaps caps) noexcept {
  const Frame& frame = *frames[i];
  for (std::size_t which = open_count_; which-- > 0;) {
    Flow& flow = open_[which];
    if (!same_flow(flow, frame, segment)) continue;
    if (!may_join(flow, frame, segment) || !join(flow, frame, segment)) {
      close(frames, which);
      break;
    }
    frames[i] = nullptr;
    const std::byte flags = frame.header[segment.l4 + kTcpFlags];
    flow.last_flags = flags & (kPsh | kFin);
    if (segment.payload < flow.segment.payload || has(flags, kEndsFlow)) close(frames, which);
    return;
  }
  open(frames, i, segment, caps);
}

bool Coalescer::join(Flow& flow, const Frame& frame, const Segment& segment) noexcept {
  if (flow.payload == nullptr) {
    if (used_regions_ == kMerged) return false;
    std::byte* region = regions_.data() + used_regions_ * kRegionBytes + kHeaderBytes;
    if (!copy_verified(region, *flow.first, flow.segment)) return false;
    flow.payload = region;
    ++used_regions_;
  }
  if (!copy_verified(flow.payload + flow.bytes, frame, segment)) return false;
  const auto id = [&](const Frame& of) { return load_be16(of.header + segment.l3 + kIpv4Id); };
  flow.same_id = segment.ipv4 && id(frame) == id(*flow.first);
  flow.bytes += segment.payload;
  ++flow.frames;
  return true;
}

void Coalescer::open(std::span<const Frame*> frames, std::size_t i, const Segment& segment, OffloadCaps caps) noexcept {
  if (!segment.mergeable) return;
  const std::byte flags = frames[i]->header[segment.l4 + kTcpFlags];
  if (has(flags, kEndsFlow) || (has(flags, kCwr) && !caps.ecn)) return;
  if (open_count_ == kOpen) close(frames, 0);
  open_[open_count_++] = {.at = i, .first = frames[i], .segment = segment, .bytes = segment.payload, .frames = 1};
}

void Coalescer::close(std::span<const Frame*> frames, std::size_t which) noexcept {
  const Flow& flow = open_[which];
  if (flow.frames > 1) frames[flow.at] = &merged_frame(flow);
  std::copy(open_.begin() + static_cast<std::ptrdiff_t>(which) + 1,
            open_.begin() + static_cast<std::ptrdiff_t>(open_count_),
            open_.begin() + static_cast<std::ptrdiff_t>(which));
  --open_count_;
}

const Frame& Coalescer::merged_frame(const Flow& flow) noexcept {
  const Segment& segment = flow.segment;
  std::byte* header = memory_->headers[used_frames_].data();
  Frame& frame = memory_->frames[used_frames_++];
  std::memcpy(header, flow.first->header, segment.header_length);
  frame = *flow.first;
  frame.kept = nullptr;
  frame.header = header;
  frame.data = flow.payload - segment.header_length;
  frame.length = segment.header_length + flow.bytes;
  frame.header_bytes = segment.header_length;

  std::byte* ip = header + segment.l3;
  std::byte* tcp = header + segment.l4;
  const auto ip_bytes = static_cast<std::uint16_t>(frame.length - segment.l3);
  if (segment.ipv4) {
    const auto before = load_raw<std::uint16_t>(ip + kIpv4TotalLength);
    store_be16(ip + kIpv4TotalLength, ip_bytes);
    const auto after = load_raw<std::uint16_t>(ip + kIpv4TotalLength);
    store_raw(ip + kIpv4Checksum, checksum_replace(load_raw<std::uint16_t>(ip + kIpv4Checksum), before, after));
  } else {
    store_be16(ip + kIpv6PayloadLength, static_cast<std::uint16_t>(ip_bytes - kIpv6HeaderBytes));
  }
  tcp[kTcpFlags] |= flow.last_flags;
  store_raw(tcp + kTcpChecksum, checksum_fold(pseudo_sum(ip, segment.ipv4, frame.length - segment.l4)));
  const std::uint8_t ecn = has(tcp[kTcpFlags], kCwr) ? Offload::kGsoEcn : std::uint8_t{0};
  frame.offload = {.flags = Offload::kNeedsChecksum,
                   .gso_type = static_cast<std::uint8_t>((segment.ipv4 ? Offload::kGsoTcp4 : Offload::kGsoTcp6) | ecn),
                   .gso_size = static_cast<std::uint16_t>(segment.payload),
                   .csum_start = segment.l4,
                   .csum_offset = kTcpChecksum};
  return frame;
}

}  // namespace vswitch
