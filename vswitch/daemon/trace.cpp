#include "vswitch/daemon/trace.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vswitch/core/decide.h"
#include "vswitch/core/vlan.h"
#include "vswitch/daemon/describe.h"

namespace vswitch {
namespace {

constexpr std::uint16_t kEtherTypeVlan = 0x8100;
constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;

std::string text_of_param(const Json& params, const char* name) {
  const auto found = params.find(name);
  if (found == params.end()) throw InvalidParams(std::string("\"") + name + "\" is missing");
  if (!found->is_string()) throw InvalidParams(std::string("\"") + name + "\" must be a string");
  return *found;
}

Mac mac_param(const Json& params, const char* name) {
  const std::string text = text_of_param(params, name);
  const std::optional<Mac> mac = Mac::parse(text);
  if (!mac) {
    throw InvalidParams(std::string("\"") + name + "\" must be a MAC address such as 02:00:00:00:00:11, not \"" + text +
                        "\"");
  }
  return *mac;
}

template <class Number>
std::optional<Number> number_param(const Json& params, const char* name, std::uint32_t least, std::uint32_t most) {
  const auto found = params.find(name);
  if (found == params.end()) return std::nullopt;
  const bool fits =
      found->is_number_unsigned() && found->get<std::uint64_t>() >= least && found->get<std::uint64_t>() <= most;
  if (!fits) {
    throw InvalidParams(std::string("\"") + name + "\" must be a number from " + std::to_string(least) + " to " +
                        std::to_string(most));
  }
  return static_cast<Number>(found->get<std::uint64_t>());
}

/// Private memory with one frame in it, made as the port's queue would lend it.
class TracedFrame {
 public:
  TracedFrame(const TraceRequest& request, const Mac& src, bool is_uplink, std::uint16_t access_vlan) {
    put(request.dst);
    put(src);
    if (request.vlan && is_uplink) {
      frame_.vlan = *request.vlan;  // uplinks take the tag out
    } else if (request.vlan) {
      put(kEtherTypeVlan);
      put(*request.vlan);
    }
    put(request.ethertype);
    frame_.header = bytes_.data();
    frame_.data = bytes_.data();
    frame_.length = std::max<std::uint32_t>(request.length, static_cast<std::uint32_t>(used_));
    frame_.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(frame_.length, kHeaderBytes));
    if (request.unfinished_checksum || request.gso_size) frame_.offload.flags = Offload::kNeedsChecksum;
    if (request.gso_size) {
      frame_.offload.gso_size = *request.gso_size;
      frame_.offload.gso_type = request.ethertype == kEtherTypeIpv6 ? Offload::kGsoTcp6 : Offload::kGsoTcp4;
    }
    if (access_vlan != 0) enter_access_vlan(frame_, access_vlan);
  }
  [[nodiscard]] const Frame& get() const noexcept { return frame_; }

