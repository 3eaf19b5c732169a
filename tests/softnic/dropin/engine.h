#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/core/memory.h"
#include "tests/softnic/dropin/objects.h"

namespace softnic::dropin {

/// enum ibv_event_type and the address of what it is about (or the port number).
using AsyncEvent = std::function<void(std::uint32_t type, std::uint64_t element)>;

/// The NIC as it works for one open context. The application drives it: whoever posts or polls does the NIC's work.
/// One thread does what no caller does: it looks at links and faults, sends what was paced, takes the frames that come
/// while the application does neither, and serves armed completion queues at once.
class Engine : private Sink, private FrameOut {
 public:
  /// `frames`: readable when the fabric has frames.
  Engine(Fabric& fabric, Board& board, int frames, AsyncEvent event);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }

  // All below: with the lock held.
  MemoryTable memory;
  std::unordered_map<std::uint32_t, Qp*> qps;
  std::unordered_set<Wq*> wqs;
  std::unordered_set<Cq*> cqs;

  /// Frames, sends, faults: everything that waits.
  void pump();
  /// Carries out what was posted to `qp`.
  void sent(Qp& qp);
  /// Something was posted to a queue in the error state, or completed: flushes, and kills what hangs on a full
  /// completion queue.
  void settle(Qp& qp);
  /// A completion queue was armed: the thread watches from now on.
  void watch();
  void set_state(Qp& qp, ibv_qp_state state);
  void set_state(Wq& wq, ibv_wq_state state);

  /// Ends deliveries, and takes those that are on their way. Without the lock.
  void quiesce();

 private:
  void deliver(std::uint8_t port, const Delivery& to, Bytes frame) override;
  void frame(Bytes bytes) override;
  void run();
  void serve_board();
  void serve_break();
  void serve_sends(std::uint64_t now_ns);
  void check_overruns();
  void fail(Qp& qp);
  void fail(Wq& wq);
  void show_completions();
  [[nodiscard]] bool armed() const;
  [[nodiscard]] std::uint64_t wake_ns() const;
  void kick() const noexcept;

  Fabric& fabric_;
  Board& board_;
  AsyncEvent event_;
  const int frames_fd_;
  int kick_fd_ = -1;
  std::mutex mutex_;
  std::atomic<bool> stop_{false};
  const Qp* sending_ = nullptr;  // whose frame the send queue is making
  bool watching_ = false;        // the thread wakes up for frames
  std::uint64_t wakes_ns_ = 0;   // the thread, at the latest
  std::array<bool, kMostPorts> port_up_{};
  std::uint32_t fatal_seen_ = 0;
  std::thread thread_;
};

}  // namespace softnic::dropin
