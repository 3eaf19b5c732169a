#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"
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
  DirectMemory(const Device& device, Quiescence& quiescence);

  /// Registers what the tenant sends from. A failure is remembered: its frames are copied.
  void add(const Arena& arena) noexcept;
  /// No worker finds it any more; the device may still be reading. @return to be kept until it is not
  [[nodiscard]] Verbs<ibv_mr> withdraw(const Arena& arena) noexcept;
  /// Why frames of the arena are copied; empty: they are not.
  [[nodiscard]] std::string why_not(const Arena& arena) const;

  /// Worker: where frames may be sent from, until its next quiescent state.
  [[nodiscard]] const SendRegions& regions() const noexcept { return *published_.load(); }

 private:
  struct Entry {
    Verbs<ibv_mr> sends;
    std::string why_not;
  };
  void publish();

  const Device& device_;
  Quiescence& quiescence_;
  std::map<const Arena*, Entry> arenas_;
  std::unique_ptr<const SendRegions> regions_;
  Published<const SendRegions> published_;
};

}  // namespace vswitch::verbs
