#include "vswitch/ctl/render.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "vswitch/ctl/text_table.h"

namespace vswitch {
namespace {

using nlohmann::json;

/// The member `name` as a table cell.
std::string cell(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "-";
  if (found->is_string()) return found->empty() || *found == "" ? "-" : found->get<std::string>();
  return found->dump();
}

/// The elements of the array `name`; none when it is missing.
const json& list(const json& object, const char* name) {
  static const json kNone = json::array();
  const auto found = object.find(name);
  return found != object.end() && found->is_array() ? *found : kNone;
}

std::uint64_t number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string joined(const json& texts) {
  std::string all;
  for (const json& text : texts) {
    if (text.is_string()) all.append(all.empty() ? "" : ",").append(text.get<std::string>());
  }
  return all.empty() ? "-" : all;
}

/// The names of what is true in {"checksum": true, ...}.
std::string offloads(const json& entry, const char* which) {
  std::string all;
  const auto found = entry.find("offloads");
  if (found == entry.end() || !found->is_object() || !found->contains(which)) return "-";
  for (const auto& [name, offered] : (*found)[which].items()) {
    if (offered == true) all.append(all.empty() ? "" : ",").append(name);
  }
  return all.empty() ? "-" : all;
}

void print_offloads(const json& answer, std::ostream& out) {
  TextTable table({"PORT", "OFFLOADS-REQUESTED", "OFFLOADS-ACTIVE", "WHY-NOT"});
  for (const char* what : {"uplinks", "ports"}) {
    for (const json& entry : list(answer, what)) {
      table.add({cell(entry, "name"), offloads(entry, "requested"), offloads(entry, "active"),
                 cell(entry.value("offloads", json::object()), "why_not")});
    }
  }
  table.print(out);
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return "-";
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%.1f", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return text.data();
}

/// Three digits and a unit: "1.25M".
std::string scaled(double value) {
  static constexpr std::array<const char*, 5> kUnits{"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  std::array<char, 32> text{};
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::snprintf(text.data(), text.size(), "%.*f%s", decimals, value, kUnits[unit]);
  return text.data();
}

std::string_view attach_kind(const json& port) {
  const auto attach = port.find("attach");
  if (attach == port.end() || !attach->is_object()) return "-";
  const auto kind = attach->find("kind");
  return kind != attach->end() && kind->is_string() ? std::string_view(kind->get_ref<const std::string&>()) : "-";
}

std::map<std::string, const json*> by_name(const json& entries) {
  std::map<std::string, const json*> named;
  for (const json& entry : entries) named.emplace(cell(entry, "name"), &entry);
  return named;
}

void print_drops(const json& ports, std::ostream& out) {
  TextTable table({"PORT", "DROP-REASON", ">FRAMES"});
  for (const json& port : ports) {
    const auto drops = port.find("drops");
    if (drops == port.end() || !drops->is_object()) continue;
    for (const auto& [reason, frames] : drops->items()) table.add({cell(port, "name"), reason, frames.dump()});
  }
  if (table.empty()) return;
  out << "\n";
  table.print(out);
}

/// How long a worker slept of the time between two answers; neither less than nothing nor more than all of it, as the
/// moment of waking may be seen twice.
std::uint64_t asleep_ns(const json& before, const json& now, std::uint64_t elapsed_ns) {
  const std::uint64_t a = number(before, "slept_ns");
  const std::uint64_t b = number(now, "slept_ns");
  return b > a ? std::min(b - a, elapsed_ns) : 0;
}

}  // namespace

void render_show(const json& answer, std::ostream& out) {
  TextTable uplinks({"UPLINK", "NETDEV", "DRIVER", "MAC", ">MTU", "LINK", "DETAIL"});
  for (const json& uplink : list(answer, "uplinks")) {
    uplinks.add({cell(uplink, "name"), cell(uplink, "netdev"), cell(uplink, "driver"), cell(uplink, "mac"),
                 cell(uplink, "mtu"), cell(uplink, "link"), cell(uplink, "detail")});
  }
  uplinks.print(out);
  out << "\n";
  TextTable ports({"PORT", "KIND", "MODE", "UPLINK", ">VLAN", "MAC", "IPS", ">MTU", "LINK", "DETAIL"});
  for (const json& port : list(answer, "ports")) {
    ports.add({cell(port, "name"), std::string(attach_kind(port)), cell(port, "mode"), cell(port, "uplink"),
               number(port, "vlan") == 0 ? "-" : cell(port, "vlan"), cell(port, "mac"), joined(list(port, "ips")),
               cell(port, "mtu"), cell(port, "link"), cell(port, "detail")});
  }
  ports.print(out);
  out << "\n";
  print_offloads(answer, out);
  out << "\n";
  TextTable workers({">WORKER", ">CPU", "IDLE"});
  for (const json& worker : list(answer, "workers")) {
    workers.add({cell(worker, "worker"), cell(worker, "cpu"), cell(worker, "idle")});
  }
  workers.print(out);
}

void render_stats(const json& answer, std::ostream& out) {
  TextTable ports({"PORT", ">RX-FRAMES", ">RX-BYTES", ">RX-DROPS", ">TX-FRAMES", ">TX-BYTES", ">TX-DROPS", ">SW-CSUM",
                   ">SW-GSO", ">GRO-MERGED", ">WAKEUPS"});
  for (const json& port : list(answer, "ports")) {
    ports.add({cell(port, "name"), cell(port, "rx_frames"), cell(port, "rx_bytes"), cell(port, "rx_drops"),
               cell(port, "tx_frames"), cell(port, "tx_bytes"), cell(port, "tx_drops"), cell(port, "sw_checksum"),
               cell(port, "sw_gso"), cell(port, "gro_merged"), cell(port, "wakeups")});
  }
  ports.print(out);
  print_drops(list(answer, "ports"), out);
  out << "\n";
  TextTable workers({">WORKER", ">CPU", ">STEPS", ">BUSY%", ">FRAMES", ">SLEEPS", ">SLEPT-S"});
  for (const json& worker : list(answer, "workers")) {
    workers.add({cell(worker, "worker"), cell(worker, "cpu"), cell(worker, "steps"),
                 percent(number(worker, "busy_steps"), number(worker, "steps")), cell(worker, "frames"),
                 cell(worker, "sleeps"), std::to_string(number(worker, "slept_ns") / 1'000'000'000)});
  }
  workers.print(out);
}

void render_rates(const json& before, const json& now, std::ostream& out) {
  const std::uint64_t elapsed_ns = number(now, "time_ns") - number(before, "time_ns");
  if (elapsed_ns == 0) return;
  const double seconds = static_cast<double>(elapsed_ns) / 1e9;
  // A port that was reopened meanwhile counts from 0 again.
  const auto grown = [](const json& old, const json& fresh, const char* name) {
    const std::uint64_t a = number(old, name);
    const std::uint64_t b = number(fresh, name);
    return b >= a ? b - a : b;
  };
  const auto rate = [&](const json& old, const json& fresh, const char* name, double factor) {
    return scaled(static_cast<double>(grown(old, fresh, name)) * factor / seconds);
  };
  static const json kNothing = json::object();

  TextTable ports({"PORT", ">RX-FRAMES/S", ">RX-BIT/S", ">RX-DROPS/S", ">TX-FRAMES/S", ">TX-BIT/S", ">TX-DROPS/S"});
  const auto ports_before = by_name(list(before, "ports"));
  for (const json& port : list(now, "ports")) {
    const auto found = ports_before.find(cell(port, "name"));
    const json& old = found != ports_before.end() ? *found->second : kNothing;
    ports.add({cell(port, "name"), rate(old, port, "rx_frames", 1), rate(old, port, "rx_bytes", 8),
               rate(old, port, "rx_drops", 1), rate(old, port, "tx_frames", 1), rate(old, port, "tx_bytes", 8),
               rate(old, port, "tx_drops", 1)});
  }
  ports.print(out);
  out << "\n";
  TextTable workers({">WORKER", ">CPU", ">FRAMES/S", ">BUSY%", ">ASLEEP%", ">SLEEPS/S"});
  const json& workers_before = list(before, "workers");
  std::size_t index = 0;
  for (const json& worker : list(now, "workers")) {
    const json& old = index < workers_before.size() ? workers_before[index] : kNothing;
    ++index;
    workers.add({cell(worker, "worker"), cell(worker, "cpu"), rate(old, worker, "frames", 1),
                 percent(grown(old, worker, "busy_steps"), grown(old, worker, "steps")),
                 percent(asleep_ns(old, worker, elapsed_ns), elapsed_ns), rate(old, worker, "sleeps", 1)});
  }
  workers.print(out);
}

void render_reload(const json& answer, std::ostream& out) {
  for (const char* what : {"added", "removed", "reopened", "changed"}) {
    for (const json& name : list(answer, what)) {
      if (name.is_string()) out << what << " " << name.get<std::string>() << "\n";
    }
  }
  out << cell(answer, "untouched") << " untouched\n";
}

void render_trace(const json& answer, std::ostream& out) {
  const json frame = answer.value("frame", json::object());
  std::array<char, 8> ethertype{};
  std::snprintf(ethertype.data(), ethertype.size(), "0x%04x",
                static_cast<unsigned>(number(frame, "ethertype") & 0xffff));
  out << "frame from " << cell(answer, "port") << ": " << cell(frame, "src") << " > " << cell(frame, "dst") << ", ";
  if (frame.contains("vlan") && !frame["vlan"].is_null()) out << "VLAN " << cell(frame, "vlan") << ", ";
  out << "ethertype " << ethertype.data() << ", " << cell(frame, "length") << " bytes\n";
  const auto print_drop = [&](const json& drop, const char* indent) {
    out << indent << "dropped: " << cell(drop, "reason") << ". " << cell(drop, "explanation") << "\n";
  };
  if (const auto drop = answer.find("drop"); drop != answer.end()) return print_drop(*drop, "");
  out << "forwarded: " << cell(answer, "rule") << "\n";
  for (const json& destination : list(answer, "destinations")) {
    out << "  to " << cell(destination, "port") << "\n";
    if (const auto drop = destination.find("drop"); drop != destination.end()) print_drop(*drop, "     ");
    for (const json& step : list(destination, "steps")) {
      if (step.is_string()) out << "     " << step.get<std::string>() << "\n";
    }
  }
  if (list(answer, "destinations").empty()) out << "  to nobody: no other port listens\n";
}

void render_drops(const json& answer, std::ostream& out) {
  TextTable table({"DROP-REASON", "COUNTED-AT", "EXPLANATION"});
  for (const json& drop : list(answer, "drops")) {
    table.add({cell(drop, "name"), cell(drop, "counted_at"), cell(drop, "explanation")});
  }
  table.print(out);
}

}  // namespace vswitch
