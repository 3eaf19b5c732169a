#include "config/addresses.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace vswitch {
namespace {

using nlohmann::json;

constexpr std::uint32_t kMinMtuOfIpv6 = 1280;  // RFC 8200, section 5

/// `prefix` with the bits behind its length cleared.
IpAddress network_of(const IpPrefix& prefix) {
  IpAddress network = prefix.address;
  for (std::size_t bit = prefix.prefix_length; bit < network.length * std::size_t{8}; ++bit) {
    network.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> bit % 8));
  }
  return network;
}

bool contains(const IpPrefix& prefix, const IpAddress& address) {
  return prefix.address.length == address.length && network_of({address, prefix.prefix_length}) == network_of(prefix);
}

bool in(const IpAddress& address, const char* prefix) { return contains(*IpPrefix::parse(prefix), address); }

/// What keeps `address` from being the address of a device; empty if nothing.
const char* unusable(const IpAddress& address) {
  if (in(address, "0.0.0.0/8") || in(address, "::/128")) return "the unspecified address";
  if (in(address, "127.0.0.0/8") || in(address, "::1/128")) return "the loopback address";
  if (in(address, "224.0.0.0/4") || in(address, "ff00::/8")) return "the multicast address";
  if (in(address, "255.255.255.255/32")) return "the broadcast address";
  return "";
}

bool is_link_local(const IpAddress& address) { return in(address, "fe80::/10"); }

/// Says whether the kernel would find a way to the gateway `via` on the device itself.
bool on_link(const IpAddress& via, const std::vector<IpPrefix>& ips, const std::vector<RouteSpec>& earlier) {
  if (is_link_local(via)) return true;
  if (std::any_of(ips.begin(), ips.end(), [&](const IpPrefix& ip) { return contains(ip, via); })) return true;
  return std::any_of(earlier.begin(), earlier.end(),
                     [&](const RouteSpec& route) { return route.to && !route.via && contains(*route.to, via); });
}

/// The problem of a destination; nullopt if there is none.
std::optional<std::string> problem_of_destination(const std::string& text, const std::optional<IpPrefix>& to) {
  if (!to) return "expected \"default\" or a network such as \"203.0.113.0/24\", found " + in_quotes(text);
  const IpPrefix network{network_of(*to), to->prefix_length};
  if (network == *to) return std::nullopt;
  return "expected a network such as " + in_quotes(network.to_string()) + ", found the address " + in_quotes(text);
}

int family_of(const RouteSpec& route) { return route.to ? route.to->address.family() : route.via->family(); }

/// Reads one route, whose parts are strings. nullopt after a problem.
std::optional<RouteSpec> read_route(const json& route, const std::string& pointer, const std::vector<IpPrefix>& ips,
                                    const std::vector<RouteSpec>& earlier, Problems& problems) {
  RouteSpec spec;
  const auto& to = route.at("to").get_ref<const std::string&>();
  if (to != "default") {
    spec.to = IpPrefix::parse(to);
    if (const auto problem = problem_of_destination(to, spec.to)) {
      problems.add(child(pointer, "to"), *problem);
      return std::nullopt;
    }
  }
  if (!route.contains("via")) {
    if (spec.to) return spec;
    problems.add(pointer, "expected the key \"via\" with \"default\", found none");
    return std::nullopt;
  }
  const auto& via = route["via"].get_ref<const std::string&>();
  const std::string place = child(pointer, "via");
  spec.via = IpAddress::parse(via);
  if (!spec.via || *unusable(*spec.via) != '\0') {
    problems.add(place, "expected the IP address of a gateway, found " + in_quotes(via));
  } else if (spec.to && spec.to->address.family() != spec.via->family()) {
    problems.add(place, "expected a gateway of the same family as " + in_quotes(to) + ", found " + in_quotes(via));
  } else if (!on_link(*spec.via, ips, earlier)) {
    problems.add(place, "expected a gateway in a network of the port's ips, found " + in_quotes(via));
  } else {
    return spec;
  }
  return std::nullopt;
}

}  // namespace

std::vector<IpPrefix> read_ips(const json& ips, const std::string& pointer, std::uint32_t mtu, Problems& problems) {
  std::vector<IpPrefix> result;
  for (std::size_t i = 0; i < ips.size(); ++i) {
    const auto& text = ips[i].get_ref<const std::string&>();
    const std::string place = child(pointer, i);
    const std::optional<IpPrefix> ip = IpPrefix::parse(text);
    if (!ip) {
      problems.add(place,
                   "expected an IP address with prefix length such as \"198.18.0.11/24\" or \"fd00::11/64\", "
                   "found " +
                       in_quotes(text));
      continue;
    }
    if (const char* const kind = unusable(ip->address); *kind != '\0') {
      problems.add(place, std::string("expected the IP address of a port, found ") + kind + " " + in_quotes(text));
    } else if (ip->address.is_v6() && mtu != 0 && mtu < kMinMtuOfIpv6) {
      problems.add(place, "expected an mtu of at least 1280 with IPv6 addresses, found " + std::to_string(mtu));
    }
    result.push_back(*ip);
  }
  return result;
}

std::vector<RouteSpec> read_routes(const json& routes, const std::string& pointer, const std::vector<IpPrefix>& ips,
                                   Problems& problems) {
  std::vector<RouteSpec> result;
  for (std::size_t i = 0; i < routes.size(); ++i) {
    const std::string place = child(pointer, i);
    const auto route = read_route(routes[i], place, ips, result, problems);
    if (!route) continue;
    const bool again = std::any_of(result.begin(), result.end(), [&](const RouteSpec& other) {
      return other.to == route->to && family_of(other) == family_of(*route);
    });
    if (again) {
      problems.add(place, "expected each destination once, found " + routes[i]["to"].dump() + " again");
    }
    result.push_back(*route);
  }
  return result;
}

}  // namespace vswitch
