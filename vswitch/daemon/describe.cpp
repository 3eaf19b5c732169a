#include "vswitch/daemon/describe.h"

#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

namespace vswitch {
namespace {

Json texts(const std::vector<Mac>& macs) {
  Json list = Json::array();
  for (const Mac& mac : macs) list.push_back(mac.to_string());
  return list;
}

struct DescribeAttach {
  Json operator()(const RingAttachSpec& ring) const {
    Json attach = {{"kind", "ring"},
                   {"socket", ring.socket},
                   {"queues", ring.queues},
                   {"ring_frames", ring.ring_frames},
                   {"arena_bytes", ring.arena_bytes},
                   {"token_required", !ring.token.empty()}};
    if (ring.uid) attach["uid"] = *ring.uid;
    if (ring.gid) attach["gid"] = *ring.gid;
    return attach;
  }
  Json operator()(const TapAttachSpec& tap) const {
    return {{"kind", "tap"}, {"netns", tap.netns}, {"name", tap.name}};
  }
};

void add_status(Json& entry, Port& port) {
  const PortStatus status = port.status();
  entry["link"] = status.link_up ? "up" : "down";
  entry["detail"] = status.detail;
  entry["offloads"] = {{"requested", describe(status.offloads_requested)},
                       {"active", describe(port.queue(0).offloads())},
                       {"why_not", status.offloads_why_not.empty() ? Json() : Json(status.offloads_why_not)}};
}

Json describe(const RunningUplink& running) {
  Json entry = {{"name", running.spec.name},
                {"id", running.id},
                {"netdev", running.spec.netdev},
                {"driver", to_string(running.spec.driver)},
                {"mtu", running.mtu}};
  add_status(entry, *running.port);
  try {
    entry["mac"] = running.port->host_mac().to_string();
  } catch (const Error&) {
    entry["mac"] = nullptr;  // the netdev is gone; "detail" says so
  }
  return entry;
}

Json describe(const RunningPort& running) {
  const PortSpec& spec = running.spec;
  Json ips = Json::array();
  for (const IpPrefix& ip : spec.ips) ips.push_back(ip.to_string());
  Json entry = {{"name", spec.full_name()},
                {"id", running.id},
                {"tenant", spec.tenant},
                {"uplink", spec.uplink},
                {"mode", to_string(spec.mode)},
                {"mac", spec.mac.to_string()},
                {"macs", texts(spec.macs)},
                {"vlan", spec.vlan},
                {"mtu", spec.mtu},
                {"trusted", spec.trusted},
                {"gro", spec.gro},
                {"ips", std::move(ips)},
                {"attach", std::visit(DescribeAttach{}, spec.attach)}};
  if (spec.mode == Mode::source) {
    entry["source_macs"] = texts(spec.source_macs);
    entry["nodst"] = spec.nodst;
  }
  add_status(entry, *running.port);
  return entry;
}

/// Reads one number of all workers' counters of a port.
template <class Pick>
std::uint64_t sum(const Port& port, std::size_t workers, Pick pick) {
  std::uint64_t total = 0;
  for (std::size_t w = 0; w < workers; ++w) total += pick(port.counters(w)).read();
  return total;
}

Json count_port(const std::string& name, const Port& port, std::size_t workers) {
  const auto total = [&](Counter PortCounters::*field) {
    return sum(port, workers, [field](const PortCounters& c) -> const Counter& { return c.*field; });
  };
  Json drops = Json::object();
  std::uint64_t dropped_rx = 0;
  std::uint64_t dropped_tx = 0;
  for (std::size_t reason = 1; reason < kDropReasons; ++reason) {
    const std::uint64_t frames =
        sum(port, workers, [reason](const PortCounters& c) -> const Counter& { return c.drops[reason]; });
    if (frames == 0) continue;
    drops[std::string(kDropTexts[reason].name)] = frames;
    (kDropTexts[reason].at_egress ? dropped_tx : dropped_rx) += frames;
  }
  return {{"name", name},
          {"rx_frames", total(&PortCounters::rx_frames)},
          {"rx_bytes", total(&PortCounters::rx_bytes)},
          {"rx_drops", dropped_rx},
          {"tx_frames", total(&PortCounters::tx_frames)},
          {"tx_bytes", total(&PortCounters::tx_bytes)},
          {"tx_drops", dropped_tx},
          {"sw_checksum", total(&PortCounters::sw_checksum)},
          {"sw_gso", total(&PortCounters::sw_gso)},
          {"gro_merged", total(&PortCounters::gro_merged)},
          {"wakeups", total(&PortCounters::wakeups)},
          {"drops", std::move(drops)}};
}

/// A sleep that lasts counts from its beginning, else an idle worker would look busy between two looks.
std::uint64_t slept_ns(const WorkerCounters& counters, Nanoseconds now) {
  const Nanoseconds since = counters.asleep_since.load(std::memory_order_relaxed);
  return counters.slept_ns.read() + (since != 0 && since < now ? now - since : 0);
}

Json count_workers(const Datapath& datapath, Nanoseconds now) {
  Json workers = Json::array();
  for (std::size_t w = 0; w < datapath.workers(); ++w) {
    const WorkerCounters& counters = datapath.counters(w);
    workers.push_back({{"worker", w},
                       {"cpu", datapath.cpu(w) < 0 ? Json() : Json(datapath.cpu(w))},
                       {"steps", counters.steps.read()},
                       {"busy_steps", counters.busy_steps.read()},
                       {"frames", counters.frames.read()},
                       {"sleeps", counters.sleeps.read()},
                       {"slept_ns", slept_ns(counters, now)}});
  }
  return workers;
}

}  // namespace

Json describe(OffloadCaps caps) {
  Json kinds = Json::object();
  for (const OffloadName& kind : kOffloadNames) kinds[std::string(kind.name)] = caps.*kind.member;
  return kinds;
}

Json describe(const ApplyReport& report) {
  return {{"added", report.added},
          {"removed", report.removed},
          {"reopened", report.reopened},
          {"changed", report.changed},
          {"untouched", report.untouched}};
}

Json describe(const Switch& running) {
  Json uplinks = Json::array();
  for (const auto& [name, uplink] : running.state().uplinks) uplinks.push_back(describe(uplink));
  Json ports = Json::array();
  for (const auto& [name, port] : running.state().ports) ports.push_back(describe(port));
  Json workers = Json::array();
  const Datapath& datapath = running.datapath();
  for (std::size_t w = 0; w < datapath.workers(); ++w) {
    workers.push_back({{"worker", w},
                       {"cpu", datapath.cpu(w) < 0 ? Json() : Json(datapath.cpu(w))},
                       {"idle", to_string(running.workers().idle)}});
  }
  return {{"uplinks", std::move(uplinks)}, {"ports", std::move(ports)}, {"workers", std::move(workers)}};
}

Json count(const Switch& running, const std::string& only) {
  const std::size_t workers = running.datapath().workers();
  Json ports = Json::array();
  for (const auto& [name, uplink] : running.state().uplinks) {
    if (only.empty() || only == name) ports.push_back(count_port(name, *uplink.port, workers));
  }
  for (const auto& [name, port] : running.state().ports) {
    if (only.empty() || only == name) ports.push_back(count_port(name, *port.port, workers));
  }
  if (ports.empty() && !only.empty()) {
    throw InvalidParams("there is no port or uplink \"" + only + "\"; `vswitchctl show` lists them");
  }
  const Nanoseconds now = monotonic_now();
  return {{"time_ns", now}, {"ports", std::move(ports)}, {"workers", count_workers(running.datapath(), now)}};
}

}  // namespace vswitch
