#include "vswitch/core/table.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <utility>

#include "vswitch/base/error.h"

namespace vswitch {

DomainId Table::wire_domain(PortId uplink, std::uint16_t vlan) const noexcept {
  if (vlan != 0) {
    const auto key = std::pair(uplink, vlan);
    const auto less = [](const VlanDomain& a, const std::pair<PortId, std::uint16_t>& b) {
      return std::pair(a.uplink, a.vlan) < b;
    };
    const auto found = std::lower_bound(vlan_domains_.begin(), vlan_domains_.end(), key, less);
    if (found != vlan_domains_.end() && found->uplink == uplink && found->vlan == vlan) return found->domain;
  }
  return ports_[uplink].domain;
}

SourceMatch Table::sources(DomainId domain, std::uint64_t mac) const noexcept {
  const std::uint64_t key = key_of(domain, mac);
  const auto less = [](const SourceEntry& a, std::uint64_t b) { return a.key < b; };
  const auto found = std::lower_bound(source_index_.begin(), source_index_.end(), key, less);
  return found != source_index_.end() && found->key == key ? found->match : SourceMatch{};
}

TableBuilder& TableBuilder::add_uplink(PortId id, std::string name, Port& port, std::uint32_t mtu) {
  uplinks_.push_back({id, std::move(name), &port, mtu});
  return *this;
}

TableBuilder& TableBuilder::add_tenant(PortId id, const PortSpec& spec, PortId uplink, Port& port) {
  tenants_.push_back({id, spec, uplink, &port});
  return *this;
}

/// The table while it grows; one per build().
class TableBuilder::Build {
 public:
  explicit Build(const TableBuilder& from) : from_(from), table_(std::make_unique<Table>(from.workers_)) {
    std::size_t ports = 0;
    for (const Uplink& uplink : from.uplinks_) ports = std::max<std::size_t>(ports, uplink.id + 1U);
    for (const Tenant& tenant : from.tenants_) ports = std::max<std::size_t>(ports, tenant.id + 1U);
    table_->ports_.resize(ports);
    table_->names_.resize(ports);
    table_->queues_.resize(ports * from.workers_, nullptr);
    table_->poll_index_.resize(ports, 0);
    table_->domains_.resize(1);
  }

  std::unique_ptr<const Table> run() {
    static std::atomic<std::uint64_t> last_serial{0};
    table_->serial_ = ++last_serial;
    for (const Uplink& uplink : from_.uplinks_) add(uplink);
    for (const Tenant& tenant : from_.tenants_) add(tenant);
    index_macs();
    form_groups();
    index_sources();
    std::sort(table_->vlan_domains_.begin(), table_->vlan_domains_.end(),
              [](const auto& a, const auto& b) { return std::pair(a.uplink, a.vlan) < std::pair(b.uplink, b.vlan); });
    return std::move(table_);
  }

 private:
  static constexpr std::uint32_t frame_bytes(std::uint32_t mtu) {
    return mtu +
           static_cast<std::uint32_t>(kEthernetHeaderBytes + kVlanTagBytes);  // as veth and macvlan do: a tag is free
  }

  void enter(PortId id, std::string name, Port& port) {
    table_->names_[id] = std::move(name);
    for (std::size_t w = 0; w < from_.workers_; ++w) {
      Queue& queue = port.queue(w);
      table_->queues_[id * from_.workers_ + w] = &queue;
      PollPlan& plan = table_->poll_[w];
      table_->poll_index_[id] = static_cast<std::uint32_t>(plan.states.size());
      plan.hot.push_back(table_->poll_index_[id]);
      plan.states.push_back({.queue = &queue, .port = id});
    }
  }

  void add(const Uplink& uplink) {
    enter(uplink.id, uplink.name, *uplink.port);
    const DomainId domain = domain_of(uplink.id, 0);
    table_->ports_[uplink.id] = {.present = true,
                                 .is_uplink = true,
                                 .domain = domain,
                                 .uplink = uplink.id,
                                 .max_frame = frame_bytes(uplink.mtu)};
  }

