#include "ports/ring/ring_queue.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "vswitch/base/error.h"
#include "vswitch/net/headers.h"

namespace vswitch {
namespace {

std::uint64_t mix(std::uint64_t hash, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t step = std::min(bytes.size(), sizeof(word));
    std::memcpy(&word, bytes.data(), step);
    hash = (hash ^ word) * 0x9e37'79b9'7f4a'7c15ULL;
    hash ^= hash >> 32;
    bytes = bytes.subspan(step);
  }
  return hash;
}

/// The same for all frames of a flow: IP addresses, and ports where every frame of the flow shows them; else MACs and
/// type.
std::uint32_t flow_hash(const Frame& frame) noexcept {
  const std::span<const std::byte> bytes(frame.header, frame.header_bytes);
  const auto headers = Headers::parse(bytes);
  if (!headers || !headers->is_ip()) return static_cast<std::uint32_t>(mix(0, bytes.first(kEthernetHeaderBytes)));
  const std::size_t l3 = headers->l3_offset();
  std::uint64_t hash = mix(0, headers->is_ipv4() ? bytes.subspan(l3 + 12, 8) : bytes.subspan(l3 + 8, 32));
  if ((headers->is_tcp() || headers->is_udp()) && !headers->is_fragment())
    hash = mix(hash, bytes.subspan(headers->l4_offset(), 4));
  return static_cast<std::uint32_t>(hash);
}

}  // namespace

RingQueue::RingQueue(std::size_t worker, std::uint16_t vlan, PortCounters& counters)
    : Queue(counters), worker_(worker), vlan_(vlan), doorbell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!doorbell_.valid())
    throw_errno("create", "a ring port's eventfd", "raise the limit of open files (LimitNOFILE=)");
}

std::size_t RingQueue::receive(Burst& out) noexcept {
  Attachment* attachment = attachment_.load();
  if (attachment == nullptr) return 0;
  WorkerRings& rings = attachment->worker(worker_);
  polled_ = &rings;
  const std::size_t count = rings.tx.size();
  std::size_t received = 0;
  for (std::size_t i = 0; i < count && out.room() > 0; ++i) {
    received += rings.tx[(turn_ + i) % count].receive(out, vlan_, counters());
  }
  if (count > 1) turn_ = (turn_ + 1) % count;
  return received;
}

void RingQueue::release(Burst& /*lent*/) noexcept {
  for (TxRing& ring : polled_->tx) ring.release();
}

std::size_t RingQueue::transmit(std::span<const Frame* const> frames) noexcept {
  Attachment* attachment = attachment_.load();
  if (attachment == nullptr) {
    refusal_ = Drop::dest_detached;
    return 0;
  }
  refusal_ = Drop::dest_full;
  WorkerRings& rings = attachment->worker(worker_);
  if (rings.rx.size() > 1) return transmit_spread(rings, frames);
  const std::size_t taken = rings.rx.front().put(frames, vlan_ == 0);
  if (taken != 0 && rings.rx.front().publish()) counters().wakeups.add(1);
  return taken;
}

/// Several queue pairs: a flow always goes to the same one.
std::size_t RingQueue::transmit_spread(WorkerRings& rings, std::span<const Frame* const> frames) noexcept {
  std::size_t taken = 0;
  while (taken < frames.size()) {
    RxRing& ring = rings.rx[flow_hash(*frames[taken]) % rings.rx.size()];
    if (ring.put(frames.subspan(taken, 1), vlan_ == 0) == 0) break;
    ++taken;
  }
  for (RxRing& ring : rings.rx) {
    if (ring.publish()) counters().wakeups.add(1);
  }
  return taken;
}

bool RingQueue::arm() noexcept {
  Attachment* attachment = attachment_.load();
  if (attachment == nullptr) return true;
  WorkerRings& rings = attachment->worker(worker_);
  for (TxRing& ring : rings.tx) ring.arm();
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the tenant releases head, then looks at need_wake
  for (TxRing& ring : rings.tx) {
    // What is kept comes back without a signal, and the tenant may wait for the room.
    if (ring.has_work() || !ring.settle()) return false;
  }
  return true;
}

}  // namespace vswitch
