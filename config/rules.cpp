#include "config/rules.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace vswitch {
namespace {

/// Ports of one uplink and VLAN: what shares one MAC table.
using Domain = std::pair<std::string, std::uint16_t>;

Domain domain_of(const PortSpec& port) { return {port.uplink, port.vlan}; }

std::string describe(const Domain& domain) {
  std::string text = "uplink " + in_quotes(domain.first);
  if (domain.second != 0) text += " VLAN " + std::to_string(domain.second);
  return text;
}

std::string pointer_of(const PortSpec& port) { return port_pointer(port.tenant, port.name); }

/// Who claimed what first.
template <class Key>
class Claims {
 public:
  /// @return who claimed `key` before, or nullptr and then it is claimed for `owner`
  const std::string* claim(Key key, const std::string& owner) {
    const auto [first, fresh] = owners_.emplace(std::move(key), owner);
    return fresh ? nullptr : &first->second;
  }

 private:
  std::map<Key, std::string> owners_;
};

class Rules {
 public:
  Rules(const SwitchSpec& spec, Problems& problems) : spec_(spec), problems_(problems) {}

  void check() {
    for (const UplinkSpec& uplink : spec_.uplinks) check_netdev(uplink);
    for (const PortSpec& port : spec_.ports) {
      check_sources(port);
      if (const auto* tap = std::get_if<TapAttachSpec>(&port.attach)) check_tap(port, *tap);
      if (const auto* ring = std::get_if<RingAttachSpec>(&port.attach)) check_ring(port, *ring);
      if (port.uplink.empty()) continue;
      check_macs(port);
      check_ips(port);
    }
    check_passthru();
  }

 private:
  void check_netdev(const UplinkSpec& uplink) {
    if (uplink.netdev.empty()) return;  // reported before
    const std::string* const first = netdevs_.claim(uplink.netdev, uplink.name);
    if (first == nullptr) return;
    problems_.add(child(child("/uplinks", uplink.name), "netdev"),
                  "expected a device that no other uplink has, found " + in_quotes(uplink.netdev) + ", which uplink " +
                      in_quotes(*first) + " has");
  }

  void check_mac(const PortSpec& port, const Mac& mac, std::string place) {
    if (mac.is_zero()) return;  // reported before
    const std::string* const first = macs_.claim({domain_of(port), mac}, port.full_name());
    if (first == nullptr) return;
    problems_.add(std::move(place), "expected a MAC address that is new on " + describe(domain_of(port)) + ", found " +
                                        in_quotes(mac.to_string()) + ", which port " + in_quotes(*first) + " has");
  }

  void check_macs(const PortSpec& port) {
    check_mac(port, port.mac, child(pointer_of(port), "mac"));
    const std::string list = child(pointer_of(port), "macs");
    for (std::size_t i = 0; i < port.macs.size(); ++i) check_mac(port, port.macs[i], child(list, i));
  }

  void check_sources(const PortSpec& port) {
    const std::string sources = child(pointer_of(port), "source_macs");
    for (auto mac = port.source_macs.begin(); mac != port.source_macs.end(); ++mac) {
      if (std::find(port.source_macs.begin(), mac, *mac) == mac) continue;
      problems_.add(child(sources, static_cast<std::size_t>(mac - port.source_macs.begin())),
                    "expected each element once, found " + in_quotes(mac->to_string()) + " again");
    }
  }

  void check_ips(const PortSpec& port) {
    for (const IpPrefix& ip : port.ips) {
      const std::string* const first = ips_.claim({domain_of(port), ip.address}, port.full_name());
      if (first == nullptr) continue;
      problems_.add(child(pointer_of(port), "ips"),
                    "expected IP addresses that are new on " + describe(domain_of(port)) + ", found " +
                        in_quotes(ip.address.to_string()) + ", which port " + in_quotes(*first) + " has");
    }
  }

  void check_tap(const PortSpec& port, const TapAttachSpec& tap) {
    const std::string place = child(child(pointer_of(port), "attach"), "name");
    const std::string where = tap.netns.empty() ? "the daemon's network namespace" : in_quotes(tap.netns);
    const std::string* const first = taps_.claim({tap.netns, tap.name}, port.full_name());
    if (first != nullptr) {
      problems_.add(place, "expected a name that is new in " + where + ", found " + in_quotes(tap.name) +
                               ", which port " + in_quotes(*first) + " has");
    }
    const bool is_uplink =
        tap.netns.empty() && std::any_of(spec_.uplinks.begin(), spec_.uplinks.end(),
                                         [&](const UplinkSpec& uplink) { return uplink.netdev == tap.name; });
    if (is_uplink) {
      problems_.add(
          place, "expected a name that is new in " + where + ", found the device of an uplink " + in_quotes(tap.name));
    }
  }

  void check_ring(const PortSpec& port, const RingAttachSpec& ring) {
    if (ring.socket.empty()) return;  // reported before
    const std::string* const first = sockets_.claim(ring.socket, port.full_name());
    if (first == nullptr) return;
    problems_.add(child(child(pointer_of(port), "attach"), "socket"),
                  "expected a socket that no other port has, found " + in_quotes(ring.socket) + ", which port " +
                      in_quotes(*first) + " has");
  }

  /// A passthru port gets every frame of its domain, so nobody else can be there.
  void check_passthru() {
    std::map<Domain, std::vector<const PortSpec*>> domains;
    for (const PortSpec& port : spec_.ports) {
      if (!port.uplink.empty()) domains[domain_of(port)].push_back(&port);
    }
    for (const auto& [domain, ports] : domains) {
      if (ports.size() == 1) continue;
      for (const PortSpec* const port : ports) {
        if (port->mode != Mode::passthru) continue;
        const PortSpec* const other = ports.front() == port ? ports[1] : ports.front();
        problems_.add(child(pointer_of(*port), "mode"), "expected a passthru port to be alone on " + describe(domain) +
                                                            ", found port " + in_quotes(other->full_name()) +
                                                            " there too");
      }
    }
  }

  const SwitchSpec& spec_;
  Problems& problems_;
  Claims<std::string> netdevs_;
  Claims<std::pair<Domain, Mac>> macs_;
  Claims<std::pair<Domain, IpAddress>> ips_;
  Claims<std::pair<std::string, std::string>> taps_;
  Claims<std::string> sockets_;
};

}  // namespace

void check_rules(const SwitchSpec& spec, Problems& problems) { Rules(spec, problems).check(); }

}  // namespace vswitch
