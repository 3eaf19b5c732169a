#include "ports/ring/rings.h"

#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "vswitch/base/short_copy.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/core/intake.h"
#include "vswitch/core/vlan.h"

namespace vswitch {
namespace {

constexpr std::size_t kLine = VSWITCH_RING_LINE;
static_assert(kLine == kCopyLine && kLine == ReceiveMemory::kLine);
constexpr std::size_t kMaxRest = VSWITCH_RING_MAX_FRAME - kEthernetHeaderBytes;
static_assert(kHeaderBytes == 2 * kLine && VSWITCH_RING_GUARD >= kHeaderBytes,
              "two lines are copied, whatever the length");
static_assert(VSWITCH_RING_HEADER_BYTES == kHeaderBytes && VSWITCH_RING_MAX_SEGMENTS == kMaxSegments,
              "what tenants are told about GSO frames");

std::uint32_t load_acquire(std::uint32_t& shared) noexcept {
  return std::atomic_ref<std::uint32_t>(shared).load(std::memory_order_acquire);
}
void store_release(std::uint32_t& shared, std::uint32_t value) noexcept {
  std::atomic_ref<std::uint32_t>(shared).store(value, std::memory_order_release);
}
/// One load that the compiler may not repeat: the tenant could change the word in between.
std::uint64_t load_once(const std::byte* shared) noexcept {
  auto* word = reinterpret_cast<std::uint64_t*>(const_cast<std::byte*>(shared));
  return std::atomic_ref<std::uint64_t>(*word).load(std::memory_order_relaxed);
}

constexpr std::uint32_t line_up(std::uint32_t bytes) noexcept {
  return (bytes + static_cast<std::uint32_t>(kLine) - 1) & ~(static_cast<std::uint32_t>(kLine) - 1);
}

/// copy_out() for what most frames are: untagged, finished, and as they were received, so that the header copy has all
/// of their first kHeaderBytes. (Frames that core derived from others are never finished before they are here.)
inline void copy_frame(std::byte* to, const Frame& frame) noexcept {
  if (frame.length <= kLine) {
    copy_up_to_line(to, frame.header, frame.length);
    return;
  }
  copy_line(to, frame.header);
  if (frame.length <= kHeaderBytes) {
    copy_up_to_line(to + kLine, frame.header + kLine, frame.header_bytes - kLine);
  } else {
    copy_line(to + kLine, frame.header + kLine);
  }
  if (frame.length > frame.header_bytes) {
    std::memcpy(to + frame.header_bytes, frame.data + frame.header_bytes, frame.length - frame.header_bytes);
  }
}

/// Frames that may be kept before the ring looks whether the tenant has read some.
constexpr std::uint32_t kMostKept = 64;

/// Segments of one GSO frame lie behind each other, but each is a copy of its own, too short for the processor to see
/// far enough ahead by itself.
constexpr std::size_t kAhead = 2;
constexpr std::uint32_t kMaxPrefetched = 2048;
inline void prefetch_rest(const Frame& frame) noexcept {
  if (frame.length > kMaxPrefetched) return;  // long enough for the processor
  for (std::size_t at = frame.header_bytes; at < frame.length; at += kLine) __builtin_prefetch(frame.data + at);
}

}  // namespace

TxRing::TxRing(std::byte* block, vswitch_consumer_lines& own, const vswitch_geometry& geometry, bool lets_keep)
    : head_(&reinterpret_cast<vswitch_producer_line*>(block)->head),
      descriptors_(block + vswitch_descriptors_offset()),
      arena_(block + vswitch_arena_offset(&geometry)),
      own_(&own),
      mask_(geometry.ring_frames - 1),
      arena_bytes_(geometry.arena_bytes),
      kept_(lets_keep ? std::make_unique<Kept[]>(geometry.ring_frames) : nullptr) {}

std::size_t TxRing::receive(Burst& out, std::uint16_t vlan, PortCounters& counters) noexcept {
  if (tail_ != next_) [[unlikely]]
    settle();
  const std::uint32_t available = load_acquire(*head_) - next_;
  if (available == 0) return 0;
  if (available > mask_ + 1 - (next_ - tail_)) [[unlikely]] {  // also a head that went back
    counters.drop(Drop::ring_corrupt);
    lent_ = tail_ == next_ ? available : 0;  // else when nothing is kept any more: a slot must not be lent twice
    return 1;
  }
  // Half of the ring is always there for frames that are not kept, however slow the device.
  Kept* const kept = next_ - tail_ <= mask_ / 2 ? kept_.get() : nullptr;
  const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(available, out.room()));
  const std::byte* const arena = arena_;  // locals: the stores below could alias members, as far as the compiler knows
  const std::uint32_t arena_bytes = arena_bytes_;
  const std::uint32_t mask = mask_;
  const std::uint32_t first = next_;
  lent_ = count;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::byte* descriptor = descriptors_ + std::size_t{(first + i) & mask} * sizeof(vswitch_descriptor);
    const std::uint64_t place = load_once(descriptor);
    const std::uint64_t meta = load_once(descriptor + sizeof(place));
    const auto offset = static_cast<std::uint32_t>(place);
    const auto length = static_cast<std::uint32_t>(place >> 32);
    if (offset > arena_bytes || length > arena_bytes - offset || length - kEthernetHeaderBytes > kMaxRest)
        [[unlikely]] {
      counters.drop(length < kEthernetHeaderBytes ? Drop::malformed : Drop::bad_descriptor);
      continue;
    }
    Frame& frame = out.next();
    frame.data = arena + offset;
    std::byte* const header = frame.header;
    copy_line(header, arena + offset);  // may read past the frame: own tenant's arena, or its guard
    if (length > kLine) copy_line(header + kLine, arena + offset + kLine);
    frame.length = length;
    frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(length, kHeaderBytes));
    frame.vlan = 0;
    frame.offload = {};
    if (kept != nullptr) frame.kept = &kept[(first + i) & mask];
    if ((meta | vlan) == 0 || admit(frame, meta, vlan, counters)) [[likely]]
      out.add();
  }
  return count;
}

