#pragma once

#include <infiniband/verbs.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/softnic/core/steering.h"
#include "tests/softnic/dropin/completions.h"
#include "tests/softnic/dropin/receive_queue.h"
#include "tests/softnic/dropin/send_queue.h"
#include "tests/softnic/kernel/event_pipe.h"

/// What an application holds: each begins with the public struct of <infiniband/verbs.h>. Counts of users and states
/// are guarded by the context's lock.
namespace softnic::dropin {

struct Device : ibv_device {
  void* after[8] = {};  ///< libmlx5 and libefa look here whether a device is theirs, ahead of the public struct's end
  std::string folder;   ///< of the daemon
};

struct Pd : ibv_pd {
  int users = 0;
};

struct Mr : ibv_mr {
  std::uint64_t pinned = 0;
};

struct Channel : ibv_comp_channel {
  EventPipe pipe{sizeof(std::uint64_t)};
};

/// Events that the application took from a pipe; those must be acknowledged before the object goes. Guarded by the
/// mutex of the public struct.
struct Taken {
  std::uint32_t async = 0;
  std::uint32_t completion = 0;
};

struct Cq : ibv_cq_ex {
  Cq(std::size_t entries, int channel_fd, Board& board)
      : ibv_cq_ex{}, completions(entries, {channel_fd, reinterpret_cast<std::uint64_t>(this)}, board) {}
  Completions completions;
  Taken taken;
  int users = 0;
  std::uint64_t fields = 0;  ///< enum ibv_create_cq_wc_flags
  // Of ibv_start_poll and the like.
  std::mutex polling;
  std::atomic<std::thread::id> poller{};
  Completion current;
};

struct Wq : ibv_wq {
  Taken taken;
  int users = 0;  ///< tables
  std::optional<ReceiveQueue> queue;
};

struct Table : ibv_rwq_ind_table {
  std::vector<Wq*> queues;  ///< a power of two
  int users = 0;
};

struct Rss {
  std::uint64_t fields = 0;
  std::array<std::uint8_t, 40> key{};
  Table* table = nullptr;
};

/// The requests between ibv_wr_start and ibv_wr_complete.
struct Batch {
  bool open = false;
  int error = 0;  ///< the first; the whole batch fails with it
  std::vector<SendRequest> requests;
};

struct Qp : ibv_qp_ex {
  ibv_qp_state now = IBV_QPS_RESET;  ///< `state` of the public struct is what the application knows
  std::uint8_t port = 1;
  std::uint32_t rate_kbps = 0;
  std::uint64_t send_ops = 0;  ///< enum ibv_qp_create_send_ops_flags; 0: no ibv_wr_*
  bool signal_all = false;
  int flows = 0;
  Taken taken;
  std::optional<SendQueue> send;
  std::optional<ReceiveQueue> receive;
  std::optional<Rss> rss;
  Batch batch;
  std::vector<std::pair<ibv_gid, RuleId>> groups;
};

struct Flow : ibv_flow {
  RuleId rule = 0;
  Qp* queue = nullptr;
};

inline Cq& cq_of(ibv_cq* cq) noexcept { return *static_cast<Cq*>(reinterpret_cast<ibv_cq_ex*>(cq)); }
inline Cq& cq_of(ibv_cq_ex* cq) noexcept { return *static_cast<Cq*>(cq); }
inline Qp& qp_of(ibv_qp* qp) noexcept { return *static_cast<Qp*>(reinterpret_cast<ibv_qp_ex*>(qp)); }
inline Qp& qp_of(ibv_qp_ex* qp) noexcept { return *static_cast<Qp*>(qp); }

}  // namespace softnic::dropin
