#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/kernel/command.h"
#include "tests/softnic/kernel/event_pipe.h"
#include "tests/softnic/mlx5/nic.h"

/// One open /dev/infiniband/uverbsN: what the kernel's ib_uverbs and mlx5_ib keep for a file, and the commands on it.
/// Handles are numbers of the device (queue pairs, WQs) or of the session.
namespace softnic {

class Session {
 public:
  /// @param fabric the device; @param board its counters and settings. Both outlive the session.
  Session(Fabric& fabric, Board& board);
  ~Session();

  /// Carries out what the library wrote. @return 0 or a positive errno.
  int execute(std::span<const std::uint8_t> written);
  /// What an mmap of the device at `offset` maps.
  struct Page {
    int fd = -1;  ///< -1: there is nothing
    off_t offset = 0;
  };
  [[nodiscard]] Page page(std::uint64_t offset) const noexcept;

 private:
  using Handler = int (Session::*)(Command&);
  static Handler find(const Command& command) noexcept;
  [[nodiscard]] int injected_failure(const Command& command) noexcept;

  // session.cpp: the context, protection domains, memory regions, channels
  int get_context(Command& command);
  int query_device(Command& command);
  int query_device_ex(Command& command);
  int query_port(Command& command);
  int alloc_pd(Command& command);
  int dealloc_pd(Command& command);
  int reg_mr(Command& command);
  int dereg_mr(Command& command);
  int create_comp_channel(Command& command);
  // session_cq.cpp
  int create_cq(Command& command);
  int create_cq_ex(Command& command);
  int modify_cq(Command& command);
  int resize_cq(Command& command);
  int destroy_cq(Command& command);
  template <typename Core, typename Response>
  int make_cq(Command& command, const Core& core, Response& response);
  // session_qp.cpp
  int create_qp(Command& command);
  int create_qp_ex(Command& command);
  int modify_qp(Command& command);
  int modify_qp_ex(Command& command);
  int query_qp(Command& command);
  int destroy_qp(Command& command);
  int create_rss_qp(Command& command, const struct ib_uverbs_ex_create_qp& core);
  int make_qp(Command& command, const struct ib_uverbs_ex_create_qp& core, struct ib_uverbs_create_qp_resp& response,
              struct mlx5_ib_create_qp_resp& driver_response);
  int change_qp(const struct ib_uverbs_modify_qp& core, std::uint32_t rate_kbps);
  // session_wq.cpp
  int create_wq(Command& command);
  int modify_wq(Command& command);
  int destroy_wq(Command& command);
  int create_rwq_table(Command& command);
  int destroy_rwq_table(Command& command);
  // session_flow.cpp
  int create_flow(Command& command);
  int destroy_flow(Command& command);

  void async_event(std::uint32_t type, std::uint64_t element);
  [[nodiscard]] std::uint32_t forget_async(std::uint64_t element);

  struct Channel {
    std::unique_ptr<EventPipe> pipe;
  };
  struct Limits {
    std::uint32_t send_wr = 0, receive_wr = 0, send_sge = 0, receive_sge = 0, inline_data = 0;
    bool signal_all = false;
    bool rss = false;
  };

  Fabric& fabric_;
  Board& board_;
  std::mutex commands_;  // one command at a time
  EventPipe async_;
  std::map<std::uint64_t, std::uint32_t> async_sent_;  // per element
  std::mutex async_mutex_;
  std::map<int, std::unique_ptr<EventPipe>> channels_;          // by the application's fd
  std::map<std::uint32_t, int> domains_;                        // protection domain → users
  std::map<std::uint32_t, std::uint64_t> regions_;              // key → bytes
  std::map<std::uint32_t, Limits> limits_;                      // of queue pairs
  std::map<std::uint32_t, std::vector<std::uint32_t>> tables_;  // RWQ indirection tables
  std::map<std::uint32_t, int> table_users_;
  std::map<std::uint32_t, std::uint32_t> cq_users_;
  std::map<std::uint32_t, RuleId> flows_;
  std::map<std::uint32_t, std::uint32_t> flow_queue_;  // flow → queue pair
  std::uint64_t pinned_bytes_ = 0;
  std::uint32_t next_handle_ = 1;
  bool opened_ = false;
  Nic nic_;  // last: its thread ends first
};

}  // namespace softnic
