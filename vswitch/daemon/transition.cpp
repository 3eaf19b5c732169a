#include "vswitch/daemon/transition.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <tuple>

#include "config/diff.h"
#include "vswitch/base/error.h"

namespace vswitch {
namespace {

/// What two ports cannot hold at the same time: a netdev name in a namespace, a socket.
struct HeldResource {
  std::string operator()(const RingAttachSpec& ring) const { return "ring " + ring.socket; }
  std::string operator()(const TapAttachSpec& tap) const {
    struct stat info {};  // two paths may lead to one namespace
    const char* path = tap.netns.empty() ? "/proc/self/ns/net" : tap.netns.c_str();
    const std::string place =
        ::stat(path, &info) == 0 ? std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) : tap.netns;
    return "tap " + place + " " + tap.name;
  }
};

std::string held_resource(const PortSpec& spec) { return std::visit(HeldResource{}, spec.attach); }

}  // namespace

std::unique_ptr<const Table> build_table(const SwitchState& state, std::size_t workers) {
  TableBuilder builder(workers);
  for (const auto& [name, uplink] : state.uplinks) builder.add_uplink(uplink.id, name, *uplink.port, uplink.mtu);
  for (const auto& [name, port] : state.ports) {
    builder.add_tenant(port.id, port.spec, state.uplinks.at(port.spec.uplink).id, *port.port);
  }
  return builder.build();
}

Steering steering_of(const std::string& uplink, const SwitchState& state) {
  Steering steering;
  for (const auto& [name, port] : state.ports) {
    const PortSpec& spec = port.spec;
    if (spec.uplink != uplink) continue;
    if (spec.mode == Mode::passthru) {  // its MAC may be the host's own, as the kernel's passthru has it
      steering.everything = true;
      continue;
    }
    steering.unicast.push_back({spec.vlan, spec.mac});
    for (const Mac& mac : spec.macs) steering.unicast.push_back({spec.vlan, mac});
    steering.sources.insert(steering.sources.end(), spec.source_macs.begin(), spec.source_macs.end());
  }
  std::sort(steering.unicast.begin(), steering.unicast.end());
  std::sort(steering.sources.begin(), steering.sources.end());
  steering.sources.erase(std::unique(steering.sources.begin(), steering.sources.end()), steering.sources.end());
  return steering;
}

void Transition::Undo::run_all() noexcept {
  while (!steps_.empty()) {
    const std::function<void()> step = std::move(steps_.back());
    steps_.pop_back();
    try {
      step();
    } catch (const std::exception& error) {
      spdlog::error("while undoing a change: {}", error.what());
    }
  }
}

Transition::Transition(Switch& target, const SwitchSpec& wanted)
    : switch_(target), wanted_(wanted), before_(target.state_), next_(target.state_) {}

ApplyReport Transition::run() {
  try {
    perform();
  } catch (const std::exception& error) {
    undo_.run_all();
    if (lost_.empty()) throw;
    throw Error(0, error.what(), "", "and what was closed for the change could not be opened again: " + lost_);
  }
  commit();
  return std::move(report_);
}

void Transition::perform() {
  open_uplinks();
  plan_ports();
  open_ports();
  std::unique_ptr<const Table> table = build_table(next_, switch_.datapath_.workers());
  steer();
  permit();
  admit();
  switch_.datapath_.publish(std::move(table));
}

void Transition::open_uplinks() {
  next_.uplinks.clear();
  for (const UplinkSpec& spec : wanted_.uplinks) {
    const auto running = before_.uplinks.find(spec.name);
    if (running != before_.uplinks.end() && running->second.spec == spec) {
      next_.uplinks.insert(*running);
      continue;
    }
    const PortId id = switch_.ids_.take();
    undo_.push([this, id] { switch_.ids_.give_back(id); });
    const std::shared_ptr<Uplink> uplink = switch_.factory_.uplink(spec, switch_.context_);
    uplink->start();
    undo_.push([uplink] { uplink->stop(); });
    fresh_.emplace_back(id, uplink.get());
    next_.uplinks[spec.name] = {spec, id, uplink->status().mtu, {}, uplink};
    new_uplinks_.insert(spec.name);
    (running == before_.uplinks.end() ? report_.added : report_.reopened).push_back(spec.name);
  }
  for (const auto& [name, uplink] : before_.uplinks) {
    if (!next_.uplinks.contains(name)) report_.removed.push_back(name);
  }
}

PortSpec Transition::resolve(const PortSpec& spec) const {
  const auto uplink = next_.uplinks.find(spec.uplink);
  if (uplink == next_.uplinks.end()) {
    throw Error(0, "port", spec.full_name(), "names the uplink \"" + spec.uplink + "\", which does not exist");
  }
  PortSpec resolved = spec;
  if (resolved.mtu != 0) return resolved;
  // A port keeps the MTU it was opened with while its uplink stays: an unchanged port is never reopened.
  const auto running = before_.ports.find(spec.full_name());
  const bool keeps = running != before_.ports.end() && running->second.spec.uplink == spec.uplink &&
                     !new_uplinks_.contains(spec.uplink);
  resolved.mtu = keeps ? running->second.spec.mtu : uplink->second.mtu;
  return resolved;
}

