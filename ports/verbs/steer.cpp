// Which rules a steering needs, and which pair each of them feeds.

#include <algorithm>
#include <cerrno>

#include "ports/verbs/verbs_uplink.h"
#include "vswitch/base/error.h"

namespace vswitch {

using verbs::FlowRule;
using verbs::ReceivePair;

namespace {

bool of_one_tenant(const FlowRule& rule) {
  return rule.kind == FlowRule::Kind::tenant || rule.kind == FlowRule::Kind::tenant_vlan;
}

}  // namespace

std::set<FlowRule> VerbsUplink::rules_for(const Steering& wanted) const {
  std::set<FlowRule> rules;
  if (wanted.everything) {
    rules.insert({FlowRule::Kind::everything, 0, {}, {}});
    return rules;
  }
  const Mac host = running_->last ? running_->last->mac : Mac{};
  for (const Steering::Rule& rule : wanted.unicast) {
    if (rule.mac == host) continue;  // the host took the address: its frames stay its own
    rules.insert({rule.vlan != 0 ? FlowRule::Kind::tenant_vlan : FlowRule::Kind::tenant, rule.vlan, rule.mac, {}});
    for (const Mac& source : wanted.sources) {
      rules.insert({FlowRule::Kind::source_to_tenant, 0, rule.mac, source});
    }
  }
  for (const Mac& source : wanted.sources) rules.insert({FlowRule::Kind::source, 0, {}, source});
  if (!wanted.unicast.empty() || !wanted.sources.empty()) rules.insert({FlowRule::Kind::multicast, 0, {}, {}});
  return rules;
}

void VerbsUplink::steer(const Steering& wanted) {
  const Mac host = host_mac();
  for (const Steering::Rule& rule : wanted.unicast) {
    if (rule.mac == host) {
      throw Error(EADDRINUSE, "steer " + rule.mac.to_string() + " to a tenant on netdev", spec_.netdev,
                  "this is the host's own address; give the port another MAC");
    }
  }
  if (running_->opened) apply(wanted);
  running_->steering = wanted;
}

// New rules first, then the old ones go: a frame that both want is never without one.
void VerbsUplink::apply(const Steering& wanted) {
  const std::set<FlowRule> rules = rules_for(wanted);
  std::map<FlowRule, Place>& present = running_->opened->rules;
  const Steering& before = running_->steering;
  running_->memberships.change({wanted.addresses(), wanted.group_frames(), wanted.everything});
  std::vector<FlowRule> added;
  try {
    for (const FlowRule& rule : rules) {
      if (present.contains(rule)) continue;
      add_rule(rule);
      added.push_back(rule);
    }
  } catch (const Error&) {
    for (const FlowRule& rule : added) remove_rule(rule);
    running_->memberships.change({before.addresses(), before.group_frames(), before.everything});
    throw;
  }
  std::vector<FlowRule> unwanted;
  for (const auto& [rule, at] : present) {
    if (!rules.contains(rule)) unwanted.push_back(rule);
  }
  for (const FlowRule& rule : unwanted) remove_rule(rule);
  promote();
  offer_slots();
}

VerbsUplink::Place VerbsUplink::place(const FlowRule& rule) {
  auto& sets = running_->opened->sets;
  if (!of_one_tenant(rule)) return {0, &sets[0]->shared_pair()};
  const auto fewest =
      std::min_element(sets.begin(), sets.end(), [](const auto& a, const auto& b) { return a->pairs() < b->pairs(); });
  const auto worker = static_cast<std::size_t>(fewest - sets.begin());
  if (ReceivePair* pair = (*fewest)->add_pair(); pair != nullptr) return {worker, pair};
  return {worker, &(*fewest)->shared_pair()};
}

void VerbsUplink::add_rule(const FlowRule& rule) {
  const Place at = place(rule);
  try {
    at.pair->add_rule(running_->opened->device, rule);
  } catch (const Error&) {
    if (!at.pair->shared()) running_->opened->sets[at.worker]->remove_pair(at.pair);
    throw;
  }
  running_->opened->rules[rule] = at;
}

void VerbsUplink::remove_rule(const FlowRule& rule) noexcept {
  const auto found = running_->opened->rules.find(rule);
  if (found == running_->opened->rules.end()) return;
  const Place at = found->second;
  running_->opened->rules.erase(found);
  at.pair->remove_rule(rule);
  if (!at.pair->shared()) running_->opened->sets[at.worker]->remove_pair(at.pair);
}

// Tenants that share move to a pair of their own when there is room again.
void VerbsUplink::promote() noexcept {
  for (auto& [rule, at] : running_->opened->rules) {
    if (!of_one_tenant(rule) || !at.pair->shared()) continue;
    try {
      const Place fresh = place(rule);
      if (fresh.pair->shared()) return;
      fresh.pair->add_rule(running_->opened->device, rule);
      at.pair->remove_rule(rule);
      at = fresh;
    } catch (const Error&) {
      return;  // it is served as well where it is
    }
  }
}

}  // namespace vswitch
