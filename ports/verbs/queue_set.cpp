#include "ports/verbs/queue_set.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "vswitch/base/error.h"
#include "vswitch/base/short_copy.h"
#include "vswitch/core/intake.h"
#include "vswitch/core/vlan.h"

namespace vswitch::verbs {
namespace {

void ring(int bell) noexcept {
  const std::uint64_t one = 1;
  static_cast<void>(::write(bell, &one, sizeof(one)));
}

/// Waits for what takes a device and a worker microseconds. @return false: not even in 200 ms
template <class Done>
bool wait_until(const Done& done) noexcept {
  constexpr std::chrono::microseconds kNap{50};
  constexpr int kNaps = 4000;
  for (int i = 0; i < kNaps; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(kNap);
  }
  return done();
}

}  // namespace

std::uint32_t QueueSet::most_pairs(const Device& device) {
  constexpr std::uint32_t kLeast = 2;  // the shared one, and the one that replaces it
  const std::uint32_t entries = device.capabilities().max_completions;
  if (entries >= kLeast * ReceivePair::kFrames) return std::min(kMostPairs, entries / ReceivePair::kFrames);
  throw Error(0, "use", device.name(),
              "its completion queues have " + std::to_string(entries) + " entries, less than the " +
                  std::to_string(kLeast * ReceivePair::kFrames) + " that are needed; use \"driver\": \"af_packet\"");
}

QueueSet::QueueSet(const Device& device, const DirectMemory& direct, std::uint32_t stride, Quiescence& quiescence,
                   Bells bells)
    : device_(device),
      direct_(direct),
      stride_(stride),
      quiescence_(quiescence),
      bells_(bells),
      most_pairs_(most_pairs(device)),
      completions_(device, most_pairs_ * ReceivePair::kFrames, device.capabilities().vlan_strip),
      sender_(std::make_unique<SendPair>(device)),
      published_sender_(sender_.get()) {
  owned_.push_back(make_pair(true));
  publish(owned_.front().get());
}

// First all completions, then all frames: where a frame lies is known some time before it is looked at, and the first
// of its bytes come from the cache that the device writes into meanwhile.
std::size_t QueueSet::receive(Burst& out, PortCounters& counters) noexcept {
  arrived_count_ = 0;
  if (published_sender_.load()->keeps()) reclaim();  // tenants wait for the room, however busy the wire is
  const std::size_t polled = poll(out.room());
  for (const Arrived& arrived : std::span(arrived_.data(), arrived_count_)) lend(arrived, out, counters);
  return polled;
}

std::size_t QueueSet::poll(std::size_t most) noexcept {
  if (most == 0) return 0;
  std::size_t polled = 0;
  if (std::exchange(has_kept_, false)) {
    note(kept_);
    if (++polled == most) return polled;
  }
  const std::size_t fresh =
      completions_.poll(most - polled, [this](const Completion& completion) noexcept { note(completion); });
  came_ = came_ || fresh != 0;
  return polled + fresh;
}

[[gnu::always_inline]] inline void QueueSet::note(const Completion& completion) noexcept {
  const std::uint32_t tag = ReceivePair::tag_of(completion.wr_id);
  ReceivePair* const pair = pairs_[tag % kPlaces].load(std::memory_order_seq_cst);
  if (pair == nullptr || pair->tag() != tag) return;  // it is gone, and its memory soon
  if (completion.status != IBV_WC_SUCCESS) [[unlikely]] {
    note_failure(*pair, completion.status);
    return;
  }
  const std::uint32_t buffer = ReceivePair::buffer_of(completion.wr_id);
  const ReceivePair::Taken taken = pair->taken(buffer);
  __builtin_prefetch(taken.bytes);
  if (completion.length > kCopyLine) __builtin_prefetch(taken.bytes + kCopyLine);
  arrived_[arrived_count_] = {taken.bytes, taken.kept, completion.length, completion.flags, completion.tci};
  arrived_at_[arrived_count_] = pair;
  arrived_in_[arrived_count_++] = buffer;
}

void QueueSet::note_failure(ReceivePair& pair, ibv_wc_status status) noexcept {
  pair.forget_one();
  if (status != IBV_WC_WR_FLUSH_ERR) device_counters_.receive_errors.add(1);
  if (!pair.closed()) mark_broken(pair.tag() % kPlaces);
}

inline void QueueSet::lend(const Arrived& arrived, Burst& out, PortCounters& counters) noexcept {
  if (arrived.length < kEthernetHeaderBytes) [[unlikely]] {
    counters.drop(Drop::malformed);
    return;
  }
  const std::byte* const bytes = arrived.bytes;
  Frame& frame = out.next();
  frame.kept = arrived.kept;
  if (!completions_.tells_vlan() && bytes[kMacPairBytes] == std::byte{0x81} &&
      bytes[kMacPairBytes + 1] == std::byte{0} && arrived.length >= kEthernetHeaderBytes + kVlanTagBytes) {
    take_tag(frame, arrived);
  } else {
    frame.data = bytes;
    frame.length = arrived.length;
    frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(arrived.length, kHeaderBytes));
    frame.vlan = arrived.tci;
    copy_line(frame.header, bytes);  // a buffer has room for kHeaderBytes, whatever the frame's length
    if (arrived.length > kCopyLine) copy_line(frame.header + kCopyLine, bytes + kCopyLine);
  }
  const std::uint8_t data_valid = (arrived.flags & IBV_WC_IP_CSUM_OK) != 0 ? Offload::kDataValid : 0;
  if (take_offload(frame, {.flags = data_valid}, OffloadOrigin::kernel, counters)) out.add();
}

