#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vswitch/base/clock.h"
#include "vswitch/core/port.h"
#include "vswitch/core/spec.h"

// The steering table: an immutable snapshot of all ports, built by the control thread and read by every worker.
//
// Ports of one uplink and one VLAN form a domain, exactly as macvlan children of one lower device do (an access port on
// VLAN 100 of "eth0" behaves like a macvlan child of "eth0.100"). The key of the MAC table is (domain, MAC) in one
// 64-bit number.

namespace vswitch {

/// Stable for the life of a port; reused after it is gone.
using PortId = std::uint16_t;
inline constexpr PortId kNoPort = 0xffff;
inline constexpr std::size_t kMaxPorts = 8192;

using DomainId = std::uint16_t;  ///< 0 is no domain
using GroupId = std::uint16_t;   ///< 0 is the empty group

/// One port as the datapath sees it.
struct PortEntry {
  bool present = false;
  bool is_uplink = false;
  bool check_source = false;  ///< a tenant's frames must carry one of its MACs
  bool access = false;        ///< VLAN access port: tagged frames are refused
  bool gro = false;           ///< of a tenant port: PortSpec::gro
  Mode mode = Mode::bridge;
  DomainId domain = 0;          ///< of an uplink: the domain of frames whose VLAN no access port claims
  PortId uplink = kNoPort;      ///< of a tenant port: where the wire is
  std::uint32_t max_frame = 0;  ///< bytes of the longest non-GSO frame, Ethernet header and inline tags included
  std::uint64_t mac = 0;        ///< mac_bits of the port's first MAC
};

/// One broadcast domain: the ports that share an uplink and a VLAN.
struct Domain {
  PortId uplink = kNoPort;
  std::uint16_t vlan = 0;
  PortId passthru = kNoPort;
  bool has_sources = false;  ///< some port is in source mode
  bool has_private = false;
  bool by_address = true;   ///< none of these, no passthru port: the destination MAC alone says who gets a wire frame
  GroupId bridge = 0;       ///< ports in mode bridge
  GroupId vepa = 0;         ///< ports in mode vepa
  GroupId bridge_vepa = 0;  ///< both
  GroupId listeners = 0;    ///< all but source mode: who hears the wire's multicast
};

/// Whose frames a source-mode port gets.
struct SourceMatch {
  GroupId ports = 0;      ///< source-mode ports that list the MAC
  bool consumed = false;  ///< one of them has nodst: nobody else gets the frame
};

/// What a worker remembers of a queue it polls. Written by that worker only.
struct PollState {
  Queue* queue = nullptr;
  PortId port = kNoPort;
  bool hot = true;           ///< polled each step; else armed and waiting for its descriptor
  std::uint8_t skip = 0;     ///< steps to pass over: the price of bursts that were mostly dropped
  std::uint8_t penalty = 0;  ///< current length of such a pause, a power of two
  Nanoseconds last_work = 0;
};

/// The queues one worker polls. Sized by the builder, so that the worker never allocates.
struct PollPlan {
  std::vector<PollState> states;   ///< every queue of this worker
  std::vector<std::uint32_t> hot;  ///< indexes of the states that are hot; capacity for all
};

class Table {
 public:
  explicit Table(std::size_t workers) : workers_(workers), poll_(workers) {}

  /// Different for every table of this process, also for two that follow each other at one address.
  [[nodiscard]] std::uint64_t serial() const noexcept { return serial_; }
  [[nodiscard]] const PortEntry& port(PortId id) const noexcept { return ports_[id]; }
  [[nodiscard]] std::size_t port_slots() const noexcept { return ports_.size(); }
  [[nodiscard]] const std::string& name(PortId id) const noexcept { return names_[id]; }
  /// nullptr where no port has that id.
  [[nodiscard]] Queue* queue(PortId id, std::size_t worker) const noexcept { return queues_[id * workers_ + worker]; }
  [[nodiscard]] const Domain& domain(DomainId id) const noexcept { return domains_[id]; }
  [[nodiscard]] std::span<const PortId> group(GroupId id) const noexcept {
    return {members_.data() + groups_[id].first, groups_[id].count};
  }

