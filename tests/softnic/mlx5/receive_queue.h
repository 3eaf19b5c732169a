#pragma once

#include <cstdint>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/core/steering.h"
#include "tests/softnic/mlx5/completion_queue.h"

namespace softnic {

/// The NIC's side of an mlx5 receive queue (of a queue pair, or a WQ of an RSS table): an array of strides, each a list
/// of data segments, ended by key 0x100. The driver counts what it posted in the doorbell record; there is no register.
class ReceiveQueue {
 public:
  struct Layout {
    std::uint8_t* buffer = nullptr;
    std::uint32_t count = 0;  ///< strides, power of two
    std::uint32_t stride_shift = 0;
    std::uint32_t* record = nullptr;  ///< work requests posted, 16 bits, big-endian
  };
  struct Identity {
    std::uint32_t queue = 0;  ///< queue pair (or WQ) number
    std::uint32_t user_index = 0;
    std::uint32_t domain = 0;  ///< protection domain
    bool strip_vlan = false;
  };

  ReceiveQueue(const Layout& layout, const Identity& identity, CompletionQueue& completions, const MemoryTable& memory,
               Board& board) noexcept;

  /// Looks at what was posted since the last call and (Poison::kBuffers) fills those buffers with garbage: they are the
  /// NIC's now.
  void look() noexcept;
  /// Writes one frame into the next work request and completes it. @return false when the queue must enter the error
  /// state: the frame did not fit, or its buffer is not registered memory.
  [[nodiscard]] bool receive(const Delivery& to, Bytes frame, const Headers& headers, std::uint32_t hash) noexcept;
  /// Completes everything posted with a flush error.
  void flush() noexcept;
  void reset() noexcept;
  void set_strip_vlan(bool strip) noexcept { identity_.strip_vlan = strip; }

 private:
  [[nodiscard]] std::uint16_t posted() const noexcept;
  [[nodiscard]] bool fail(std::uint8_t syndrome, Counter why) noexcept;
  [[nodiscard]] const std::uint8_t* stride(std::uint16_t index) const noexcept;

  Layout layout_;
  Identity identity_;
  CompletionQueue& completions_;
  const MemoryTable& memory_;
  Board& board_;
  std::uint16_t head_ = 0;      // next work request to use
  std::uint16_t poisoned_ = 0;  // next work request to poison
  bool overfull_ = false;       // more is posted than fits, and that was said
};

}  // namespace softnic
