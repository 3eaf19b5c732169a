#include "ports/af_packet/af_packet_uplink.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "ports/af_packet/filter.h"
#include "ports/af_packet/packet_socket.h"
#include "vswitch/base/error.h"

namespace vswitch {

using af_packet::AfPacketQueue;

AfPacketUplink::AfPacketUplink(const UplinkSpec& spec, PortContext& context, std::string refused)
    : spec_(spec), context_(context), refused_(std::move(refused)), counters_(context.workers) {}

void AfPacketUplink::start() {
  auto opened = std::make_unique<Running>(spec_.netdev);
  opened->monitor = open_netdev_monitor();
  open_queues(*opened);
  opened->last = opened->netdev.state();
  watch_ = context_.reactor.watch(opened->monitor.get(), [this] { on_link_change(); });
  running_ = std::move(opened);
}

void AfPacketUplink::open_queues(Running& running) {
  const std::optional<NetdevState> state = running.netdev.state();
  if (!state) throw Error(ENODEV, "use netdev", spec_.netdev, "it vanished just now");
  OffloadCaps caps = OffloadCaps::all();
  caps.uso = af_packet::kernel_takes_udp_gso();
  std::optional<std::uint16_t> group;
  for (std::size_t w = 0; w < context_.workers; ++w) {
    auto queue = std::make_unique<AfPacketQueue>(af_packet::open_packet_socket(spec_.netdev), state->mtu,
                                                 context_.scratch[w].bytes(), counters_[w]);
    af_packet::bind_packet_socket(queue->socket(), running.netdev.index(), spec_.netdev);
    if (context_.workers > 1) af_packet::join_fanout(queue->socket(), spec_.netdev, group);
    queue->set_offloads(caps);
    running.queues.push_back(std::move(queue));
  }
}

void AfPacketUplink::stop() noexcept {
  if (!running_) return;
  context_.reactor.cancel(std::exchange(watch_, 0));
  running_.reset();
}

const AfPacketUplink::Running& AfPacketUplink::running() const {
  if (!running_) throw Error(ENODEV, "use uplink", spec_.name, "it is not started");
  return *running_;
}

Mac AfPacketUplink::host_mac() const {
  const std::optional<NetdevState> state = running().netdev.state();
  if (!state) throw Error(ENODEV, "ask for the address of netdev", spec_.netdev, "the netdev is gone");
  return state->mac;
}

void AfPacketUplink::steer(const Steering& wanted) {
  const Mac host = host_mac();
  for (const Steering::Rule& rule : wanted.unicast) {
    if (rule.mac == host) {
      throw Error(EADDRINUSE, "steer " + rule.mac.to_string() + " to a tenant on netdev", spec_.netdev,
                  "this is the host's own address; give the port another MAC");
    }
  }
  const Steering before = running_->steering;
  const Mac host_before = running_->filtered_host;
  running_->memberships.change({wanted.addresses(), wanted.group_frames(), wanted.everything});
  try {
    apply_filter(wanted, host);
  } catch (const Error&) {
    // What was in place a moment ago was accepted then; taking it up again adds no address and no longer program.
    running_->memberships.change({before.addresses(), before.group_frames(), before.everything});
    apply_filter(before, host_before);
    throw;
  }
}

void AfPacketUplink::apply_filter(const Steering& wanted, const Mac& host) {
  const std::vector<sock_filter> program = af_packet::make_filter(wanted, host);
  for (const auto& queue : running_->queues) af_packet::attach_filter(queue->socket(), program);
  running_->steering = wanted;
  running_->filtered_host = host;
}

void AfPacketUplink::on_link_change() {
  std::array<char, 4096> ignored;  // which netdev changed, and how, is asked for below
  while (::recv(running_->monitor.get(), ignored.data(), ignored.size(), 0) > 0 || errno == ENOBUFS) {
  }
  std::optional<NetdevState> now = running_->netdev.state();
  if (now == running_->last) return;
  if (now && now->mac != running_->filtered_host) {
    try {
      apply_filter(running_->steering, now->mac);
    } catch (const Error&) {
      // The filter stays; it lets more of the host's frames come to us than need be, and the steering table drops them.
    }
  }
  running_->last = std::move(now);
  context_.changed();
}

PortStatus AfPacketUplink::status() const {
  if (!running_) return {false, 0, "af_packet on " + spec_.netdev + ", stopped"};
  const std::optional<NetdevState> state = running_->netdev.state();
  if (!state) return {false, 0, "af_packet, but netdev " + spec_.netdev + " is gone"};
  PortStatus status{state->up, state->mtu, "af_packet on " + state->name};
  if (state->name != spec_.netdev) status.detail += " (was " + spec_.netdev + ")";
  status.offloads_requested = OffloadCaps::all();
  if (running_->queues[0]->offloads() != status.offloads_requested)
    status.offloads_why_not = "this kernel's packet sockets have no UDP segmentation";
  if (!refused_.empty()) status.detail += " (" + refused_ + ")";
  if (!state->up) status.detail += ", netdev is down or has no carrier";
  for (const Steering::Rule& rule : running_->steering.unicast) {
    if (rule.mac == state->mac) status.detail += ", the host took a tenant's address " + rule.mac.to_string();
  }
  std::uint64_t lost = 0;
  for (const auto& queue : running_->queues) lost += queue->lost();
  if (lost != 0) status.detail += ", " + std::to_string(lost) + " received frames lost before they could be taken";
  return status;
}

}  // namespace vswitch
