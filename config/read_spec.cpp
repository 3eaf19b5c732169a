#include "config/read_spec.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/addresses.h"
#include "config/nearest.h"
#include "config/stable_mac.h"
#include "vswitch/base/error.h"

namespace vswitch {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxSocketPath = 107;  // sun_path of unix(7) without its final zero

/// An enumerator by its word; the schema allows only words that exist.
template <class Enum>
Enum by_word(const std::string& word, std::initializer_list<Enum> all) {
  for (const Enum candidate : all) {
    if (word == to_string(candidate)) return candidate;
  }
  throw Error(0, "read", in_quotes(word), "tenants.schema.json allows a word that config/read_spec.cpp does not know");
}

Mode read_mode(const json& port) {
  return by_word(port.value("mode", to_string(Mode::bridge)),
                 {Mode::bridge, Mode::private_, Mode::vepa, Mode::passthru, Mode::source});
}

WorkersSpec read_workers(const json& workers) {
  WorkersSpec spec;
  spec.cpus = workers.value("cpus", spec.cpus);
  spec.idle = by_word(workers.value("idle", to_string(spec.idle)), {Idle::adaptive, Idle::poll, Idle::sleep});
  return spec;
}

/// `value` without the members in which there is a problem already.
json sound_part(const json& value, const std::string& pointer, const Problems& problems) {
  json sound = value;
  for (const auto& [key, unused] : value.items()) {
    if (problems.within(child(pointer, key))) sound.erase(key);
  }
  return sound;
}

UplinkSpec read_uplink(const std::string& name, const json& uplink) {
  UplinkSpec spec;
  spec.name = name;
  spec.netdev = uplink.value("netdev", spec.netdev);
  spec.driver = by_word(uplink.value("driver", to_string(spec.driver)),
                        {UplinkDriver::automatic, UplinkDriver::af_packet, UplinkDriver::verbs});
  spec.direct = uplink.value("direct", spec.direct);
  return spec;
}

Mac read_mac(const json& value, const std::string& pointer, Problems& problems) {
  const auto& text = value.get_ref<const std::string&>();
  const Mac mac = Mac::parse(text).value_or(Mac{});
  if (mac.is_zero() || mac.is_multicast()) {
    const char* const found = mac.is_zero() ? ", found the zero address" : ", found the multicast address ";
    problems.add(pointer, std::string("expected the MAC address of one station") + found +
                              (mac.is_zero() ? "" : in_quotes(text)));
  }
  return mac;
}

std::vector<Mac> read_macs(const json& port, const char* key, const std::string& pointer, Problems& problems) {
  std::vector<Mac> macs;
  if (!port.contains(key)) return macs;
  const std::string place = child(pointer, key);
  for (const json& value : port[key]) macs.push_back(read_mac(value, child(place, macs.size()), problems));
  return macs;
}

RingAttachSpec read_ring(const json& attach, const std::string& pointer, Problems& problems) {
  RingAttachSpec spec;
  spec.socket = attach.at("socket");
  if (attach.contains("uid")) spec.uid = attach["uid"].get<uid_t>();
  if (attach.contains("gid")) spec.gid = attach["gid"].get<gid_t>();
  spec.token = attach.value("token", spec.token);
  spec.queues = attach.value("queues", spec.queues);
  spec.ring_frames = attach.value("ring_frames", spec.ring_frames);
  spec.arena_bytes = attach.value("arena_bytes", spec.arena_bytes);
  if (spec.socket.size() > kMaxSocketPath) {
    problems.add(child(pointer, "socket"), "expected an absolute path of at most 107 bytes, found " +
                                               std::to_string(spec.socket.size()) + " bytes");
  }
  if (spec.socket.find('\0') != std::string::npos || spec.socket.ends_with('/')) {
    problems.add(child(pointer, "socket"), "expected the path of a socket, found " + in_quotes(spec.socket));
  }
  for (const auto& [key, size] : {std::pair("ring_frames", spec.ring_frames), {"arena_bytes", spec.arena_bytes}}) {
    if (std::has_single_bit(size)) continue;
    problems.add(child(pointer, key), "expected a power of two such as " + std::to_string(std::bit_ceil(size)) +
                                          ", found " + std::to_string(size));
  }
  return spec;
}

TapAttachSpec read_tap(const json& attach, const std::string& pointer, const std::vector<IpPrefix>& ips,
                       Problems& problems) {
  TapAttachSpec spec;
  spec.name = attach.at("name");
  spec.netns = attach.value("netns", spec.netns);
  if (attach.contains("pid")) spec.netns = "/proc/" + attach["pid"].dump() + "/ns/net";
  if (spec.netns.find('\0') != std::string::npos) {
    problems.add(child(pointer, "netns"), "expected the path of a network namespace, found " + in_quotes(spec.netns));
  }
  if (attach.contains("routes")) spec.routes = read_routes(attach["routes"], child(pointer, "routes"), ips, problems);
  return spec;
}

OffloadCaps read_offloads(const json& port, const std::string& pointer, Problems& problems) {
  const json offloads = port.value("offloads", json(true));
  if (!offloads.is_object()) return offloads.get<bool>() ? OffloadCaps::all() : OffloadCaps{};
  OffloadCaps caps;
  for (const OffloadName& kind : kOffloadNames) {
    const std::string key(kind.name);
    caps.*kind.member = offloads.value(key, true);
    if (!caps.checksum && offloads.value(key, false)) {
      problems.add_key(child(child(pointer, "offloads"), key),
                       "expected " + key + " with checksum only, found \"checksum\": false");
    }
  }
  return caps.consistent();
}

void check_mode(const json& port, const PortSpec& spec, const std::string& pointer, Problems& problems) {
  const std::string found = ", found mode " + in_quotes(to_string(spec.mode));
  if (spec.mode == Mode::source) {
    if (spec.source_macs.empty()) problems.add(pointer, "expected source_macs with mode \"source\", found none");
    return;
  }
  for (const char* const key : {"source_macs", "nodst"}) {
    if (port.contains(key)) {
      problems.add_key(child(pointer, key), std::string("expected ") + key + " with mode \"source\" only" + found);
    }
  }
}

/// The name of the port's uplink; empty after a problem.
std::string read_uplink_name(const json& port, const std::string& pointer,
                             const std::optional<std::vector<std::string>>& known, Problems& problems) {
  std::string name = port.value("uplink", "");
  if (name.empty() && !port.contains("uplink")) return name;
  if (!known || std::find(known->begin(), known->end(), name) != known->end()) return name;
  std::string text = "expected the name of an uplink, found " + in_quotes(name);
  const std::string_view meant = nearest(name, *known);
  if (!meant.empty()) {
    text += "; did you mean " + in_quotes(meant) + "?";
  } else if (known->size() == 1) {
    text += "; the only uplink is " + in_quotes(known->front());
  }
  problems.add(child(pointer, "uplink"), std::move(text));
  return {};
}

Mac derive_mac(const std::string& full_name, const std::string& pointer, Problems& problems) {
  try {
    return stable_mac(full_name);
  } catch (const Error& error) {
    problems.add(pointer, std::string("expected the key \"mac\", found none, and cannot ") + error.what());
    return {};
  }
}

class PortReader {
 public:
  /// @param uplinks names of all uplinks; nullopt: the document does not say, so no port is wrong about them
  PortReader(std::optional<std::vector<std::string>> uplinks, Problems& problems)
      : uplinks_(std::move(uplinks)), problems_(problems) {}