// The device left the tag in: the header copy is made around it.
void QueueSet::take_tag(Frame& frame, const Arrived& arrived) noexcept {
  const std::byte* const bytes = arrived.bytes;
  frame.data = bytes + kVlanTagBytes;
  frame.length = arrived.length - static_cast<std::uint32_t>(kVlanTagBytes);
  frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(frame.length, kHeaderBytes));
  frame.vlan = static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[kEthernetHeaderBytes]) << 8 |
                                          std::to_integer<unsigned>(bytes[kEthernetHeaderBytes + 1]));
  std::memcpy(frame.header, bytes, kMacPairBytes);
  std::memcpy(frame.header + kMacPairBytes, frame.data + kMacPairBytes, frame.header_bytes - kMacPairBytes);
  device_counters_.stripped_tags.add(1);
}

// Frames of one pair come mostly together: one chain each.
void QueueSet::release() noexcept {
  for (std::size_t i = 0; i < arrived_count_;) {
    ReceivePair* const pair = arrived_at_[i];
    const std::size_t first = i;
    while (i < arrived_count_ && arrived_at_[i] == pair) ++i;
    pair->give_back({arrived_in_.data() + first, i - first}, chain_);
  }
  arrived_count_ = 0;
}

std::size_t QueueSet::transmit(std::span<const Frame* const> frames, PortCounters& counters) noexcept {
  SendPair& sender = *published_sender_.load();
  const std::size_t taken = sender.transmit(frames, direct_.regions(), counters);
  if (sender.dead()) mark_broken(kSender);
  return taken;
}

void QueueSet::reclaim() noexcept {
  if (!published_sender_.load()->reclaim()) mark_broken(kSender);
}

bool QueueSet::arm() noexcept {
  if (std::exchange(armed_, false) && !completions_.drain_events() && came_) device_counters_.lost_events.add(1);
  // What is kept has to go back to tenants when the device is done with it, of which no event tells.
  if (published_sender_.load()->keeps() || has_kept_ || !completions_.request_event()) return false;
  came_ = false;
  // A completion that came before the request makes no event (ibv_req_notify_cq(3)): look once more.
  armed_ = true;
  has_kept_ = completions_.poll(1, [this](const Completion& completion) noexcept { kept_ = completion; }) != 0;
  return !has_kept_;
}