/// What a frame with offload metadata, or from an access port, goes through. @return false: refused
bool TxRing::admit(Frame& frame, std::uint64_t meta, std::uint16_t vlan, PortCounters& counters) noexcept {
  if (meta != 0 && !take_offload(frame, std::bit_cast<Offload>(meta), OffloadOrigin::tenant, counters)) return false;
  if (vlan != 0) enter_access_vlan(frame, vlan);
  return true;
}

void TxRing::release() noexcept {
  if (lent_ == 0) return;
  next_ += lent_;
  lent_ = 0;
  settle();
  if (armed_) {
    armed_ = false;
    std::atomic_ref(own_->need_wake).store(0, std::memory_order_relaxed);
  }
}

bool TxRing::settle() noexcept {
  std::uint32_t tail = next_;
  if (kept_ && next_ - tail_ <= mask_ + 1) {  // else a corrupt head was skipped, with nothing kept
    tail = tail_;
    while (tail != next_ && !kept_[tail & mask_].load(std::memory_order_acquire)) ++tail;
  }
  if (tail != tail_) {
    tail_ = tail;
    store_release(own_->tail, tail);
  }
  return tail == next_;
}

void TxRing::arm() noexcept {
  armed_ = true;
  armed_serial_ = armed_serial_ + 1 == 0 ? 1 : armed_serial_ + 1;
  std::atomic_ref(own_->need_wake).store(armed_serial_, std::memory_order_relaxed);
}

bool TxRing::has_work() const noexcept { return load_acquire(*head_) != next_; }