  PortSpec read(const std::string& tenant, const std::string& name, const json& whole) {
    const std::string pointer = port_pointer(tenant, name);
    const json port = sound_part(whole, pointer, problems_);
    const auto lacks = [&](const char* key) { return whole.contains(key) && !port.contains(key); };
    PortSpec spec;
    spec.tenant = tenant;
    spec.name = name;
    spec.uplink = read_uplink_name(port, pointer, uplinks_, problems_);
    if (lacks("vlan")) spec.uplink.clear();  // no saying whom the port shares a network with
    spec.mode = read_mode(port);
    spec.macs = read_macs(port, "macs", pointer, problems_);
    spec.vlan = port.value("vlan", spec.vlan);
    spec.mtu = port.value("mtu", spec.mtu);
    spec.trusted = port.value("trusted", spec.trusted);
    spec.source_macs = read_macs(port, "source_macs", pointer, problems_);
    spec.nodst = port.value("nodst", spec.nodst);
    spec.ips = read_ips(port.value("ips", json::array()), child(pointer, "ips"), spec.mtu, problems_);
    spec.offloads = read_offloads(port, pointer, problems_);
    spec.gro = port.value("gro", spec.gro);
    if (port.contains("attach")) read_attach(port["attach"], child(pointer, "attach"), lacks("ips"), spec);
    if (!lacks("mode") && !lacks("source_macs")) check_mode(port, spec, pointer, problems_);
    if (port.contains("mac")) {
      spec.mac = read_mac(port["mac"], child(pointer, "mac"), problems_);
    } else if (!lacks("mac")) {
      spec.mac = derive_mac(spec.full_name(), pointer, problems_);
    }
    return spec;
  }

 private:
  void read_attach(const json& attach, const std::string& pointer, bool ips_unknown, PortSpec& spec) {
    if (attach.at("kind") == "ring") {
      spec.attach = read_ring(attach, pointer, problems_);
    } else if (!ips_unknown) {
      spec.attach = read_tap(attach, pointer, spec.ips, problems_);
    }
  }

  std::optional<std::vector<std::string>> uplinks_;
  Problems& problems_;
};

/// The object at `key`, or an empty one.
const json& object_at(const json& parent, const char* key) {
  static const json empty = json::object();
  if (!parent.is_object()) return empty;
  const auto found = parent.find(key);
  return found != parent.end() && found->is_object() ? *found : empty;
}

std::optional<std::vector<std::string>> uplink_names(const json& root) {
  if (!root.is_object() || !root.contains("uplinks") || !root["uplinks"].is_object()) return std::nullopt;
  std::vector<std::string> names;
  for (const auto& [name, unused] : root["uplinks"].items()) names.push_back(name);
  return names;
}

}  // namespace

SwitchSpec read_spec(const json& root, Problems& problems) {
  SwitchSpec spec;
  if (!problems.within("/workers")) spec.workers = read_workers(object_at(root, "workers"));
  for (const auto& [name, uplink] : object_at(root, "uplinks").items()) {
    if (!uplink.is_object()) continue;
    spec.uplinks.push_back(read_uplink(name, sound_part(uplink, child("/uplinks", name), problems)));
  }
  PortReader reader(uplink_names(root), problems);
  for (const auto& [tenant, body] : object_at(root, "tenants").items()) {
    for (const auto& [name, port] : object_at(body, "ports").items()) {
      if (port.is_object()) spec.ports.push_back(reader.read(tenant, name, port));
    }
  }
  return spec;
}

}  // namespace vswitch
