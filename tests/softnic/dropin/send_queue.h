#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/core/wire.h"
#include "tests/softnic/dropin/completions.h"

namespace softnic::dropin {

/// Takes the frames that a send queue makes.
class FrameOut {
 public:
  virtual ~FrameOut() = default;
  virtual void frame(Bytes bytes) = 0;
};

/// A work request as the NIC keeps it.
struct SendRequest {
  std::uint64_t id = 0;
  ibv_wr_opcode opcode = IBV_WR_SEND;
  unsigned flags = 0;                ///< enum ibv_send_flags
  std::uint16_t mss = 0;             ///< of TSO
  std::vector<std::uint8_t> copied;  ///< inline data, or the headers of TSO: copied when it is posted
  std::vector<ibv_sge> pieces;       ///< read when it is carried out
  std::uint64_t not_before_ns = 0;
};

/// What a queue of work requests may hold; a queue pair has two.
struct QueueLimits {
  std::uint32_t requests = 0;
  std::uint32_t pieces = 0;
  std::uint32_t inline_bytes = 0;
  std::uint32_t tso_header = 0;
};

/// Carries out work requests while they are posted, unless they are paced or reading is delayed. A place is free again
/// when a completion of this or of a later request was polled, as in real drivers: who never signals runs out of them.
class SendQueue {
 public:
  struct Identity {
    std::uint32_t queue = 0;
    std::uint32_t domain = 0;  ///< protection domain
    std::uint32_t max_tso = 0;
    bool checksums = true;  ///< may ask for checksum insertion
    bool signal_all = false;
  };
  SendQueue(const QueueLimits& limits, const Identity& identity, Completions& completions, const MemoryTable& memory,
            Board& board);
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;
  ~SendQueue() { completions_.remove(&done_); }

  [[nodiscard]] std::size_t room() const noexcept;
  /// @return 0, or the errno with which the driver refuses the request: it is not posted then.
  [[nodiscard]] int check(const SendRequest& request) const noexcept;
  /// After check().
  void post(SendRequest&& request, std::uint64_t now_ns);
  /// Carries out what is due. @return false when the queue pair must enter the error state.
  [[nodiscard]] bool process(std::uint64_t now_ns, FrameOut& out);
  /// When process() has something to do; 0: never.
  [[nodiscard]] std::uint64_t due_ns() const noexcept;
  /// Completes everything posted with a flush error.
  void flush();
  void reset();
  /// The next request fails with this.
  void break_next(ibv_wc_status status, std::uint32_t syndrome) noexcept;
  void set_rate(std::uint32_t kilobits_per_second) noexcept { kbps_ = kilobits_per_second; }
  [[nodiscard]] const QueueLimits& limits() const noexcept { return limits_; }

 private:
  [[nodiscard]] ibv_wc_status execute(const SendRequest& request, FrameOut& out);
  [[nodiscard]] ibv_wc_status segment(const SendRequest& request, FrameOut& out);
  [[nodiscard]] ibv_wc_status gather(const SendRequest& request);
  void emit(bool checksums, FrameOut& out);
  void complete(ibv_wc_status status, std::uint32_t syndrome);

  QueueLimits limits_;
  Identity identity_;
  Completions& completions_;
  const MemoryTable& memory_;
  Board& board_;
  std::deque<SendRequest> waiting_;
  std::uint64_t posted_ = 0, carried_out_ = 0, done_ = 0;
  std::uint64_t not_before_ns_ = 0;  // pacing
  std::uint32_t kbps_ = 0;
  ibv_wc_status broken_ = IBV_WC_SUCCESS;
  std::uint32_t broken_syndrome_ = 0;
  std::vector<std::uint8_t> frame_;    // gathered bytes
  std::vector<std::uint8_t> segment_;  // one frame of a TSO request
  std::size_t gathered_ = 0;
};

}  // namespace softnic::dropin
