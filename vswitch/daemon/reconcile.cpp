#include "vswitch/daemon/reconcile.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "vswitch/base/error.h"
#include "vswitch/daemon/transition.h"

namespace vswitch {

PortId PortIds::take() {
  const auto free = std::find(used_.begin(), used_.end(), false);
  const auto id = static_cast<std::size_t>(free - used_.begin());
  if (id >= kMaxPorts) {
    throw Error(0, "open", "one more port", "a switch has at most " + std::to_string(kMaxPorts) + " ports");
  }
  if (free == used_.end()) {
    used_.push_back(true);
  } else {
    *free = true;
  }
  return static_cast<PortId>(id);
}

namespace {

std::vector<Mapping> make_scratch(std::size_t workers) {
  std::vector<Mapping> scratch;
  for (std::size_t w = 0; w < workers; ++w) scratch.push_back(Mapping::anonymous(kScratchBytes));
  return scratch;
}

}  // namespace

Switch::Switch(const WorkersSpec& workers, Reactor& reactor, PortFactory factory)
    : factory_(std::move(factory)),
      reactor_(reactor),
      quiescence_(Datapath::worker_count(workers)),
      context_{.reactor = reactor,
               .quiescence = quiescence_,
               .workers = Datapath::worker_count(workers),
               .scratch = make_scratch(Datapath::worker_count(workers)),
               .next_worker = 0,
               .changed = [this] { schedule_refresh(); },
               .report = [](const std::string& what) { spdlog::warn("{}", what); }},
      datapath_(workers, quiescence_),
      workers_(workers) {
  datapath_.start();
}

Switch::~Switch() {
  reactor_.cancel(refresh_);
  datapath_.stop();
  for (const auto& [name, running] : state_.uplinks) {  // first: their devices let go of what the ports have
    datapath_.remove_port(*running.port);
    running.port->stop();
  }
  for (const auto& [name, running] : state_.ports) {
    datapath_.remove_port(*running.port);
    running.port->stop();
  }
  reactor_.cancel(refresh_);  // a port may have reported its end
}

ApplyReport Switch::apply(const SwitchSpec& wanted) {
  if (wanted.workers != workers_) {
    throw Error(0, "change", "\"workers\"", "that needs a restart of vswitchd; nothing was changed");
  }
  ApplyReport report = Transition(*this, wanted).run();
  schedule_refresh();
  return report;
}

/// Ports report from the middle of their work: look at them when that is done, and once however many reported.
void Switch::schedule_refresh() {
  if (refresh_ != 0) return;
  refresh_ = reactor_.after(0, [this] {
    refresh_ = 0;
    refresh();
  });
}

void Switch::refresh() {
  std::erase_if(links_, [this](const auto& link) {
    return !state_.ports.contains(link.first) && !state_.uplinks.contains(link.first);
  });
  bool resized = false;
  for (auto& [name, running] : state_.uplinks) {
    const PortStatus status = running.port->status();
    log_link(name, status);
    if (status.mtu == 0 || status.mtu == running.mtu) continue;
    spdlog::info("uplink {}: MTU is now {}, was {}", name, status.mtu, running.mtu);
    running.mtu = status.mtu;
    resized = true;
  }
  for (const auto& [name, running] : state_.ports) log_link(name, running.port->status());
  if (resized) datapath_.publish(build_table(state_, datapath_.workers()));
}

void Switch::log_link(const std::string& name, const PortStatus& status) {
  const auto [last, is_new] = links_.try_emplace(name, status.link_up);
  if (!is_new && last->second == status.link_up) return;
  last->second = status.link_up;
  // A start with thousands of ports must not be thousands of lines.
  const auto level = is_new && state_.ports.contains(name) ? spdlog::level::debug : spdlog::level::info;
  spdlog::log(level, "{}: link {} ({})", name, status.link_up ? "up" : "down", status.detail);
}

}  // namespace vswitch
