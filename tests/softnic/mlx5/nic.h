#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/mlx5/completion_queue.h"
#include "tests/softnic/mlx5/doorbell.h"
#include "tests/softnic/mlx5/receive_queue.h"
#include "tests/softnic/mlx5/send_queue.h"

/// The part of an mlx5 NIC that works for one open context: its queues, and the thread that serves them.
namespace softnic {

/// States of enum ibv_qp_state, and of enum ibv_wq_state (which has RESET, RDY, ERR).
enum class QueueState : std::uint8_t { reset, init, rtr, rts, sqd, sqe, err };

/// A receive queue and whether it takes frames.
struct WorkQueue {
  std::uint32_t number = 0;
  std::uint64_t cookie = 0;  ///< user handle, for async events
  std::uint32_t cq = 0;
  std::uint32_t domain = 0;
  bool ready = false;
  bool error = false;  ///< what is posted is flushed
  int users = 0;       ///< tables it is in
  std::unique_ptr<ReceiveQueue> queue;
};

/// RSS: which fields are hashed, and the WQs that the hash chooses from.
struct Rss {
  std::uint64_t fields = 0;  ///< enum mlx5_rx_hash_fields
  std::vector<std::uint8_t> key;
  std::vector<std::uint32_t> queues;  ///< WQ numbers, a power of two
  std::uint32_t table = 0;            ///< handle
};

struct QueuePair {
  std::uint32_t number = 0;
  std::uint64_t cookie = 0;
  std::uint32_t domain = 0;
  std::uint32_t send_cq = 0;
  std::uint32_t receive_cq = 0;
  QueueState state = QueueState::reset;
  std::uint8_t port = 1;
  std::uint32_t rate_kbps = 0;
  std::unique_ptr<SendQueue> send;        ///< none: it cannot send
  std::unique_ptr<ReceiveQueue> receive;  ///< none: it cannot receive, or receives by RSS
  std::unique_ptr<Rss> rss;
  Doorbell* doorbell = nullptr;
};

/// enum ibv_event_type and the cookie of what it is about.
using AsyncEvent = std::function<void(std::uint32_t type, std::uint64_t element)>;

/// All members but the thread's own are guarded by lock(): set-up holds it, and the NIC's thread for a round.
class Nic : private Sink, private FrameOut {
 public:
  Nic(Fabric& fabric, Board& board, AsyncEvent event);
  ~Nic() override;

  /// Waits until the NIC's thread is between two rounds.
  [[nodiscard]] std::unique_lock<std::mutex> lock();

  MemoryTable memory;
  SendQueue::Scratch scratch;
  std::unordered_map<std::uint32_t, std::unique_ptr<CompletionQueue>> cqs;
  std::unordered_map<std::uint32_t, std::unique_ptr<WorkQueue>> wqs;
  std::unordered_map<std::uint32_t, std::unique_ptr<QueuePair>> qps;

  /// Memory of kUars pages that the driver maps to ring doorbells.
  [[nodiscard]] int uar_fd() const noexcept { return uar_fd_; }
  /// The least used BlueFlame register. @return its index as the driver counts them (4 a page, 2 usable).
  [[nodiscard]] std::uint32_t assign_doorbell(QueuePair& qp);

  /// With the lock held: moves a queue pair, with what that does to its queues.
  void set_state(QueuePair& qp, QueueState state);
  void set_state(WorkQueue& wq, bool ready, bool error);
  /// With the lock held: writes every completion that is due, so that the driver finds those of a queue that is reset
  /// or destroyed, and removes them.
  void write_completions();

  static constexpr std::uint32_t kUarBytes = 4096;
  static constexpr std::uint32_t kBlueFlameBytes = 512;  ///< two halves
  static constexpr std::uint32_t kUars = 8;
  static constexpr std::uint32_t kRegisters = kUars * 2;

 private:
  void deliver(std::uint8_t port, const Delivery& to, Bytes frame) override;
  void frame(Bytes bytes) override;

  void run();
  bool round(std::uint64_t now_ns);
  bool serve_sends(std::uint64_t now_ns);
  void serve_completions(std::uint64_t now_ns);
  void serve_board();
  void fail(QueuePair& qp);
  void fail(WorkQueue& wq);
  void flush_failed();
  void take_arm_registers();
  [[nodiscard]] WorkQueue* choose(const QueuePair& qp, Bytes frame, const Headers& headers, std::uint32_t& hash);

  Fabric& fabric_;
  Board& board_;
  AsyncEvent event_;
  std::mutex mutex_;
  std::atomic<int> waiting_{0};
  std::atomic<bool> stop_{false};
  int uar_fd_ = -1;
  std::vector<std::uint8_t*> uars_;
  std::vector<std::unique_ptr<Doorbell>> doorbells_;
  std::uint64_t arm_writes_ = 0;
  const QueuePair* sending_ = nullptr;  // whose frame the send queue is making
  std::array<bool, kMostPorts> port_up_{};
  std::uint32_t fatal_seen_ = 0;
  std::thread thread_;
};

}  // namespace softnic
