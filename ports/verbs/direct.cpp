// Which tenants' memory the device uses by itself.

#include <utility>

#include "ports/verbs/verbs_uplink.h"
#include "vswitch/base/error.h"

namespace vswitch {

using verbs::DirectMemory;
using verbs::FlowRule;
using verbs::QueueSet;
using verbs::ReceivePair;

std::uint32_t VerbsUplink::receive_bytes() const noexcept {
  return spec_.direct ? verbs::stride_for(running_->mtu) * ReceivePair::kSlots : 0;
}

void VerbsUplink::arena_came(const Arena& arena) noexcept {
  if (!spec_.direct || !running_->opened) return;
  running_->opened->direct.add(arena);
  offer_slots();
}

// A pair that receives directly has slots posted that nothing takes back but its end. Where there is no room for
// another one its rule goes to the shared pair, until promote().
void VerbsUplink::free_slots(const ReceivePair* pair) {
  for (auto& [rule, at] : running_->opened->rules) {
    if (at.pair != pair) continue;
    QueueSet& set = *running_->opened->sets[at.worker];
    try {
      at.pair = set.replace_pair(pair);
    } catch (const Error&) {
      set.shared_pair().add_rule(running_->opened->device, rule);
      set.remove_pair(at.pair);
      at.pair = &set.shared_pair();
    }
    return;
  }
}

void VerbsUplink::arena_goes(const Arena& arena) noexcept {
  if (!running_->opened) return;
  DirectMemory::Withdrawn withdrawn = running_->opened->direct.withdraw(arena);
  try {
    if (withdrawn.slots && withdrawn.slots->user() != nullptr) free_slots(withdrawn.slots->user());
    if (!withdrawn.sends) return;
    for (const auto& set : running_->opened->sets) set->finish_kept();
  } catch (const Error& error) {
    running_->opened->direct.keep(std::move(withdrawn));  // workers and device still use it until all is closed
    lose_device(error.what());
  }
}

std::string VerbsUplink::how(const Arena& arena) const {
  if (!spec_.direct) return "staged: uplink " + spec_.name + " has \"direct\": false";
  if (!running_->opened) return "staged: uplink " + spec_.name + " has lost its device";
  return running_->opened->direct.how(arena);
}

// Frames come directly where a queue pair is the tenant's alone. To be called when pairs or arenas have changed.
void VerbsUplink::offer_slots() noexcept {
  if (!spec_.direct) return;
  for (const Arena* arena : context_.arenas.present()) {
    if (arena->uplink != spec_.name) continue;
    FlowRule rule;
    rule.kind = arena->vlan != 0 ? FlowRule::Kind::tenant_vlan : FlowRule::Kind::tenant;
    rule.vlan = arena->vlan;
    rule.mac = arena->mac;
    const auto found = running_->opened->rules.find(rule);
    if (found == running_->opened->rules.end()) {
      running_->opened->direct.offer(*arena, 0, nullptr, "no rule of the device is for the port alone");
    } else if (found->second.pair->shared()) {
      running_->opened->direct.offer(*arena, 0, nullptr, "it shares a queue pair");
    } else {
      running_->opened->direct.offer(*arena, found->second.worker, found->second.pair, "");
    }
  }
}

}  // namespace vswitch
