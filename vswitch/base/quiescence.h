#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace vswitch {

/// Knows when every worker has let go of what the control thread took away.
///
/// Theory of operation (quiescent-state-based reclamation): the control thread unpublishes an object (a table, a port's
/// memory), calls wait(), and frees it. A worker announces at the start of each step that it holds nothing from before
/// (online), and before it sleeps that it holds nothing at all (offline). wait() opens a new era and returns when every
/// worker was seen in it or offline. Between two announcements a worker may use whatever it loaded, without any further
/// synchronisation.
class Quiescence {
 public:
  /// @param workers how many threads will announce themselves; they start offline
  explicit Quiescence(std::size_t workers);

  /// Worker `w`, at the start of a step: everything loaded earlier is let go. Two plain memory operations.
  void online(std::size_t w) noexcept {
    seen_[w].era.store(era_.load(std::memory_order_acquire), std::memory_order_release);
  }
  /// Worker `w`, after sleeping: as online(), and ordered before every Published::load() that follows.
  void wake(std::size_t w) noexcept {
    seen_[w].era.exchange(era_.load(std::memory_order_acquire), std::memory_order_seq_cst);
  }
  /// Worker `w`, before it may sleep or end: holds nothing until wake().
  void offline(std::size_t w) noexcept { seen_[w].era.store(kOffline, std::memory_order_release); }

  /// Control thread: returns when no worker can still use what was unpublished before the call. Takes about one step of
  /// the slowest worker; yields while it waits.
  void wait() noexcept;

 private:
  static constexpr std::uint64_t kOffline = ~std::uint64_t{0};
  struct alignas(64) Seen {
    std::atomic<std::uint64_t> era{kOffline};
  };
  std::size_t workers_;
  std::unique_ptr<Seen[]> seen_;
  alignas(64) std::atomic<std::uint64_t> era_{0};
};

/// A pointer that the control thread replaces and workers read. Sequentially consistent on both sides, which together
/// with Quiescence means: after replace() and wait(), nobody reads the old value. A load is a plain load on x86-64.
template <class T>
class Published {
 public:
  explicit Published(T* initial = nullptr) noexcept : pointer_(initial) {}
  [[nodiscard]] T* load() const noexcept { return pointer_.load(std::memory_order_seq_cst); }
  T* replace(T* next) noexcept { return pointer_.exchange(next, std::memory_order_seq_cst); }

 private:
  std::atomic<T*> pointer_;
};

}  // namespace vswitch
