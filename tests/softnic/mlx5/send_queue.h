#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/core/wire.h"
#include "tests/softnic/mlx5/completion_queue.h"
#include "tests/softnic/mlx5/doorbell.h"

/// The NIC's side of an mlx5 send queue of a raw packet queue pair: work requests of 1 to 16 blocks of 64 bytes in a
/// ring; each a control segment, an Ethernet segment with inlined header bytes, and data segments (mlx5dv.h).
///
/// What the driver owes, and what is checked: write the work request, then the doorbell record, then the doorbell
/// register, naming the last work request; keep the block index right; never overtake the queue by more than its size.
namespace softnic {

/// Takes the frames that a send queue makes.
class FrameOut {
 public:
  virtual ~FrameOut() = default;
  virtual void frame(Bytes bytes) = 0;
};

class SendQueue {
 public:
  struct Layout {
    std::uint8_t* buffer = nullptr;
    std::uint32_t blocks = 0;         ///< power of two
    std::uint32_t* record = nullptr;  ///< block index behind the last posted work request, 16 bits, big-endian
  };
  struct Identity {
    std::uint32_t queue = 0;
    std::uint32_t user_index = 0;
    std::uint32_t domain = 0;
    std::uint16_t min_inline = 0;  ///< header bytes that every send must inline
    std::uint32_t max_tso = 0;     ///< payload bytes of a TSO request; 0: no TSO
    bool checksums = true;         ///< may ask for checksum insertion
  };

  /// Where frames are put together; one for all queues that one thread serves.
  struct Scratch {
    static constexpr std::size_t kMostGathered = 256 * 1024;
    std::vector<std::uint8_t> frame = std::vector<std::uint8_t>(kMostGathered);      // gathered bytes
    std::vector<std::uint8_t> segment = std::vector<std::uint8_t>(kMostFrameBytes);  // one frame of a TSO request
  };

  SendQueue(const Layout& layout, const Identity& identity, Doorbell& doorbell, CompletionQueue& completions,
            const MemoryTable& memory, Scratch& scratch, Board& board) noexcept;

  /// Looks at the doorbell. Cheap when there is nothing.
  void look(std::uint64_t now_ns) noexcept;
  [[nodiscard]] bool work() const noexcept { return head_ != target_; }
  /// Carries out up to `most` work requests that were rung for. @return false when the queue must enter the error
  /// state.
  [[nodiscard]] bool process(int most, std::uint64_t now_ns, FrameOut& out) noexcept;
  /// Completes everything posted with a flush error, or forgets it.
  void flush() noexcept;
  void reset() noexcept;
  /// The next work request that is carried out fails with `syndrome`.
  void break_next(std::uint8_t syndrome) noexcept { break_next_ = syndrome; }
  /// 0 = not limited.
  void set_rate(std::uint32_t kilobits_per_second) noexcept { kbps_ = kilobits_per_second; }

 private:
  [[nodiscard]] std::uint16_t posted() const noexcept;
  [[nodiscard]] std::uint16_t blocks_at(std::uint16_t index) const noexcept;
  [[nodiscard]] bool fetch() noexcept;
  [[nodiscard]] std::uint8_t execute(FrameOut& out) noexcept;
  [[nodiscard]] std::uint8_t execute_tso(std::size_t header_bytes, std::uint16_t mss, FrameOut& out) noexcept;
  [[nodiscard]] std::uint8_t gather(const std::uint8_t* at, const std::uint8_t* end) noexcept;
  void emit(std::size_t bytes, std::uint8_t flags, FrameOut& out) noexcept;
  void complete(std::uint8_t syndrome) noexcept;

  Layout layout_;
  Identity identity_;
  Doorbell& doorbell_;
  CompletionQueue& completions_;
  const MemoryTable& memory_;
  Scratch& scratch_;
  Board& board_;
  std::uint16_t head_ = 0;           // block index of the next work request
  std::uint16_t target_ = 0;         // block index behind the last one that was rung for
  std::uint16_t rung_ = 0;           // block index of the last work request that rang
  std::uint64_t unrung_ns_ = 0;      // since when the record is ahead of the register; 0: it is not
  std::uint64_t not_before_ns_ = 0;  // pacing, and delayed reading on request
  std::uint32_t kbps_ = 0;
  std::array<std::uint8_t, 1024> request_{};  // the work request being carried out, unwrapped
  std::uint8_t opcode_ = 0;
  std::uint16_t segments_ = 0;  // of 16 bytes
  bool signaled_ = false;
  std::uint8_t break_next_ = 0;
  std::size_t gathered_ = 0;
};

}  // namespace softnic
