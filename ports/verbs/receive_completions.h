#pragma once
#include <infiniband/verbs.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"

namespace vswitch::verbs {

/// The completion queue of all of a worker's receive pairs, with its channel: through the extended interface
/// (ibv_create_cq_ex(3)) where the device has it; else through the plain one, which knows of no VLAN tags.
///
/// The worker's, but for what only asks how it was made.
class ReceiveCompletions {
 public:
  struct Completion {
    std::uint64_t wr_id = 0;
    std::uint32_t length = 0;  ///< bytes
    std::uint32_t flags = 0;   ///< enum ibv_wc_flags
    std::uint16_t tci = 0;     ///< of the tag that the device took out; 0: none
    ibv_wc_status status = IBV_WC_SUCCESS;
  };

  /// Control thread. @param strips_vlan the device takes tags out, and can tell them if its completion queues are
  /// extended. Throws Error.
  ReceiveCompletions(const Device& device, std::uint32_t entries, bool strips_vlan);

  [[nodiscard]] ibv_cq* cq() const noexcept { return extended_ ? ibv_cq_ex_to_cq(extended_.get()) : plain_.get(); }
  [[nodiscard]] int channel_fd() const noexcept { return channel_->fd; }
  [[nodiscard]] bool extended() const noexcept { return extended_ != nullptr; }
  [[nodiscard]] bool tells_vlan() const noexcept { return tells_vlan_; }

  /// Gives up to `most` completions to `take`, oldest first. @return how many there were
  template <class Take>
  [[gnu::always_inline]] inline std::size_t poll(std::size_t most, const Take& take) noexcept {
    return extended_ ? poll_extended(most, take) : poll_plain(most, take);
  }
  /// Asks for an event at the next completion. @return false: the device refused
  [[nodiscard]] bool request_event() noexcept { return ibv_req_notify_cq(cq(), 0) == 0; }
  /// Takes all events. @return there were some
  bool drain_events() noexcept;

 private:
  template <class Take>
  [[gnu::always_inline]] inline std::size_t poll_extended(std::size_t most, const Take& take) noexcept;
  template <class Take>
  std::size_t poll_plain(std::size_t most, const Take& take) noexcept;

  Verbs<ibv_comp_channel> channel_;
  Verbs<ibv_cq_ex> extended_;  // one of both
  Verbs<ibv_cq> plain_;
  bool tells_vlan_;
};

template <class Take>
inline std::size_t ReceiveCompletions::poll_extended(std::size_t most, const Take& take) noexcept {
  ibv_cq_ex* const cq = extended_.get();
  ibv_poll_cq_attr none{};
  if (most == 0 || ibv_start_poll(cq, &none) != 0) return 0;
  std::size_t polled = 0;
  do {
    Completion completion;
    completion.wr_id = cq->wr_id;
    completion.status = cq->status;
    if (completion.status == IBV_WC_SUCCESS) [[likely]] {
      completion.length = ibv_wc_read_byte_len(cq);
      completion.flags = ibv_wc_read_wc_flags(cq);
      if (tells_vlan_) completion.tci = ibv_wc_read_cvlan(cq);
    }
    take(completion);
    ++polled;
  } while (polled < most && ibv_next_poll(cq) == 0);
  ibv_end_poll(cq);
  return polled;
}

template <class Take>
std::size_t ReceiveCompletions::poll_plain(std::size_t most, const Take& take) noexcept {
  std::array<ibv_wc, 16> some;
  std::size_t polled = 0;
  while (polled < most) {
    const auto wanted = static_cast<int>(std::min(most - polled, some.size()));
    const int count = ibv_poll_cq(plain_.get(), wanted, some.data());
    for (int i = 0; i < count; ++i) {
      const ibv_wc& one = some[static_cast<std::size_t>(i)];
      take(Completion{one.wr_id, one.byte_len, one.wc_flags, 0, one.status});
      ++polled;
    }
    if (count < wanted) break;
  }
  return polled;
}

}  // namespace vswitch::verbs
