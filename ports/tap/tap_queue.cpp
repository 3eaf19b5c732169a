#include "ports/tap/tap_queue.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "ports/tap/vnet_header.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/core/intake.h"
#include "vswitch/core/vlan.h"
#include "vswitch/net/offload_check.h"
#include "vswitch/net/wire.h"

namespace vswitch {
namespace {

/// A read that fills this is of a frame longer than any that TAP should hand out.
constexpr std::size_t kReadBytes = kVnetHeaderBytes + kMaxFrameBytes;
constexpr std::size_t kFrameAlignment = 64;

/// One frame in one system call; small ones by a plain write(), which costs less than writev(). @return false: see
/// errno
bool write_all(int fd, std::span<const std::byte> head, std::span<const std::byte> rest) noexcept {
  ssize_t written;
  do {
    if (rest.empty()) {
      written = ::write(fd, head.data(), head.size());
    } else {
      const std::array<iovec, 2> parts{
          {{const_cast<std::byte*>(head.data()), head.size()}, {const_cast<std::byte*>(rest.data()), rest.size()}}};
      written = ::writev(fd, parts.data(), static_cast<int>(parts.size()));
    }
  } while (written < 0 && errno == EINTR);
  return written >= 0;
}

}  // namespace

bool TapQueue::lend(std::span<std::byte> raw, Frame& frame) noexcept {
  if (raw.size() < kVnetHeaderBytes + kEthernetHeaderBytes || raw.size() == kReadBytes) {
    counters().drop(Drop::malformed);
    return false;
  }
  const Offload claimed = load_raw<VnetHeader>(raw.data()).offload();
  frame.data = raw.data() + kVnetHeaderBytes;
  frame.length = static_cast<std::uint32_t>(raw.size() - kVnetHeaderBytes);
  frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(frame.length, kHeaderBytes));
  std::memcpy(frame.header, frame.data, frame.header_bytes);
  frame.vlan = 0;
  // The kernel wrote the header, but a tenant can make it write nearly anything (PACKET_VNET_HDR).
  if (!take_offload(frame, claimed, OffloadOrigin::tenant, counters())) return false;
  if (vlan_ != 0) enter_access_vlan(frame, vlan_);
  return true;
}

std::size_t TapQueue::receive(Burst& out) noexcept {
  std::size_t used = 0;
  std::size_t seen = 0;
  drained_ = gone_;
  while (!drained_ && out.room() > 0 && seen < kBurstFrames && scratch_.size() - used >= kReadBytes) {
    const ssize_t got = ::read(fd_.get(), scratch_.data() + used, kReadBytes);
    if (got < 0) {
      if (errno == EINTR) continue;
      gone_ = errno == EBADFD;
      drained_ = true;
      break;
    }
    ++seen;
    const auto bytes = static_cast<std::size_t>(got);
    Frame& frame = out.next();
    if (!lend(scratch_.subspan(used, bytes), frame)) continue;
    out.add();
    used += (bytes + kFrameAlignment - 1) & ~(kFrameAlignment - 1);
  }
  return seen;
}

bool TapQueue::write_finished(const Frame& frame, bool tagged) noexcept {
  std::byte* const to = finished_.data() + kFrameAlignment;
  copy_out(to, frame, tagged);
  store_raw(to - kVnetHeaderBytes, VnetHeader{});
  return write_all(fd_.get(), {to - kVnetHeaderBytes, kVnetHeaderBytes + copied_length(frame, tagged)}, {});
}

bool TapQueue::write(const Frame& frame) noexcept {
  const bool tagged = vlan_ == 0 && frame.vlan != 0;
  if (frame.finish != Finish::none) return write_finished(frame, tagged);
  const std::size_t tag_bytes = tagged ? kVlanTagBytes : 0;
  const Offload offload = tagged ? with_tag(frame.offload) : frame.offload;
  VnetHeader vnet{.flags = offload.flags,
                  .gso_type = offload.gso_type,
                  .gso_size = offload.gso_size,
                  .csum_start = offload.csum_start,
                  .csum_offset = offload.csum_offset};
  if (offload.is_gso()) {
    // The kernel then has all headers in one piece from the start.
    const std::span header(frame.header, frame.header_bytes);
    vnet.hdr_len = static_cast<std::uint16_t>(offload_header_length(frame.offload, header) + tag_bytes);
  }
  std::array<std::byte, kVnetHeaderBytes + kVlanTagBytes + kHeaderBytes> head;
  store_raw(head.data(), vnet);
  std::byte* to = head.data() + kVnetHeaderBytes;
  if (tagged) {
    std::memcpy(to, frame.header, kMacPairBytes);
    std::memcpy(to + kMacPairBytes, vlan_tag(frame.vlan).data(), kVlanTagBytes);
    std::memcpy(to + kMacPairBytes + kVlanTagBytes, frame.header + kMacPairBytes, frame.header_bytes - kMacPairBytes);
  } else {
    std::memcpy(to, frame.header, frame.header_bytes);
  }
  return write_all(fd_.get(), std::span(head).first(kVnetHeaderBytes + tag_bytes + frame.header_bytes), frame.rest());
}

std::size_t TapQueue::transmit(std::span<const Frame* const> frames) noexcept {
  if (gone_) {
    refusal_ = Drop::dest_detached;
    return 0;
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (write(*frames[i])) continue;
    switch (errno) {
      case EAGAIN:
      case ENOBUFS:
      case ENOMEM:
        refusal_ = Drop::dest_full;
        return i;
      case EBADFD:
        gone_ = true;
        [[fallthrough]];
      case EIO:
        refusal_ = Drop::dest_detached;
        return i;
      default:
        // The kernel dislikes this one frame. Those behind it may be from other tenants and must not share its fate.
        counters().drop(Drop::dest_error);
    }
  }
  return frames.size();
}

}  // namespace vswitch
