#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"
#include "ports/verbs/receive_pair.h"
#include "ports/verbs/receive_slots.h"
#include "vswitch/base/quiescence.h"
#include "vswitch/core/arena.h"

namespace vswitch::verbs {

/// Memory that the device may read frames from.
struct SendRegion {
  const std::byte* first = nullptr;
  std::size_t bytes = 0;
  std::uint32_t key = 0;
  /// All of [at, at + length) lies in it.
  [[nodiscard]] bool holds(const std::byte* at, std::size_t length) const noexcept {
    const auto offset = static_cast<std::size_t>(at - first);
    return at >= first && offset < bytes && length <= bytes - offset;
  }
};

/// By address.
using SendRegions = std::vector<SendRegion>;

/// The arenas of tenants, registered with the device, each as long as its tenant is attached. Control thread, but for
/// what is said.
class DirectMemory {
 public:
  /// @param stride bytes of a receive buffer
  DirectMemory(const Device& device, std::uint32_t stride, Quiescence& quiescence);

  /// Registers what the tenant sends from. A failure is remembered: its frames are copied.
  void add(const Arena& arena) noexcept;
  /// Lets `pair`, of worker `worker`, receive into the arena, if it does not yet. Its own pair and no other's: nullptr,
  /// and `why_not`, if the tenant has none.
  void offer(const Arena& arena, std::size_t worker, ReceivePair* pair, const std::string& why_not) noexcept;

  /// What was registered of an arena: to be kept until the device uses it no more.
  struct Withdrawn {
    Verbs<ibv_mr> sends;
    std::unique_ptr<ReceiveSlots> slots;
  };
  /// No worker finds it any more to send from it.
  [[nodiscard]] Withdrawn withdraw(const Arena& arena) noexcept;
  /// Keeps it as long as this.
  void keep(Withdrawn withdrawn) { kept_.push_back(std::move(withdrawn)); }
  /// "direct", or which frames are staged and why.
  [[nodiscard]] std::string how(const Arena& arena) const;

  /// Worker: where frames may be sent from, until its next quiescent state.
  [[nodiscard]] const SendRegions& regions() const noexcept { return *published_.load(); }

 private:
  struct Entry {
    Verbs<ibv_mr> sends;
    std::string why_not_sends;
    std::unique_ptr<ReceiveSlots> slots;
    std::size_t worker = 0;  ///< whose part of the arena `slots` are
    std::string why_not_slots;
  };
  void publish();

  const Device& device_;
  const std::uint32_t stride_;
  Quiescence& quiescence_;
  std::map<const Arena*, Entry> arenas_;
  std::vector<Withdrawn> kept_;
  std::unique_ptr<const SendRegions> regions_;
  Published<const SendRegions> published_;
};

}  // namespace vswitch::verbs
