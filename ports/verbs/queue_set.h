#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/direct_memory.h"
#include "ports/verbs/handle.h"
#include "ports/verbs/receive_completions.h"
#include "ports/verbs/receive_pair.h"
#include "ports/verbs/send_pair.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/port.h"

namespace vswitch::verbs {

/// What no port's counter shows. One writer, the worker; anyone reads.
struct DeviceCounters {
  Counter receive_errors;  ///< completions with an error
  Counter stripped_tags;   ///< tags taken out of received frames in software
  Counter lost_events;     ///< frames that came without the event that was asked for
};

/// What one worker has open on the device: the pair it sends with, and the pairs it receives with. All receive pairs
/// share one completion queue, so that polling costs the same for one tenant and for hundreds; it has an entry for
/// every buffer, so it cannot overrun; where the device has not that many, there are fewer pairs.
///
/// A worker uses it between Published::load() and its next quiescent state; the control thread changes it meanwhile by
/// the members that say so. (The completion queue's own lock, inside libibverbs, is what lets a pair go while others
/// are polled; nobody else ever holds it for long.)
class QueueSet {
 public:
  /// Receive pairs of one worker, the shared one included, and the one that is about to replace another. One less than
  /// what places there are for them: providers add an entry to a completion queue, and round up to a power of two.
  static constexpr std::uint32_t kMostPairs = 127;

  /// As many as the device can have, of kMostPairs: each buffer has an entry of the completion queue. Throws Error: too
  /// few.
  [[nodiscard]] static std::uint32_t most_pairs(const Device& device);

  /// What a worker's set tells by writing 1 to eventfds.
  struct Bells {
    int trouble;  ///< to the control thread: a pair broke
    int worker;   ///< to the worker: look at your queue, whatever events there were
  };
  /// Control thread. @param direct outlives this; @param stride bytes of a receive buffer. Throws Error.
  QueueSet(const Device& device, const DirectMemory& direct, std::uint32_t stride, Quiescence& quiescence, Bells bells);

  // The worker's side; see Queue in vswitch/core/port.h.
  [[nodiscard]] std::size_t receive(Burst& out, PortCounters& counters) noexcept;
  void release() noexcept;
  [[nodiscard]] std::size_t transmit(std::span<const Frame* const> frames, PortCounters& counters) noexcept;
  void reclaim() noexcept;
  [[nodiscard]] bool arm() noexcept;

  // The control thread's side.
  /// A pair of its own for somebody. @return nullptr: there are as many as there may be, or the device has no room for
  /// more
  [[nodiscard]] ReceivePair* add_pair();
  /// Its rules end at once, its memory when no worker can use it. Not the shared pair.
  void remove_pair(ReceivePair* pair) noexcept;
  /// Makes another with the same rules, and lets this one go. @return the new one. Throws Error.
  ReceivePair* replace_pair(const ReceivePair* pair);
  [[nodiscard]] ReceivePair& shared_pair() const noexcept { return *owned_.front(); }
  [[nodiscard]] std::size_t pairs() const noexcept { return owned_.size(); }
  [[nodiscard]] const ReceiveCompletions& completions() const noexcept { return completions_; }
  [[nodiscard]] const DeviceCounters& device_counters() const noexcept { return device_counters_; }

  /// Waits until the device read all frames that are kept; what it does not read soon, it never will: the pair is
  /// replaced. What a worker has posted since is waited for as well. Throws Error when that fails.
  void finish_kept();
  /// Requests to send that were lost with a pair that broke.
  [[nodiscard]] std::uint64_t lost_sends() const noexcept { return lost_sends_ + sender_->lost(); }

  /// An async event said that this pair broke. @return false: no such pair here
  bool mark_broken(const ibv_qp* qp) noexcept;
  /// Makes new pairs for those that broke, with the same rules; the others receive and send meanwhile.
  /// @param replaced called for each receive pair. @return how many pairs were replaced. Throws Error.
  template <class Replaced>
  std::size_t repair(const Replaced& replaced);

 private:
  using Completion = ReceiveCompletions::Completion;
  struct Arrived {
    const std::byte* bytes = nullptr;
    Kept* kept = nullptr;
    std::uint32_t length = 0;
    std::uint32_t flags = 0;
    std::uint16_t tci = 0;
  };
  static constexpr std::uint32_t kPlaces = 128;
  static constexpr std::uint32_t kSender = kPlaces;  // index of the sender in broken_

  [[nodiscard]] std::size_t poll(std::size_t most) noexcept;
  void note(const Completion& completion) noexcept;
  void note_failure(ReceivePair& pair, ibv_wc_status status) noexcept;
  void lend(const Arrived& arrived, Burst& out, PortCounters& counters) noexcept;
  void take_tag(Frame& frame, const Arrived& arrived) noexcept;
  void mark_broken(std::uint32_t index) noexcept;
  [[nodiscard]] std::unique_ptr<ReceivePair> make_pair(bool shared);
  void publish(ReceivePair* pair) noexcept;
  void retire(std::unique_ptr<ReceivePair> old) noexcept;
  void replace_sender();
  [[nodiscard]] ReceivePair* replace_at(std::size_t position);

  const Device& device_;
  const DirectMemory& direct_;
  const std::uint32_t stride_;
  Quiescence& quiescence_;
  const Bells bells_;
  const std::uint32_t most_pairs_;
  ReceiveCompletions completions_;
  std::unique_ptr<SendPair> sender_;                 // control thread
  std::vector<std::unique_ptr<ReceivePair>> owned_;  // control thread; the first is the shared one
  std::uint32_t next_generation_ = 0;
  std::uint64_t lost_sends_ = 0;  // of senders before this one
  Published<SendPair> published_sender_;
  std::array<std::atomic<ReceivePair*>, kPlaces> pairs_{};  // by tag % kPlaces
  std::array<std::atomic<bool>, kPlaces + 1> broken_{};
  DeviceCounters device_counters_;
  // Worker:
  std::array<Arrived, kBurstFrames> arrived_{};  // what receive() lent, in order; in whose buffers:
  std::array<ReceivePair*, kBurstFrames> arrived_at_{};
  std::array<std::uint32_t, kBurstFrames> arrived_in_{};
  std::size_t arrived_count_ = 0;
  ReceiveChain chain_;
  Completion kept_{};  // one that arm() found
  bool has_kept_ = false;
  bool armed_ = false;  // an event was asked for and is due for the next frame
  bool came_ = false;   // frames came since then
};

template <class Replaced>
std::size_t QueueSet::repair(const Replaced& replaced) {
  std::size_t count = 0;
  if (broken_[kSender].load(std::memory_order_acquire)) {
    replace_sender();
    ++count;
  }
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    const ReceivePair* old = owned_[i].get();
    if (!broken_[old->tag() % kPlaces].load(std::memory_order_acquire)) continue;
    replaced(old, replace_at(i));
    ++count;
  }
  return count;
}

}  // namespace vswitch::verbs
