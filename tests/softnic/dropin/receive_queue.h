#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/core/steering.h"
#include "tests/softnic/dropin/completions.h"
#include "tests/softnic/dropin/send_queue.h"

namespace softnic::dropin {

/// Receive work requests of a queue pair, or of a WQ of an RSS table. A place is free again when its completion was
/// polled.
class ReceiveQueue {
 public:
  struct Identity {
    std::uint32_t queue = 0;   ///< queue pair (or WQ) number
    std::uint32_t domain = 0;  ///< protection domain
    bool strip_vlan = false;
    bool checksums = true;  ///< judges received checksums
  };
  ReceiveQueue(const QueueLimits& limits, const Identity& identity, Completions& completions, const MemoryTable& memory,
               Board& board);
  ReceiveQueue(const ReceiveQueue&) = delete;
  ReceiveQueue& operator=(const ReceiveQueue&) = delete;
  ~ReceiveQueue() { completions_.remove(&done_); }

  /// Posts one work request; its buffers are filled with garbage: they are the NIC's now.
  /// @return 0, or the errno with which the driver refuses it.
  [[nodiscard]] int post(const ibv_recv_wr& request);
  /// Writes one frame into the next work request and completes it, as one of queue pair `queue`. @return false when the
  /// queue must enter the error state: the frame did not fit, or its buffer is not registered memory.
  [[nodiscard]] bool receive(const Delivery& to, Bytes frame, const Headers& headers, std::uint32_t queue);
  /// Completes everything posted with a flush error.
  void flush();
  void reset();
  void set_strip_vlan(bool strip) noexcept { identity_.strip_vlan = strip; }
  [[nodiscard]] const QueueLimits& limits() const noexcept { return limits_; }

 private:
  struct Request {
    std::uint64_t id;
    std::vector<ibv_sge> pieces;
  };
  [[nodiscard]] std::uint8_t* translate(const ibv_sge& piece) const noexcept;
  [[nodiscard]] ibv_wc_status scatter(Bytes frame, std::size_t total, bool strip) const noexcept;
  bool complete(Completion completion);

  QueueLimits limits_;
  Identity identity_;
  Completions& completions_;
  const MemoryTable& memory_;
  Board& board_;
  std::deque<Request> waiting_;
  std::uint64_t posted_ = 0, used_ = 0, done_ = 0;
};

}  // namespace softnic::dropin
