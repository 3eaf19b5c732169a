#pragma once
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "vswitch/base/clock.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/spec.h"
#include "vswitch/core/table.h"

namespace vswitch {

class Worker;

/// What one worker did; one writer, anyone reads.
struct alignas(64) WorkerCounters {
  Counter steps;                             ///< turns of the loop
  Counter busy_steps;                        ///< turns that moved at least one frame
  Counter frames;                            ///< frames received
  Counter sleeps;                            ///< times the worker slept
  Counter slept_ns;                          ///< how long altogether, sleeps that ended
  std::atomic<Nanoseconds> asleep_since{0};  ///< when the present sleep began; 0: awake
};

/// The workers and the table they run on. Control thread only.
class Datapath {
 public:
  /// @param quiescence made for Datapath::worker_count(spec) workers; outlives this
  Datapath(const WorkersSpec& spec, Quiescence& quiescence);
  ~Datapath();

  [[nodiscard]] static std::size_t worker_count(const WorkersSpec& spec) noexcept;
  /// Starts the threads; once. Throws Error (CPU not available).
  void start();
  /// Ends the threads for good; afterwards no queue is in use.
  void stop() noexcept;

  /// Lets workers wait for the queues of `port`; call after Port::start(), before publish(). Throws Error.
  void add_port(PortId id, Port& port);
  /// Call after a publish() without the port, before Port::stop().
  void remove_port(Port& port) noexcept;
  /// Makes every worker run on `next`; returns when all do, and frees the table before it.
  void publish(std::unique_ptr<const Table> next);
  /// The table in use, for trace and show.
  [[nodiscard]] const Table& table() const noexcept { return *table_; }

  [[nodiscard]] std::size_t workers() const noexcept { return workers_.size(); }
  [[nodiscard]] const WorkerCounters& counters(std::size_t w) const noexcept;
  [[nodiscard]] int cpu(std::size_t w) const noexcept;  ///< -1: not pinned

 private:
  Quiescence& quiescence_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::unique_ptr<const Table> table_;
  Published<const Table> published_;
};

}  // namespace vswitch