 private:
  void put(const Mac& mac) {
    std::memcpy(bytes_.data() + used_, mac.bytes.data(), mac.bytes.size());
    used_ += mac.bytes.size();
  }
  void put(std::uint16_t number) {
    bytes_[used_++] = static_cast<std::byte>(number >> 8);
    bytes_[used_++] = static_cast<std::byte>(number & 0xff);
  }
  std::array<std::byte, kHeaderBytes> bytes_{};
  std::size_t used_ = 0;
  Frame frame_;
};

/// What happens to the frame on its way out of `port`.
Json egress_of(PortId port, const Frame& frame, const Switch& running) {
  const Table& table = running.datapath().table();
  const PortEntry& entry = table.port(port);
  Json out = {{"port", table.name(port)}};
  Json steps = Json::array();
  if (frame.vlan_id() != 0 && !entry.access) {
    steps.push_back("802.1Q tag with VLAN " + std::to_string(frame.vlan_id()) + " is inserted");
  } else if (frame.vlan_id() != 0) {
    steps.push_back("leaves untagged: the port is an access port");
  }
  const OffloadCaps caps = table.queue(port, 0)->offloads();
  const bool gso_taken = frame.offload.gso_kind() == Offload::kGsoTcp6 ? caps.tso6 : caps.tso4;
  if (frame.offload.is_gso() && !gso_taken) {
    steps.push_back("is segmented in software: the port takes no such GSO frames");
  } else if (frame.offload.is_gso()) {
    steps.push_back("passes as one GSO frame");
  } else if (frame.offload.needs_checksum()) {
    steps.push_back(caps.checksum ? "passes with its checksum unfinished: the port finishes it"
                                  : "checksum is computed in software");
  }
  if (!frame.offload.is_gso() && frame.length > entry.max_frame) {
    const DropText& drop = text_of(Drop::too_long);
    out["drop"] = {{"reason", drop.name}, {"explanation", drop.explanation}};
    steps = Json::array({"longer than the " + std::to_string(entry.max_frame) + " bytes the port's MTU allows"});
  }
  out["steps"] = std::move(steps);
  return out;
}

Json destinations_of(const Verdict& verdict, const Frame& frame, const Switch& running) {
  const Table& table = running.datapath().table();
  Json destinations = Json::array();
  const auto add = [&](PortId port) { destinations.push_back(egress_of(port, frame, running)); };
  if (verdict.port != kNoPort) add(verdict.port);
  for (const PortId port : table.group(verdict.group)) {
    if (port != verdict.exclude) add(port);
  }
  for (const PortId port : table.group(verdict.sources)) add(port);
  return destinations;
}

struct Ingress {
  PortId id = kNoPort;
  Mac own_mac;
  bool is_uplink = false;
  std::uint16_t access_vlan = 0;
};

Ingress find_ingress(const Switch& running, const TraceRequest& request) {
  const auto port = running.state().ports.find(request.port);
  if (port != running.state().ports.end()) {
    return {port->second.id, port->second.spec.mac, false, port->second.spec.vlan};
  }
  const auto uplink = running.state().uplinks.find(request.port);
  if (uplink == running.state().uplinks.end()) {
    throw InvalidParams("there is no port or uplink \"" + request.port + "\"; `vswitchctl show` lists them");
  }
  if (!request.src) throw InvalidParams("\"src\" is missing: a frame from the wire can come from anyone");
  return {uplink->second.id, *request.src, true, 0};
}

}  // namespace

TraceRequest parse_trace(const Json& params) {
  for (const auto& [key, value] : params.items()) {
    static constexpr std::array<std::string_view, 8> kKnown{"port",      "dst",    "src",      "vlan",
                                                            "ethertype", "length", "checksum", "gso_size"};
    if (std::find(kKnown.begin(), kKnown.end(), key) == kKnown.end()) {
      throw InvalidParams("\"" + key + "\" is not a parameter of trace");
    }
  }
  TraceRequest request;
  request.port = text_of_param(params, "port");
  request.dst = mac_param(params, "dst");
  if (params.contains("src")) request.src = mac_param(params, "src");
  request.vlan = number_param<std::uint16_t>(params, "vlan", 0, 4094);
  request.ethertype = number_param<std::uint16_t>(params, "ethertype", 0x0600, 0xffff).value_or(request.ethertype);
  request.length =
      number_param<std::uint32_t>(params, "length", kEthernetHeaderBytes, kMaxFrameBytes).value_or(request.length);
  request.gso_size = number_param<std::uint16_t>(params, "gso_size", 1, 0xffff);
  if (request.gso_size && request.ethertype != kEtherTypeIpv4 && request.ethertype != kEtherTypeIpv6) {
    throw InvalidParams("\"gso_size\" needs \"ethertype\" 0x0800 (IPv4) or 0x86dd (IPv6)");
  }
  if (params.contains("checksum")) {
    if (params["checksum"] != "unfinished" && params["checksum"] != "finished") {
      throw InvalidParams("\"checksum\" must be \"unfinished\" or \"finished\"");
    }
    request.unfinished_checksum = params["checksum"] == "unfinished";
  }
  return request;
}

Json trace(const Switch& running, const TraceRequest& request) {
  const Ingress ingress = find_ingress(running, request);
  const Mac src = request.src.value_or(ingress.own_mac);
  const TracedFrame traced(request, src, ingress.is_uplink, ingress.access_vlan);
  const Frame& frame = traced.get();
  const Verdict verdict = decide(ingress.id, frame, running.datapath().table());

  Json result = {{"port", request.port},
                 {"frame",
                  {{"dst", request.dst.to_string()},
                   {"src", src.to_string()},
                   {"vlan", request.vlan ? Json(*request.vlan) : Json()},
                   {"ethertype", request.ethertype},
                   {"length", frame.length}}}};
  if (verdict.drop != Drop::none) {
    const DropText& drop = text_of(verdict.drop);
    result["verdict"] = "drop";
    result["drop"] = {{"reason", drop.name}, {"explanation", drop.explanation}};
    result["destinations"] = Json::array();
    return result;
  }
  result["verdict"] = "forward";
  result["rule"] = explain(verdict.rule);
  result["destinations"] = destinations_of(verdict, frame, running);
  return result;
}

}  // namespace vswitch
