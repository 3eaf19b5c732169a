#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

/// The part of a device that everybody sees: a file mapped by the daemon, by each process that has the device open, and
/// by the command line. Counters, link states, and the faults that are asked for.
namespace softnic {

/// One enumerator for each thing that can become of a frame or go wrong, in the order of kCounterNames.
enum class Counter : std::uint8_t {
  tx_frames,          ///< frames that queue pairs sent, after segmentation
  rx_frames,          ///< frames written to a receive queue, with a completion
  wire_rx,            ///< frames that came from the wire
  wire_tx,            ///< frames put on the wire
  kernel_rx,          ///< frames that the kernel's netdev got
  kernel_tx,          ///< frames that the kernel's netdev sent
  loopback,           ///< copies that stayed inside the NIC
  delivered,          ///< copies steered to a queue pair
  copies,             ///< that frames of the wire had beyond the first: for a queue pair, or for the kernel
  drop_rule,          ///< dropped by a rule that says so
  drop_no_buffer,     ///< the receive queue held no work request
  drop_length,        ///< longer than its receive buffers: completion with error
  drop_protection,    ///< receive buffer outside of its memory region: completion with error
  drop_queue_state,   ///< queue pair not ready to receive, or gone
  drop_cq_overrun,    ///< completion queue full
  drop_channel_full,  ///< a process did not take its frames
  drop_wire_full,     ///< the wire's netdev did not take the frame
  drop_wire_down,     ///< no carrier, or link down on request
  drop_kernel_full,   ///< the kernel's netdev did not take the frame
  drop_no_kernel,     ///< for the kernel, on a port without netdev
  lost_wire,          ///< lost by the wire's netdev before we saw them
  lost_kernel,        ///< lost by the kernel's netdev before we saw them
  doorbells,          ///< UAR writes seen
  interrupts,         ///< events written to completion channels
  interrupts_lost,    ///< events kept back on request
  dma_read_bytes,
  dma_read_shared_bytes,  ///< of them, from memory that other processes have as well
  dma_write_bytes,
  dma_write_shared_bytes,
  tso_requests,
  error_completions,
  faults,      ///< faults injected
  violations,  ///< of the rules of the interface, by the software under test: must stay 0
  count
};
inline constexpr std::size_t kCounters = static_cast<std::size_t>(Counter::count);
extern const std::array<std::string_view, kCounters> kCounterNames;

inline constexpr std::size_t kMostPorts = 2;
inline constexpr std::uint32_t kMostEntries = 4194303;  ///< of a completion queue

/// What the NIC offers; each can be left out of a device.
struct Feature {
  static constexpr std::uint32_t kChecksum = 1;  ///< insertion (and the verdict on received checksums)
  static constexpr std::uint32_t kTso = 2;
  static constexpr std::uint32_t kVlanStrip = 4;
  static constexpr std::uint32_t kRss = 8;
  static constexpr std::uint32_t kPacing = 16;
  static constexpr std::uint32_t kRawPacket = 32;    ///< queue pairs of type RAW_PACKET at all
  static constexpr std::uint32_t kFlow = 64;         ///< flow steering
  static constexpr std::uint32_t kExtendedCq = 128;  ///< ibv_create_cq_ex(); libmlx5 always has it
  static constexpr std::uint32_t kAll = 255;
};

/// What is overwritten with garbage, because it is the NIC's: so that software which still uses it is noticed.
struct Poison {
  static constexpr std::uint32_t kRequests = 1;  ///< send work requests that were carried out
  static constexpr std::uint32_t kBuffers = 2;   ///< receive buffers when they are posted
};

/// Lives in shared memory: lock-free atomics alone, zero at the start.
struct Board {
  static constexpr std::uint32_t kVersion = 2;
  std::uint32_t version;
  std::uint32_t seed;      ///< of completion batching; 0 = completions are written at once
  std::uint32_t poison;    ///< of Poison
  std::uint32_t features;  ///< of Feature
  std::uint32_t ports;
  std::uint32_t min_inline;  ///< header bytes each send must inline: 0 or 18
  std::uint32_t mtu;
  std::uint32_t max_cqe;       ///< entries of a completion queue
  std::uint32_t dma_delay_ns;  ///< between doorbell and the reading of work requests
  std::array<std::atomic<std::uint64_t>, kCounters> counters;
  std::array<std::atomic<std::uint32_t>, kMostPorts> link_down;  ///< 1 = taken down on request
  std::array<std::atomic<std::uint32_t>, kMostPorts> carrier;    ///< of the wire
  // Faults: what to do (see fault.h) is written last; who takes it exchanges it for 0.
  std::atomic<std::uint32_t> fail_command;  ///< command code + 1 of the setup command that fails
  std::atomic<std::uint32_t> fail_errno;
  std::atomic<std::uint32_t> fail_times;
  std::atomic<std::uint32_t> break_queue;      ///< queue pair that enters ERR
  std::atomic<std::uint32_t> break_syndrome;   ///< 0: at once; else of the error completion of its next send
  std::atomic<std::uint32_t> lose_interrupts;  ///< how many of the next ones
  std::atomic<std::uint32_t> fatal;            ///< counts device-fatal events

  void count(Counter counter, std::uint64_t by = 1) noexcept {
    counters[static_cast<std::size_t>(counter)].fetch_add(by, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t read(Counter counter) const noexcept {
    return counters[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
  }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// A mapped board; the mapping goes with it.
class BoardFile {
 public:
  /// Makes the file (with zeros) where `create` says so. @throws std::system_error that names the file.
  BoardFile(const std::string& path, bool create);
  ~BoardFile();
  BoardFile(const BoardFile&) = delete;
  BoardFile& operator=(const BoardFile&) = delete;
  [[nodiscard]] Board& operator*() const noexcept { return *board_; }
  [[nodiscard]] Board* operator->() const noexcept { return board_; }

 private:
  Board* board_;
};

}  // namespace softnic