  void add(const Tenant& tenant) {
    const PortSpec& spec = tenant.spec;
    enter(tenant.id, spec.full_name(), *tenant.port);
    const DomainId domain = domain_of(tenant.uplink, spec.vlan);
    table_->ports_[tenant.id] = {.present = true,
                                 .check_source = !spec.trusted && spec.mode != Mode::passthru,
                                 .access = spec.vlan != 0,
                                 .gro = spec.gro,
                                 .mode = spec.mode,
                                 .domain = domain,
                                 .uplink = tenant.uplink,
                                 .max_frame = frame_bytes(spec.mtu),
                                 .mac = mac_bits(spec.mac)};
    members_[domain].push_back(tenant.id);
    keys_.push_back({Table::key_of(domain, mac_bits(spec.mac)), tenant.id});
    for (const Mac& mac : spec.macs) keys_.push_back({Table::key_of(domain, mac_bits(mac)), tenant.id});
    for (const Mac& mac : spec.source_macs) {
      SourcePorts& match = sources_[Table::key_of(domain, mac_bits(mac))];
      match.ports.push_back(tenant.id);
      match.consumed |= spec.nodst;
    }
  }

  DomainId domain_of(PortId uplink, std::uint16_t vlan) {
    const auto [place, fresh] = domain_ids_.try_emplace({uplink, vlan}, static_cast<DomainId>(table_->domains_.size()));
    if (fresh) {
      table_->domains_.push_back({.uplink = uplink, .vlan = vlan});
      if (vlan != 0) table_->vlan_domains_.push_back({uplink, vlan, place->second});
    }
    return place->second;
  }

  /// At most a quarter full: a miss, which is what every frame for the wire is, takes 1.4 probes on average.
  void index_macs() {
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(keys_.size() * 4, 2));
    table_->slots_.assign(size, {});
    table_->mask_ = size - 1;
    table_->shift_ = 64 - static_cast<unsigned>(std::countr_zero(size));
    for (const auto& [key, port] : keys_) {
      std::size_t i = table_->slot_of(key);
      while (table_->slots_[i].key != 0 && table_->slots_[i].key != key) i = (i + 1) & table_->mask_;
      if (table_->slots_[i].key == key) {
        throw Error(0, "port", table_->names_[port],
                    "has the MAC of port " + table_->names_[table_->slots_[i].port] + " on the same uplink and VLAN");
      }
      table_->slots_[i] = {key, port};
    }
  }

  GroupId group_of(std::vector<PortId> ports) {
    if (ports.empty()) return 0;
    const auto [place, fresh] = group_ids_.try_emplace(ports, static_cast<GroupId>(table_->groups_.size()));
    if (fresh) {
      table_->groups_.push_back(
          {static_cast<std::uint32_t>(table_->members_.size()), static_cast<std::uint32_t>(ports.size())});
      table_->members_.insert(table_->members_.end(), ports.begin(), ports.end());
    }
    return place->second;
  }

  void form_groups() {
    for (const auto& member : members_) {
      const std::vector<PortId>& ports = member.second;
      Domain& domain = table_->domains_[member.first];
      const auto pick = [&](auto wanted) {
        std::vector<PortId> picked;
        std::copy_if(ports.begin(), ports.end(), std::back_inserter(picked),
                     [&](PortId port) { return wanted(table_->ports_[port].mode); });
        return group_of(std::move(picked));
      };
      domain.bridge = pick([](Mode m) { return m == Mode::bridge; });
      domain.vepa = pick([](Mode m) { return m == Mode::vepa; });
      domain.bridge_vepa = pick([](Mode m) { return m == Mode::bridge || m == Mode::vepa; });
      domain.listeners = pick([](Mode m) { return m != Mode::source; });
      for (const PortId port : ports) {
        const Mode mode = table_->ports_[port].mode;
        domain.has_sources |= mode == Mode::source;
        domain.has_private |= mode == Mode::private_;
        domain.by_address &= mode != Mode::source && mode != Mode::private_ && mode != Mode::passthru;
        if (mode != Mode::passthru) continue;
        if (ports.size() > 1)
          throw Error(0, "port", table_->names_[port], "is passthru and must be alone on its uplink and VLAN");
        domain.passthru = port;
      }
    }
  }

  void index_sources() {
    for (auto& [key, match] : sources_) {
      table_->source_index_.push_back({key, {group_of(std::move(match.ports)), match.consumed}});
    }
  }

  struct SourcePorts {
    std::vector<PortId> ports;
    bool consumed = false;
  };
  const TableBuilder& from_;
  std::unique_ptr<Table> table_;
  std::map<std::pair<PortId, std::uint16_t>, DomainId> domain_ids_;
  std::map<DomainId, std::vector<PortId>> members_;
  std::map<std::vector<PortId>, GroupId> group_ids_;
  std::map<std::uint64_t, SourcePorts> sources_;  // by key: the index comes out sorted
  std::vector<std::pair<std::uint64_t, PortId>> keys_;
};

std::unique_ptr<const Table> TableBuilder::build() const { return Build(*this).run(); }

}  // namespace vswitch
