#pragma once
#include <string>
#include <vector>

#include "vswitch/core/spec.h"

namespace vswitch {

/// What a reload must do about one uplink or port. Exactly one of `before` and `after` is missing when it was added or
/// removed; they point into the specs that were compared, which must outlive this.
template <class Spec>
struct Change {
  const Spec* before = nullptr;   ///< nullptr: added
  const Spec* after = nullptr;    ///< nullptr: removed
  bool reopen = false;            ///< changed: stop and start it; false: a new table and Port::permit() are enough
  std::vector<std::string> keys;  ///< changed: which keys of tenants.json, sorted as there

  [[nodiscard]] bool added() const noexcept { return before == nullptr; }
  [[nodiscard]] bool removed() const noexcept { return after == nullptr; }
};

/// What differs between two configurations; each list sorted as in the specs.
struct SpecDiff {
  bool workers = false;  ///< workers differ: only a restart changes those
  std::vector<Change<UplinkSpec>> uplinks;
  std::vector<Change<PortSpec>> ports;

  [[nodiscard]] bool empty() const noexcept { return !workers && uplinks.empty() && ports.empty(); }
};

/// Plain comparison by name. A port is not listed because its uplink changed: who applies the difference decides what
/// that means for ports. Pure; any thread.
[[nodiscard]] SpecDiff diff(const SwitchSpec& before, const SwitchSpec& after);

}  // namespace vswitch