void QueueSet::mark_broken(std::uint32_t index) noexcept {
  if (broken_[index].exchange(true, std::memory_order_acq_rel)) return;
  ring(bells_.trouble);
}

bool QueueSet::mark_broken(const ibv_qp* qp) noexcept {
  if (sender_->qp() == qp) {
    mark_broken(kSender);
    return true;
  }
  const auto found = std::find_if(owned_.begin(), owned_.end(), [qp](const auto& pair) { return pair->qp() == qp; });
  if (found == owned_.end()) return false;
  mark_broken((*found)->tag() % kPlaces);
  return true;
}

std::unique_ptr<ReceivePair> QueueSet::make_pair(bool shared) {
  std::uint32_t index = 0;
  while (index < most_pairs_ && pairs_[index].load() != nullptr) ++index;
  if (index == most_pairs_) throw Error(ENOSPC, "add a queue pair on", device_.name());
  const std::uint32_t tag = next_generation_++ * kPlaces + index;
  return std::make_unique<ReceivePair>(device_, completions_.cq(), tag,
                                       ReceivePair::Shape{stride_, completions_.tells_vlan(), shared});
}

void QueueSet::publish(ReceivePair* pair) noexcept {
  const std::uint32_t index = pair->tag() % kPlaces;
  broken_[index].store(false, std::memory_order_release);
  pairs_[index].store(pair, std::memory_order_seq_cst);
}

ReceivePair* QueueSet::add_pair() {
  if (owned_.size() == most_pairs_ - 1) return nullptr;
  try {
    owned_.push_back(make_pair(false));
  } catch (const Error&) {
    return nullptr;  // the shared pair takes the rules; status() says how many it serves
  }
  publish(owned_.back().get());
  return owned_.back().get();
}

// First no buffer goes back; then the device gives up what is posted, and the worker takes what had come before, so
// that nothing is lost; then no completion of the pair is looked at any more. When no worker is in the middle of
// either, the pair goes, and then its memory.
void QueueSet::retire(std::unique_ptr<ReceivePair> old) noexcept {
  old->close();
  quiescence_.wait();
  old->flush();
  ring(bells_.worker);
  static_cast<void>(wait_until([&old] { return old->empty(); }));  // a dead device's pair never is
  pairs_[old->tag() % kPlaces].store(nullptr, std::memory_order_seq_cst);
  quiescence_.wait();
}

void QueueSet::remove_pair(ReceivePair* pair) noexcept {
  const auto found =
      std::find_if(owned_.begin(), owned_.end(), [pair](const auto& owned) { return owned.get() == pair; });
  if (found == owned_.end() || found == owned_.begin()) return;
  std::unique_ptr<ReceivePair> old = std::move(*found);
  owned_.erase(found);
  retire(std::move(old));
}

void QueueSet::replace_sender() {
  auto fresh = std::make_unique<SendPair>(device_);
  published_sender_.replace(fresh.get());
  quiescence_.wait();
  std::swap(sender_, fresh);
  fresh->abandon();
  lost_sends_ += fresh->lost();
  broken_[kSender].store(false, std::memory_order_release);
}

void QueueSet::finish_kept() {
  const std::uint64_t last = sender_->last_kept();
  if (!wait_until([&] { return sender_->completed() >= last; })) replace_sender();
}

// The new pair has the rules before the old one loses them: nothing of it goes to the kernel in between.
ReceivePair* QueueSet::replace_pair(const ReceivePair* pair) {
  const auto found =
      std::find_if(owned_.begin(), owned_.end(), [pair](const auto& owned) { return owned.get() == pair; });
  return replace_at(static_cast<std::size_t>(found - owned_.begin()));
}

ReceivePair* QueueSet::replace_at(std::size_t position) {
  std::unique_ptr<ReceivePair> fresh = make_pair(owned_[position]->shared());
  for (const auto& [rule, flow] : owned_[position]->rules()) fresh->add_rule(device_, rule);
  publish(fresh.get());
  std::swap(owned_[position], fresh);
  retire(std::move(fresh));
  return owned_[position].get();
}

}  // namespace vswitch::verbs
