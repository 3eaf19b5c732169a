#include "ports/af_packet/af_packet_queue.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vswitch/core/intake.h"
#include "vswitch/core/port_context.h"

namespace vswitch::af_packet {
namespace {

constexpr std::size_t kAddressBytes = 12;  // destination and source: a tag comes behind them
constexpr std::size_t kCacheLine = 64;

std::array<std::byte, kVlanTagBytes> tag_bytes(std::uint16_t protocol, std::uint16_t control) noexcept {
  const std::array<std::uint16_t, 2> words{htons(protocol), htons(control)};
  std::array<std::byte, kVlanTagBytes> bytes;
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

/// The kernel sets an error for the socket when the netdev goes down, and reports it to whatever call comes next, even
/// after the netdev is up again.
ssize_t receive_message(int socket, msghdr& message) noexcept {
  const ssize_t length = ::recvmsg(socket, &message, MSG_DONTWAIT);
  return length < 0 && errno == ENETDOWN ? ::recvmsg(socket, &message, MSG_DONTWAIT) : length;
}

}  // namespace

AfPacketQueue::AfPacketQueue(Fd socket, std::uint32_t mtu, std::span<std::byte> scratch, PortCounters& counters)
    : Queue(counters), socket_(std::move(socket)), ring_(socket_.get(), mtu), scratch_(scratch) {
  for (std::size_t i = 0; i < kBurstFrames; ++i) {
    pieces_[i][0] = {&headers_[i], sizeof(VnetHeader)};
    messages_[i].msg_hdr.msg_iov = pieces_[i].data();
  }
}

std::size_t AfPacketQueue::receive(Burst& out) noexcept {
  std::size_t taken = 0;
  scratch_used_ = 0;
  while (out.room() > 0 && taken < kBurstFrames) {
    tpacket2_hdr* slot = ring_.front();
    if (slot == nullptr || out_of_step_) break;
    const bool is_long = (slot->tp_status & TP_STATUS_COPY) != 0;
    if (is_long && scratch_.size() - scratch_used_ < kMaxFrameBytes + kCacheLine) break;
    Arrived arrived;
    const bool whole = fetch(*slot, arrived);
    ring_.take();
    ++taken;
    if (!whole) {
      ring_.count_lost();
    } else {
      lend(*slot, arrived, out);
    }
  }
  return taken;
}

bool AfPacketQueue::fetch(tpacket2_hdr& slot, Arrived& arrived) noexcept {
  if ((slot.tp_status & TP_STATUS_COPY) != 0) return fetch_long(slot.tp_len, arrived);
  if (slot.tp_snaplen != slot.tp_len) return false;  // no room in the socket's queue for a long frame
  arrived.data = reinterpret_cast<std::byte*>(&slot) + slot.tp_mac;
  arrived.length = slot.tp_len;
  std::memcpy(&arrived.header, arrived.data - sizeof(VnetHeader), sizeof(VnetHeader));
  return true;
}

bool AfPacketQueue::fetch_long(std::uint32_t length, Arrived& arrived) noexcept {
  arrived.data = scratch_.data() + scratch_used_ + kVlanTagBytes;
  const std::size_t room = scratch_.size() - scratch_used_ - kVlanTagBytes;
  std::array<iovec, 2> parts{{{&arrived.header, sizeof(VnetHeader)}, {arrived.data, std::min(room, kMaxFrameBytes)}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  const ssize_t got = receive_message(socket_.get(), message);
  const bool cut = (message.msg_flags & MSG_TRUNC) != 0;
  out_of_step_ = got < 0 || (!cut && static_cast<std::size_t>(got) != sizeof(VnetHeader) + length);
  if (cut || out_of_step_) return false;
  arrived.length = length;
  scratch_used_ += (kVlanTagBytes + arrived.length + kCacheLine - 1) & ~(kCacheLine - 1);
  return true;
}

void AfPacketQueue::lend(const tpacket2_hdr& slot, Arrived& arrived, Burst& out) noexcept {
  Frame& frame = out.next();
  frame.vlan = 0;
  Offload claimed = to_offload(arrived.header);
  if ((slot.tp_status & TP_STATUS_VLAN_VALID) != 0) {
    const bool known_type = (slot.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    if (!known_type || slot.tp_vlan_tpid == ETH_P_8021Q) {
      frame.vlan = slot.tp_vlan_tci;
    } else {
      std::memmove(arrived.data - kVlanTagBytes, arrived.data, kAddressBytes);
      arrived.data -= kVlanTagBytes;
      arrived.length += static_cast<std::uint32_t>(kVlanTagBytes);
      const auto tag = tag_bytes(slot.tp_vlan_tpid, slot.tp_vlan_tci);
      std::memcpy(arrived.data + kAddressBytes, tag.data(), tag.size());
      if (claimed.needs_checksum()) claimed.csum_start += static_cast<std::uint16_t>(kVlanTagBytes);
    }
  }
  frame.data = arrived.data;
  frame.length = arrived.length;
  frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(arrived.length, kHeaderBytes));
  std::memcpy(frame.header, frame.data, frame.header_bytes);
  if (take_offload(frame, claimed, OffloadOrigin::kernel, counters())) out.add();
}

void AfPacketQueue::release(Burst& /*lent*/) noexcept {
  ring_.give_back();
  if (std::exchange(out_of_step_, false)) ring_.rebuild();
}

void AfPacketQueue::reclaim() noexcept {
  if (++idle_turns_ % kTurnsPerCheck == 0) check_ring();
}

bool AfPacketQueue::arm() noexcept {
  check_ring();
  // An arrival after the ring was seen empty makes an edge on the socket: nothing is left to switch on.
  return ring_.front() == nullptr;
}

void AfPacketQueue::check_ring() noexcept {
  if (ring_.is_stuck()) ring_.rebuild();
}

std::size_t AfPacketQueue::transmit(std::span<const Frame* const> frames) noexcept {
  std::size_t taken = 0;
  while (taken < frames.size()) {
    const std::size_t count = std::min(frames.size() - taken, kBurstFrames);
    for (std::size_t i = 0; i < count; ++i) compose(*frames[taken + i], i);
    const std::size_t sent = send(count);
    taken += sent;
    if (sent < count) break;
  }
  return taken;
}

void AfPacketQueue::compose(const Frame& frame, std::size_t i) noexcept {
  VnetHeader& header = headers_[i];
  const Offload& offload = frame.offload;
  const auto shift = static_cast<std::uint16_t>(frame.vlan != 0 ? kVlanTagBytes : 0);
  header = {};
  header.flags = offload.flags & Offload::kNeedsChecksum;
  if (offload.needs_checksum()) {
    header.csum_start = static_cast<std::uint16_t>(offload.csum_start + shift);
    header.csum_offset = offload.csum_offset;
  }
  if (offload.is_gso()) {
    header.gso_type = offload.gso_type;
    header.gso_size = offload.gso_size;
    header.hdr_len =
        static_cast<std::uint16_t>(offload_header_length(offload, {frame.header, frame.header_bytes}) + shift);
  }

  auto& pieces = pieces_[i];
  std::size_t used = 1;
  std::size_t done = 0;
  if (frame.vlan != 0) {
    tags_[i] = tag_bytes(ETH_P_8021Q, frame.vlan);
    pieces[used++] = {frame.header, kAddressBytes};
    pieces[used++] = {tags_[i].data(), kVlanTagBytes};
    done = kAddressBytes;
  }
  pieces[used++] = {frame.header + done, frame.header_bytes - done};
  const std::span<const std::byte> rest = frame.rest();
  if (!rest.empty()) pieces[used++] = {const_cast<std::byte*>(rest.data()), rest.size()};
  messages_[i].msg_hdr.msg_iovlen = used;
}

std::size_t AfPacketQueue::send(std::size_t count) noexcept {
  std::size_t done = 0;
  bool retried = false;
  while (done < count) {
    const int sent =
        ::sendmmsg(socket_.get(), messages_.data() + done, static_cast<unsigned>(count - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
      continue;
    }
    switch (judge(errno, retried)) {
      case Failure::retry:
        retried = true;
        break;
      case Failure::skip:
        ++done;
        break;
      case Failure::stop:
        return done;
    }
  }
  return done;
}

AfPacketQueue::Failure AfPacketQueue::judge(int error, bool retried) noexcept {
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
      refusal_ = Drop::dest_full;
      return Failure::stop;
    case ENETDOWN:  // once it may be old news, see receive_message()
      refusal_ = Drop::dest_detached;
      return retried ? Failure::stop : Failure::retry;
    case ENXIO:
    case ENODEV:
      refusal_ = Drop::dest_detached;
      return Failure::stop;
    case EMSGSIZE:
      counters().drop(Drop::too_long);
      return Failure::skip;
    default:  // this one frame is at fault: it must not cost the frames behind it, which may be other tenants'
      counters().drop(Drop::dest_error);
      return Failure::skip;
  }
}

}  // namespace vswitch::af_packet
