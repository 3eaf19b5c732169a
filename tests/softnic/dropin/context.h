#pragma once

#include <map>

#include "tests/softnic/core/board.h"
#include "tests/softnic/daemon/remote_fabric.h"
#include "tests/softnic/dropin/engine.h"
#include "tests/softnic/kernel/event_pipe.h"

namespace softnic::dropin {

/// One record of the async fd.
struct AsyncRecord {
  std::uint64_t element;
  std::uint32_t type;
  std::uint32_t zero;
};

inline constexpr std::uint32_t kVectors = 2;  ///< completion vectors
inline constexpr std::uint32_t kMaxRequests = 16384;
inline constexpr std::uint32_t kMaxPieces = 16;
inline constexpr std::uint32_t kMaxInline = 512;
inline constexpr std::uint32_t kMaxTso = 262144;
inline constexpr std::uint32_t kMaxTsoHeader = 512;
inline constexpr std::uint32_t kMaxTable = 2048;
inline constexpr std::uint32_t kMaxKbps = 100'000'000;

/// An open device: what the application holds is the last member of the base.
struct Context : verbs_context {
  explicit Context(Device& device);
  ~Context();

  [[nodiscard]] bool offers(std::uint32_t feature) const noexcept { return (board->features & feature) != 0; }
  /// The errno of the fault that is asked for one of these commands (of rdma/ib_user_verbs.h), or 0.
  [[nodiscard]] int injected(std::uint32_t command, std::uint32_t or_command = ~0U) noexcept;
  void async_event(std::uint32_t type, std::uint64_t element);

  BoardFile board;
  RemoteFabric fabric;
  EventPipe async{sizeof(AsyncRecord)};
  std::uint32_t next_handle = 1;
  std::uint64_t pinned = 0;  ///< bytes of memory regions
  Engine engine;             // last: its thread ends first
};

inline Context& context_of(ibv_context* context) noexcept { return *static_cast<Context*>(verbs_get_ctx(context)); }

/// Fills in the calls that verbs.h takes from the context, by the part of the library that has them.
void set_cq_calls(Context& context);
void set_qp_calls(Context& context);
void set_wq_calls(Context& context);
void set_flow_calls(Context& context);
void set_query_calls(Context& context);

/// With errno set, for calls that return a pointer.
inline std::nullptr_t refuse(int error) noexcept {
  errno = error;
  return nullptr;
}

/// Waits until the application has acknowledged what it took.
void wait_acknowledged(pthread_mutex_t& mutex, pthread_cond_t& changed, const std::uint32_t& acknowledged,
                       const std::uint32_t& taken);

}  // namespace softnic::dropin