RxRing::RxRing(std::byte* block, vswitch_consumer_lines& peer, const vswitch_geometry& geometry, int wake_fd)
    : line_(reinterpret_cast<vswitch_producer_line*>(block)),
      descriptors_(block + vswitch_descriptors_offset()),
      arena_(block + vswitch_arena_offset(&geometry)),
      peer_(&peer),
      mask_(geometry.ring_frames - 1),
      arena_mask_(geometry.arena_bytes - 1),
      direct_bytes_(geometry.direct_bytes),
      wake_fd_(wake_fd),
      ends_(std::make_unique<std::uint32_t[]>(geometry.ring_frames)),
      kept_(direct_bytes_ != 0 ? std::make_unique<Kept[]>(direct_bytes_ / kLine) : nullptr) {}

/// Where a frame lies the descriptor tells: only we can write it.
void RxRing::give_back(std::uint32_t tail) noexcept {
  const std::uint32_t arena_bytes = arena_mask_ + 1;
  for (std::uint32_t at = tail_; at != tail; ++at) {
    std::uint32_t offset;
    std::memcpy(&offset, descriptors_ + std::size_t{at & mask_} * sizeof(vswitch_descriptor), sizeof(offset));
    if (offset < arena_bytes) continue;
    kept_[(offset - arena_bytes) / kLine].store(false, std::memory_order_release);
    --kept_count_;
  }
}

void RxRing::reload_tail() noexcept {
  const std::uint32_t tail = load_acquire(peer_->tail);
  if (tail == tail_ || tail - tail_ > head_ - tail_) return;  // nothing new, or a tail we never filled: not believed
  if (kept_count_ != 0) give_back(tail);
  tail_ = tail;
  arena_tail_ = ends_[(tail - 1) & mask_];
}

std::size_t RxRing::put(std::span<const Frame* const> frames, bool insert_tags) noexcept {
  if (room() < frames.size() || kept_count_ > kMostKept) reload_tail();
  const std::size_t wanted = std::min<std::size_t>(frames.size(), room());
  const std::uint32_t arena_bytes = arena_mask_ + 1;
  std::uint32_t head = head_;  // locals: stores into the ring could alias members, as far as the compiler knows
  std::uint32_t position = arena_head_;
  bool reloaded = false;
  std::size_t done = 0;
  while (done < wanted) {
    const Frame& frame = *frames[done];
    const bool tagged = insert_tags && frame.vlan != 0;
    if (kept_ && !tagged && lies_direct(frame)) {
      frame.kept->store(true, std::memory_order_relaxed);
      ++kept_count_;
      describe(head, static_cast<std::uint32_t>(frame.data - arena_), frame.length, frame.left_to_do());
      ends_[head & mask_] = position;
      ++head;
      ++done;
      continue;
    }
    const std::uint32_t length = copied_length(frame, tagged);
    const std::uint32_t bytes = line_up(length);
    std::uint32_t offset = position & arena_mask_;
    if (offset + bytes > arena_bytes) {
      position += arena_bytes - offset;
      offset = 0;
    }
    if (position + bytes - arena_tail_ > arena_bytes) [[unlikely]] {
      if (reloaded) break;
      reload_tail();
      reloaded = true;
      continue;
    }
    if (tagged || !frame.offload.is_finished()) [[unlikely]] {
      if (done + kAhead < wanted) prefetch_rest(*frames[done + kAhead]);
      copy_out(arena_ + offset, frame, tagged);
    } else {
      copy_frame(arena_ + offset, frame);
    }
    position += bytes;
    const Offload left = frame.left_to_do();
    describe(head, offset, length, tagged ? with_tag(left) : left);
    ends_[head & mask_] = position;
    ++head;
    ++done;
  }
  head_ = head;
  arena_head_ = position;
  return done;
}

bool RxRing::publish() noexcept {
  store_release(line_->head, head_);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the tenant arms, then looks at head: one of us sees the other
  const std::uint32_t wanted = std::atomic_ref(peer_->need_wake).load(std::memory_order_relaxed);
  if (wanted == 0 || wanted == answered_) [[likely]]
    return false;
  answered_ = wanted;
  const char wake = 0;
  ::send(wake_fd_, &wake, sizeof(wake), MSG_DONTWAIT | MSG_NOSIGNAL);  // full: then the tenant has not looked yet
  return true;
}

}  // namespace vswitch
