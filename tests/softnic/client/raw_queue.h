#pragma once

#include <infiniband/verbs.h>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/softnic/client/frame.h"

/// Verbs, owned: a raw packet queue pair with buffers, and flow rules.
namespace softnic_client {

/// An int: ibv_reg_mr is a macro that mixes its flags with those of another enumeration.
inline constexpr int kLocalWrite = IBV_ACCESS_LOCAL_WRITE;

struct VerbsDelete {
  void operator()(ibv_context* p) const noexcept { ibv_close_device(p); }
  void operator()(ibv_pd* p) const noexcept { ibv_dealloc_pd(p); }
  void operator()(ibv_mr* p) const noexcept { ibv_dereg_mr(p); }
  void operator()(ibv_comp_channel* p) const noexcept { ibv_destroy_comp_channel(p); }
  void operator()(ibv_cq* p) const noexcept { ibv_destroy_cq(p); }
  void operator()(ibv_qp* p) const noexcept { ibv_destroy_qp(p); }
  void operator()(ibv_wq* p) const noexcept { ibv_destroy_wq(p); }
  void operator()(ibv_rwq_ind_table* p) const noexcept { ibv_destroy_rwq_ind_table(p); }
  void operator()(ibv_flow* p) const noexcept { ibv_destroy_flow(p); }
};
template <class T>
using Handle = std::unique_ptr<T, VerbsDelete>;

/// @throws std::system_error named `what`, where `made` is null.
template <class T>
[[nodiscard]] Handle<T> owned(T* made, const char* what);
/// Opens the only device.
[[nodiscard]] Handle<ibv_context> open_device();
/// The next asynchronous event, acknowledged. nullopt: none came.
[[nodiscard]] std::optional<ibv_event_type> next_event(ibv_context* context, int timeout_ms);
/// Whether an event of this type comes; others before it are passed over.
[[nodiscard]] bool event_comes(ibv_context* context, ibv_event_type type);

/// A flow rule being written.
class Rule {
 public:
  explicit Rule(ibv_flow_attr_type type = IBV_FLOW_ATTR_NORMAL);
  Rule& priority(std::uint16_t value);
  Rule& dont_trap();
  Rule& to(const Mac& mac);
  Rule& tag(std::uint32_t value);
  Rule& drop();
  /// With a VLAN tag of that number.
  Rule& to(const Mac& mac, std::uint16_t vlan);
  /// Any specification of <infiniband/verbs.h>, with its type and size filled in.
  template <class Spec>
  Rule& add(Spec spec, ibv_flow_spec_type type) {
    spec.type = type;
    spec.size = sizeof spec;
    return append(&spec, sizeof spec);
  }
  /// @return null and errno where it is refused.
  [[nodiscard]] Handle<ibv_flow> create(ibv_qp* qp);

 private:
  Rule& append(const void* spec, std::size_t bytes);
  ibv_flow_attr attr_{};
  std::vector<std::uint8_t> specs_;
};

struct QueueOptions {
  std::uint32_t send_requests = 64;
  std::uint32_t receive_requests = 64;
  int send_entries = 64;
  int receive_entries = 64;
  bool channel = false;
  std::uint64_t completion_fields = 0;  ///< IBV_WC_EX_...; an extended receive completion queue
  std::uint32_t create_flags = 0;       ///< IBV_QP_CREATE_...
  std::uint64_t send_operations = 0;    ///< IBV_QP_EX_WITH_...
  std::uint16_t tso_header = 0;         ///< most header bytes of a TSO request
  int access = kLocalWrite;             ///< to its buffers
  std::uint32_t buffer_bytes = 2048;
};

struct Received {
  ibv_wc_status status;
  unsigned flags;  ///< IBV_WC_...
  std::uint16_t vlan;
  std::uint32_t tag;
  Frame frame;
};

/// A queue pair with a buffer for each request. Not movable: the NIC knows its addresses.
class RawQueue {
 public:
  explicit RawQueue(ibv_context* context, const QueueOptions& options = {});
  RawQueue(const RawQueue&) = delete;
  RawQueue& operator=(const RawQueue&) = delete;

  /// RESET → INIT → RTR → RTS, with all receive buffers posted. @return errno.
  int start();
  int modify(ibv_qp_state state);
  [[nodiscard]] ibv_qp_state state() const;
  /// Takes frames for `mac` from now on.
  void take(const Mac& mac) { take(Rule().to(mac)); }
  void take(Rule& rule);

  /// Copies the frame to the next send buffer. @return its address, valid as long as the requests of one round.
  [[nodiscard]] std::uint8_t* stage(const Frame& frame);
  /// @return errno of ibv_post_send.
  int post(const Frame& frame, unsigned flags = IBV_SEND_SIGNALED);
  int post_segment(std::uint64_t address, std::uint32_t bytes, std::uint32_t key);
  int post_buffer(std::uint32_t slot);
  /// The next completion of a send.
  [[nodiscard]] std::optional<ibv_wc_status> completed();
  /// Posts and waits.
  [[nodiscard]] std::optional<ibv_wc_status> send(const Frame& frame, unsigned flags = IBV_SEND_SIGNALED);
  /// The next received frame, or error; its buffer is posted again after success.
  [[nodiscard]] std::optional<Received> receive(int timeout_ms);
  /// Waits for a frame. @return its fill byte (see plain()), -1 where none came.
  [[nodiscard]] int receive_fill();
  /// Whether nothing comes for a while.
  [[nodiscard]] bool quiet();

  Handle<ibv_pd> pd;
  std::vector<std::uint8_t> memory;
  Handle<ibv_mr> mr;
  Handle<ibv_comp_channel> channel;
  Handle<ibv_cq> send_cq;
  Handle<ibv_cq> receive_cq;
  ibv_cq_ex* extended = nullptr;  ///< the receive queue, where it is one
  Handle<ibv_qp> qp;
  std::vector<Handle<ibv_flow>> flows;

 private:
  [[nodiscard]] std::optional<Received> poll();
  [[nodiscard]] Received take_over(std::uint64_t slot, ibv_wc_status status, unsigned flags, std::uint32_t bytes);
  QueueOptions options_;
  std::uint32_t staged_ = 0;
};

}  // namespace softnic_client
