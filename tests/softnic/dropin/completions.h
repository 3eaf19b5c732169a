#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <random>

#include "tests/softnic/core/board.h"

namespace softnic::dropin {

[[nodiscard]] std::uint64_t clock_ns(clockid_t clock) noexcept;

struct Completion {
  std::uint64_t id = 0;  ///< wr_id
  ibv_wc_status status = IBV_WC_SUCCESS;
  ibv_wc_opcode opcode = IBV_WC_SEND;
  std::uint32_t vendor_error = 0;
  std::uint32_t queue = 0;  ///< queue pair number
  std::uint32_t bytes = 0;  ///< received
  unsigned flags = 0;       ///< enum ibv_wc_flags
  std::uint16_t vlan = 0;   ///< TCI of a stripped tag
  std::uint32_t tag = 0;    ///< of the flow rule
  std::uint64_t time_ns = 0, wall_ns = 0;
  // When it is polled, `*done` becomes `position`: so many work requests of the queue have their places back.
  std::uint64_t* done = nullptr;
  std::uint64_t position = 0;
};

/// The entries of a completion queue. It has exactly the entries that were asked for. Guarded by the context's lock.
class Completions {
 public:
  struct Events {
    int channel = -1;          ///< fd that gets one 8-byte cookie an event; -1: none
    std::uint64_t cookie = 0;  ///< address of the completion queue
  };
  Completions(std::size_t entries, const Events& events, Board& board);

  /// @return false where there is no room: the queue is dead from then on.
  bool push(Completion completion);
  /// Takes the oldest. @return false where there is none (yet: some are held back in random batches).
  [[nodiscard]] bool take(Completion& out);
  /// Shows what a random batch held back; release_some(): or leaves it for the next time.
  void release_all();
  void release_some();
  /// The next entry (or an unpolled one) sends an event, once.
  void arm(bool solicited_only);
  [[nodiscard]] bool armed() const noexcept { return armed_; }
  /// Forgets the entries of a queue that goes.
  void remove(const std::uint64_t* done);
  [[nodiscard]] std::size_t entries() const noexcept { return entries_; }
  [[nodiscard]] std::size_t used() const noexcept { return shown_.size() + held_.size(); }
  void resize(std::size_t entries) noexcept { entries_ = entries; }
  /// True once after an overrun.
  [[nodiscard]] bool take_overrun() noexcept;

 private:
  void notify();

  std::size_t entries_;
  Events events_;
  Board& board_;
  std::deque<Completion> shown_;
  std::deque<Completion> held_;
  bool armed_ = false;
  bool solicited_only_ = false;
  bool error_since_armed_ = false;
  bool overrun_ = false;
  bool overrun_told_ = false;
  std::minstd_rand random_;
};

}  // namespace softnic::dropin
