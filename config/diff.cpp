#include "config/diff.h"

#include <tuple>

namespace vswitch {
namespace {

auto name_of(const UplinkSpec& uplink) { return std::tie(uplink.name); }
auto name_of(const PortSpec& port) { return std::tie(port.tenant, port.name); }

/// Collects the keys that differ.
template <class Spec>
class Comparison {
 public:
  Comparison(const Spec& before, const Spec& after) { change_.before = &before, change_.after = &after; }

  /// @param reopen whether what runs learns this key only when it starts
  template <class Value>
  void key(const char* name, Value Spec::*member, bool reopen) {
    if (change_.before->*member == change_.after->*member) return;
    change_.keys.emplace_back(name);
    change_.reopen = change_.reopen || reopen;
  }
  [[nodiscard]] const Change<Spec>& change() const noexcept { return change_; }

 private:
  Change<Spec> change_;
};

Change<UplinkSpec> compare(const UplinkSpec& before, const UplinkSpec& after) {
  Comparison<UplinkSpec> comparison(before, after);
  comparison.key("netdev", &UplinkSpec::netdev, true);
  comparison.key("driver", &UplinkSpec::driver, true);
  comparison.key("direct", &UplinkSpec::direct, true);
  return comparison.change();
}

// Who talks to whom stands in the table alone; offloads a port changes while frames flow. What the tenant itself sees
// of its port does not: a device's or a ring client's address, MTU and IPs. Another uplink or VLAN is another network:
// the tenant must see its link go down and come up, so that it forgets its neighbours.
Change<PortSpec> compare(const PortSpec& before, const PortSpec& after) {
  Comparison<PortSpec> comparison(before, after);
  comparison.key("uplink", &PortSpec::uplink, true);
  comparison.key("mode", &PortSpec::mode, false);
  comparison.key("mac", &PortSpec::mac, true);
  comparison.key("macs", &PortSpec::macs, false);
  comparison.key("vlan", &PortSpec::vlan, true);
  comparison.key("mtu", &PortSpec::mtu, true);
  comparison.key("trusted", &PortSpec::trusted, false);
  comparison.key("source_macs", &PortSpec::source_macs, false);
  comparison.key("nodst", &PortSpec::nodst, false);
  comparison.key("ips", &PortSpec::ips, true);
  comparison.key("offloads", &PortSpec::offloads, false);
  comparison.key("gro", &PortSpec::gro, false);
  comparison.key("attach", &PortSpec::attach, true);
  return comparison.change();
}

/// Walks two sorted lists side by side.
template <class Spec>
std::vector<Change<Spec>> compare_all(const std::vector<Spec>& before, const std::vector<Spec>& after) {
  std::vector<Change<Spec>> changes;
  auto old_one = before.begin();
  auto new_one = after.begin();
  while (old_one != before.end() || new_one != after.end()) {
    const bool gone = new_one == after.end() || (old_one != before.end() && name_of(*old_one) < name_of(*new_one));
    const bool fresh = old_one == before.end() || (new_one != after.end() && name_of(*new_one) < name_of(*old_one));
    if (gone) {
      changes.push_back({&*old_one++, nullptr, false, {}});
    } else if (fresh) {
      changes.push_back({nullptr, &*new_one++, false, {}});
    } else {
      Change<Spec> change = compare(*old_one++, *new_one++);
      if (!change.keys.empty()) changes.push_back(std::move(change));
    }
  }
  return changes;
}

}  // namespace

SpecDiff diff(const SwitchSpec& before, const SwitchSpec& after) {
  SpecDiff result;
  result.workers = before.workers != after.workers;
  result.uplinks = compare_all(before.uplinks, after.uplinks);
  result.ports = compare_all(before.ports, after.ports);
  return result;
}

}  // namespace vswitch