  /// The port with that MAC (mac_bits) in that domain, or kNoPort.
  [[nodiscard]] PortId find(DomainId domain, std::uint64_t mac) const noexcept {
    const std::uint64_t key = key_of(domain, mac);
    for (std::size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].port;
      if (slots_[i].key == 0) return kNoPort;
    }
  }
  /// The domain of a frame that `uplink` received with that VLAN ID (0: untagged).
  [[nodiscard]] DomainId wire_domain(PortId uplink, std::uint16_t vlan) const noexcept;
  /// Source-mode ports of `domain` that list `mac`.
  [[nodiscard]] SourceMatch sources(DomainId domain, std::uint64_t mac) const noexcept;

  /// Worker `w`'s own notes about its queues; not part of the snapshot's value.
  [[nodiscard]] PollPlan& poll(std::size_t w) const noexcept { return poll_[w]; }
  /// Where in PollPlan::states a port stands; the port must be present.
  [[nodiscard]] std::uint32_t poll_index(PortId id) const noexcept { return poll_index_[id]; }

 private:
  friend class TableBuilder;
  struct Slot {
    std::uint64_t key = 0;  ///< 0: empty; a key is never 0 because domain 0 is none
    PortId port = kNoPort;
  };
  struct Group {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
  };
  struct VlanDomain {
    PortId uplink;
    std::uint16_t vlan;
    DomainId domain;
  };
  struct SourceEntry {
    std::uint64_t key;
    SourceMatch match;
  };

  static std::uint64_t key_of(DomainId domain, std::uint64_t mac) noexcept { return std::uint64_t{domain} << 48 | mac; }
  /// Fibonacci hashing: the upper bits of a product with 2^64 / golden ratio.
  [[nodiscard]] std::size_t slot_of(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9e37'79b9'7f4a'7c15ULL) >> shift_);
  }

  std::uint64_t serial_ = 0;
  std::size_t workers_;
  std::size_t mask_ = 0;
  unsigned shift_ = 63;
  std::vector<Slot> slots_ = std::vector<Slot>(2);
  std::vector<PortEntry> ports_;
  std::vector<Queue*> queues_;
  std::vector<Domain> domains_;
  std::vector<Group> groups_ = std::vector<Group>(1);
  std::vector<PortId> members_;
  std::vector<VlanDomain> vlan_domains_;   ///< sorted; access VLANs only
  std::vector<SourceEntry> source_index_;  ///< sorted by key
  std::vector<std::string> names_;
  std::vector<std::uint32_t> poll_index_;
  mutable std::vector<PollPlan> poll_;
};

/// Collects ports, then builds a Table. Control thread only.
class TableBuilder {
 public:
  explicit TableBuilder(std::size_t workers) : workers_(workers) {}

  /// @param port must be started; its queues go into the table
  TableBuilder& add_uplink(PortId id, std::string name, Port& port, std::uint32_t mtu);
  /// @param spec mtu must be filled in; `uplink` must have been added before
  TableBuilder& add_tenant(PortId id, const PortSpec& spec, PortId uplink, Port& port);
  /// Throws Error when two ports claim the same (uplink, VLAN, MAC) or a passthru port is not alone.
  [[nodiscard]] std::unique_ptr<const Table> build() const;

 private:
  struct Uplink {
    PortId id;
    std::string name;
    Port* port;
    std::uint32_t mtu;
  };
  struct Tenant {
    PortId id;
    PortSpec spec;
    PortId uplink;
    Port* port;
  };
  class Build;
  std::size_t workers_;
  std::vector<Uplink> uplinks_;
  std::vector<Tenant> tenants_;
};

}  // namespace vswitch
