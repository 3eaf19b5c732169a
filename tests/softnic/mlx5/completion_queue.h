#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "tests/softnic/core/board.h"

/// The NIC's side of an mlx5 completion queue: struct mlx5_cqe64 in a ring that the driver polls, with an owner bit
/// that turns with each round (mlx5dv.h; "Completion Queue" in the adapters' programmer's manual).
namespace softnic {

/// What one entry says, in host order.
struct Completion {
  std::uint8_t opcode = 0;       ///< MLX5_CQE_REQ, _RESP_SEND, _REQ_ERR, _RESP_ERR
  std::uint8_t send_opcode = 0;  ///< of the work request, for sends
  std::uint8_t syndrome = 0;     ///< of an error
  std::uint32_t queue = 0;       ///< queue pair number
  std::uint32_t user_index = 0;  ///< what the driver called the queue (CQE version 1)
  std::uint16_t wqe_counter = 0;
  std::uint32_t bytes = 0;        ///< received
  std::uint8_t checks = 0;        ///< MLX5_CQE_L2_OK | L3_OK | L4_OK
  std::uint8_t header_types = 0;  ///< VLAN stripped, L3 and L4 type
  std::uint16_t vlan = 0;         ///< TCI of a stripped tag
  std::uint32_t tag = 0;          ///< of the flow rule, 24 bits; 0 without
  std::uint32_t hash = 0;         ///< RSS hash
};

class CompletionQueue {
 public:
  struct Layout {
    std::uint8_t* buffer = nullptr;
    std::uint32_t entries = 0;        ///< power of two
    std::uint32_t entry_bytes = 0;    ///< 64 or 128
    std::uint32_t* record = nullptr;  ///< [0] consumer index, [1] arm word, big-endian
  };
  struct Events {
    int channel = -1;          ///< fd that gets one 8-byte cookie an event; -1: none
    std::uint64_t cookie = 0;  ///< user handle
  };

  CompletionQueue(std::uint32_t number, const Layout& layout, const Events& events, Board& board);

  void push(const Completion& completion) noexcept;
  /// Writes what a random batch held back. `all`: everything.
  void flush(bool all) noexcept;
  /// The arm register was written for this queue: the record was, too, or will be found to be.
  void arm_register_written() noexcept { register_written_ = true; }
  /// Sends the event if the queue is armed and holds something new. `arm_writes`: how often any arm register of the
  /// context was written so far (one write may hide another); an arm word that no such write follows is a violation.
  void interrupt(std::uint64_t arm_writes, std::uint64_t now_ns) noexcept;
  /// The driver copied what it had not polled yet into a larger ring; next entries go there.
  void resize(std::uint8_t* buffer, std::uint32_t entries, std::uint32_t entry_bytes) noexcept;

  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  /// True once, after an entry found no room: the queue is dead from then on.
  [[nodiscard]] bool take_overrun() noexcept;
  [[nodiscard]] std::uint32_t events_sent() const noexcept { return events_sent_; }
  [[nodiscard]] const Events& events() const noexcept { return events_; }

 private:
  void look_at_arming(std::uint64_t arm_writes, std::uint64_t now_ns) noexcept;
  void write(const Completion& completion) noexcept;
  [[nodiscard]] std::uint32_t consumer() const noexcept;

  std::uint32_t number_;
  Layout layout_;
  Events events_;
  Board& board_;
  std::uint32_t producer_ = 0;
  bool overrun_ = false;
  bool overrun_told_ = false;
  bool armed_ = false;
  bool solicited_only_ = false;
  bool error_seen_ = false;     // since it was armed
  std::uint32_t armed_at_ = 0;  // consumer index of the arm word
  std::uint32_t arm_word_;
  std::uint64_t arm_writes_ = 0;  // seen before the last arm word
  std::uint64_t armed_ns_ = 0;    // 0: a write of the register followed
  bool register_written_ = false;
  std::uint32_t events_sent_ = 0;
  std::vector<Completion> held_;
  std::minstd_rand random_;
};

}  // namespace softnic