void Transition::plan_ports() {
  SwitchSpec running;
  for (const auto& [name, port] : before_.ports) running.ports.push_back(port.spec);
  // By tenant, then port, as in every SwitchSpec: not the order of full names, in which "a-b/x" precedes "a/x".
  std::sort(running.ports.begin(), running.ports.end(), [](const PortSpec& a, const PortSpec& b) {
    return std::tie(a.tenant, a.name) < std::tie(b.tenant, b.name);
  });
  SwitchSpec target;
  for (const PortSpec& spec : wanted_.ports) target.ports.push_back(resolve(spec));

  report_.untouched = target.ports.size();
  for (const auto& change : diff(running, target).ports) {
    const std::string name = (change.removed() ? change.before : change.after)->full_name();
    if (!change.removed()) --report_.untouched;
    if (change.added()) {
      report_.added.push_back(name);
    } else if (change.removed()) {
      report_.removed.push_back(name);
    } else if (change.reopen) {
      report_.reopened.push_back(name);
    } else {
      report_.changed.push_back(name);
      next_.ports.at(name).spec = *change.after;
      continue;
    }
    if (!change.added()) {
      leaving_.insert(name);
      next_.ports.erase(name);
    }
    if (!change.removed()) ports_to_open_.push_back(*change.after);
  }
}

void Transition::open_ports() {
  // A port that needs what a leaving port still holds cannot open beside it.
  std::map<std::string, std::string> holders;
  for (const std::string& name : leaving_) holders.emplace(held_resource(before_.ports.at(name).spec), name);
  std::vector<const PortSpec*> successors;
  std::set<std::string> in_the_way;
  for (const PortSpec& spec : ports_to_open_) {
    const auto holder = holders.find(held_resource(spec));
    if (holder == holders.end()) {
      open(spec);
    } else {
      successors.push_back(&spec);
      in_the_way.insert(holder->second);
    }
  }
  if (!in_the_way.empty()) withdraw(in_the_way);
  for (const PortSpec* spec : successors) open(*spec);
}

void Transition::open(const PortSpec& spec) {
  const std::uint32_t uplink_mtu = next_.uplinks.at(spec.uplink).mtu;
  if (spec.mtu > uplink_mtu) {
    throw Error(0, "port", spec.full_name(),
                "wants an MTU of " + std::to_string(spec.mtu) + ", more than its uplink " + spec.uplink + " has (" +
                    std::to_string(uplink_mtu) + "); raise the netdev's first, or lower the port's");
  }
  const PortId id = switch_.ids_.take();
  undo_.push([this, id] { switch_.ids_.give_back(id); });
  const std::shared_ptr<Port> port = switch_.factory_.port(spec, switch_.context_);
  try {
    port->start();
  } catch (const Error& error) {
    throw Error(0, "port " + spec.full_name() + ":", error.what());
  }
  undo_.push([port] { port->stop(); });
  fresh_.emplace_back(id, port.get());
  next_.ports[spec.full_name()] = {spec, id, port};
}

void Transition::withdraw(const std::set<std::string>& names) {
  SwitchState between = before_;
  for (const std::string& name : names) between.ports.erase(name);
  std::unique_ptr<const Table> table = build_table(between, switch_.datapath_.workers());
  undo_.push([this] {
    switch_.datapath_.publish(build_table(before_, switch_.datapath_.workers()));
    switch_.state_ = before_;
  });
  switch_.datapath_.publish(std::move(table));
  for (const std::string& name : names) {
    Port& port = *before_.ports.at(name).port;
    switch_.datapath_.remove_port(port);
    port.stop();
    withdrawn_.insert(name);
    undo_.push([this, name] { restore(name); });
  }
}

void Transition::restore(const std::string& name) noexcept {
  const RunningPort running = before_.ports.at(name);
  try {
    running.port->start();
    try {
      switch_.datapath_.add_port(running.id, *running.port);
    } catch (...) {
      running.port->stop();
      throw;
    }
  } catch (const std::exception& error) {
    // Forgotten altogether, so that the next reload opens it as a new port.
    lost_.append(lost_.empty() ? "" : "; ").append(error.what());
    switch_.ids_.give_back(running.id);
    before_.ports.erase(name);
  }
}

void Transition::steer() {
  for (auto& [name, uplink] : next_.uplinks) {
    Steering wanted = steering_of(name, next_);
    const bool is_new = new_uplinks_.contains(name);
    if (!is_new && wanted == uplink.steering) continue;
    uplink.port->steer(wanted);
    if (!is_new) undo_.push([port = uplink.port, old = uplink.steering] { port->steer(old); });
    uplink.steering = std::move(wanted);
  }
}

void Transition::permit() {
  for (const auto& [name, running] : next_.ports) {
    const auto old = before_.ports.find(name);
    if (old == before_.ports.end() || old->second.port != running.port) continue;
    const OffloadCaps before = old->second.spec.offloads;
    if (running.spec.offloads == before) continue;
    running.port->permit(running.spec.offloads);
    undo_.push([port = running.port, before] { port->permit(before); });
  }
}

void Transition::admit() {
  for (const auto& [id, port] : fresh_) {
    switch_.datapath_.add_port(id, *port);
    undo_.push([this, port = port] { switch_.datapath_.remove_port(*port); });
  }
}

void Transition::commit() noexcept {
  undo_.forget();
  const auto close = [this](Port& port, PortId id, bool closed) {
    if (!closed) {
      switch_.datapath_.remove_port(port);
      port.stop();
    }
    switch_.ids_.give_back(id);
  };
  for (const std::string& name : leaving_) {
    const RunningPort& running = before_.ports.at(name);
    close(*running.port, running.id, withdrawn_.contains(name));
  }
  for (const auto& [name, uplink] : before_.uplinks) {
    if (new_uplinks_.contains(name) || !next_.uplinks.contains(name)) close(*uplink.port, uplink.id, false);
  }
  switch_.state_ = std::move(next_);
}

}  // namespace vswitch
