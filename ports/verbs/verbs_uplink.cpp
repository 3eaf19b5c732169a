#include "ports/verbs/verbs_uplink.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "vswitch/base/error.h"

namespace vswitch {

using verbs::FlowRule;
using verbs::QueueSet;
using verbs::ReceivePair;

VerbsUplink::VerbsUplink(const UplinkSpec& spec, PortContext& context)
    : spec_(spec), context_(context), counters_(context.workers) {}

void VerbsUplink::start() {
  running_ = std::make_unique<Running>(spec_.netdev);
  Running& now = *running_;
  try {
    now.last = now.netdev.state();
    if (!now.last) throw Error(ENODEV, "use netdev", spec_.netdev, "it vanished just now");
    now.mtu = now.last->mtu;
    now.monitor = open_netdev_monitor();
    now.trouble = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!now.trouble.valid()) throw_errno("create", "an eventfd");
    for (std::size_t w = 0; w < context_.workers; ++w) {
      now.queues.push_back(std::make_unique<verbs::VerbsQueue>(counters_[w]));
    }
    open_device();
    now.monitor_watch = context_.reactor.watch(now.monitor.get(), [this] { on_netdev_change(); });
    now.trouble_watch = context_.reactor.watch(now.trouble.get(), [this] { on_trouble(); });
    look_again();
    context_.arenas.add_user(*this);
  } catch (...) {
    stop();
    throw;
  }
}

void VerbsUplink::stop() noexcept {
  if (!running_) return;
  const Running& now = *running_;
  for (const Reactor::Handle handle : {now.monitor_watch, now.trouble_watch, now.retry_timer, now.look_timer}) {
    context_.reactor.cancel(handle);
  }
  close_device();
  context_.arenas.remove_user(*this);  // who comes after us may have them: nothing of ours writes there any more
  running_.reset();
}

VerbsUplink::Running& VerbsUplink::running() const {
  if (!running_) throw Error(ENODEV, "use uplink", spec_.name, "it is not started");
  return *running_;
}

void VerbsUplink::open_device() {
  Running& now = *running_;
  auto opened =
      std::make_unique<Opened>(verbs::port_of_netdev(now.last->name), verbs::stride_for(now.mtu), context_.quiescence);
  const ibv_context* device = opened->device.context();
  const int flags = ::fcntl(device->async_fd, F_GETFL);
  if (::fcntl(device->async_fd, F_SETFL, flags | O_NONBLOCK) != 0)
    throw_errno("set up events of", opened->device.name());
  for (std::size_t w = 0; w < context_.workers; ++w) {
    opened->sets.push_back(std::make_unique<QueueSet>(opened->device, opened->direct, verbs::stride_for(now.mtu),
                                                      context_.quiescence,
                                                      QueueSet::Bells{now.trouble.get(), now.queues[w]->bell()}));
  }
  if (spec_.direct && context_.arenas.user_of(spec_.name) == this) {
    for (const Arena* arena : context_.arenas.present()) {
      if (arena->uplink == spec_.name) opened->direct.add(*arena);
    }
  }
  const verbs::Capabilities& can = opened->device.capabilities();
  now.opened = std::move(opened);
  try {
    for (std::size_t w = 0; w < context_.workers; ++w) {
      OffloadCaps caps;
      caps.checksum = can.checksum;
      caps.tso4 = caps.tso6 = can.max_tso != 0;
      now.queues[w]->set_offloads(caps);
      now.queues[w]->connect(*now.opened->sets[w]);
    }
    apply(now.steering);
  } catch (...) {
    close_device();
    throw;
  }
  now.opened->async_watch = context_.reactor.watch(device->async_fd, [this] { on_async_event(); });
  now.lost.clear();
  update_link();
}

void VerbsUplink::close_device() noexcept {
  Running& now = *running_;
  if (!now.opened) return;
  context_.reactor.cancel(now.opened->async_watch);
  for (const auto& queue : now.queues) {
    queue->set_link(false);
    queue->disconnect();
  }
  context_.quiescence.wait();
  now.opened.reset();
}

void VerbsUplink::lose_device(const std::string& why) {
  Running& now = *running_;
  report(why + "; everything on the device is closed and will be opened again");
  now.lost = why;
  close_device();
  context_.reactor.cancel(std::exchange(now.retry_timer, 0));
  now.retry_timer = context_.reactor.after(kRetry, [this] { retry(); });
  context_.changed();
}

void VerbsUplink::retry() {
  Running& now = *running_;
  now.retry_timer = 0;
  try {
    now.last = now.netdev.state();
    if (!now.last) {  // a device that comes back has a new netdev of the old name
      now.netdev = Netdev(spec_.netdev);
      now.memberships = Memberships(now.netdev.index());
      now.last = now.netdev.state();
    }
    if (!now.last) throw Error(ENODEV, "use netdev", spec_.netdev, "it vanished just now");
    now.mtu = now.last->mtu;
    open_device();
    ++now.reopened;
    report("the device is open again");
  } catch (const Error& error) {
    now.lost = error.what();
    now.retry_timer = context_.reactor.after(kRetry, [this] { retry(); });
  }
  context_.changed();
}

// A device that loses an interrupt must not leave frames lying until the next one: there is none before they are taken.
void VerbsUplink::look_again() {
  for (const auto& queue : running_->queues) queue->nudge();
  running_->look_timer = context_.reactor.after(kLookAgain, [this] { look_again(); });
}

Mac VerbsUplink::host_mac() const {
  const std::optional<NetdevState> state = running().netdev.state();
  if (!state) throw Error(ENODEV, "ask for the address of netdev", spec_.netdev, "the netdev is gone");
  return state->mac;
}

void VerbsUplink::on_netdev_change() {
  Running& now = *running_;
  std::array<char, 4096> ignored;  // which netdev changed, and how, is asked for below
  while (::recv(now.monitor.get(), ignored.data(), ignored.size(), 0) > 0 || errno == ENOBUFS) {
  }
  std::optional<NetdevState> state = now.netdev.state();
  if (state == now.last) return;
  const bool new_address = state && (!now.last || state->mac != now.last->mac);
  const bool longer_frames = state && verbs::stride_for(state->mtu) > verbs::stride_for(now.mtu);
  now.last = std::move(state);
  if (now.opened && !now.last) return lose_device("netdev " + spec_.netdev + " is gone");
  if (now.opened && longer_frames) {
    return lose_device("netdev " + now.last->name + " has an MTU of " + std::to_string(now.last->mtu) + " now");
  }
  if (new_address && now.opened) {
    try {
      apply(now.steering);  // a rule for what is now the host's address goes
    } catch (const Error& error) {
      report(error.what());
    }
  }
  context_.changed();
}

void VerbsUplink::on_async_event() {
  std::string fatal;
  ibv_async_event event;
  while (ibv_get_async_event(running_->opened->device.context(), &event) == 0) {
    switch (event.event_type) {
      case IBV_EVENT_PORT_ACTIVE:
      case IBV_EVENT_PORT_ERR:
        break;  // update_link() asks
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
        for (const auto& set : running_->opened->sets) set->mark_broken(event.element.qp);
        break;
      case IBV_EVENT_CQ_ERR:
        fatal = "a completion queue broke";
        break;
      case IBV_EVENT_DEVICE_FATAL:
        fatal = "the device reports that it is dead";
        break;
      default:
        break;
    }
    ibv_ack_async_event(&event);
  }
  if (!fatal.empty()) {
    lose_device(fatal);
  } else {
    update_link();
    context_.changed();
  }
}

void VerbsUplink::on_trouble() {
  std::uint64_t ignored = 0;
  static_cast<void>(::read(running_->trouble.get(), &ignored, sizeof(ignored)));
  if (!running_->opened) return;
  try {
    std::size_t replaced = 0;
    for (const auto& set : running_->opened->sets) {
      replaced += set->repair([this](const ReceivePair* old, ReceivePair* fresh) {
        for (auto& [rule, at] : running_->opened->rules) {
          if (at.pair == old) at.pair = fresh;
        }
      });
    }
    if (replaced == 0) return;
    offer_slots();
    running_->pairs_replaced += replaced;
    report("the device put " + std::to_string(replaced) + " queue pair(s) into the error state; they were replaced");
  } catch (const Error& error) {
    lose_device(error.what());
  }
}

void VerbsUplink::update_link() {
  Running& now = *running_;
  if (!now.opened) return;
  now.opened->link_up = now.opened->device.link_up();
  for (const auto& queue : now.queues) queue->set_link(now.opened->link_up);
}

void VerbsUplink::report(const std::string& what) const { context_.report("uplink " + spec_.name + ": " + what); }

PortStatus VerbsUplink::status() const {
  if (!running_) return {false, 0, "verbs on " + spec_.netdev + ", stopped", {}, {}};
  const Running& now = *running_;
  PortStatus status;
  status.offloads_requested = OffloadCaps::all();
  const std::optional<NetdevState> state = now.netdev.state();
  status.mtu = state ? state->mtu : 0;
  if (!now.opened) {
    status.detail = "verbs, without a device: " + now.lost;
    return status;
  }
  const Opened& opened = *now.opened;
  status.link_up = state && state->up && opened.link_up;
  status.detail = "verbs on " + opened.device.name() + " (" + (state ? state->name : spec_.netdev + ", gone") + ")";
  status.offloads_why_not = "verbs devices segment neither UDP nor TCP with CWR";
  if (opened.device.capabilities().max_tso == 0) status.offloads_why_not = opened.device.name() + " does not segment";
  if (!opened.device.capabilities().checksum) status.offloads_why_not = opened.device.name() + " computes no checksums";
  std::size_t shared = 0;
  std::size_t own = 0;
  std::size_t direct = 0;
  for (const auto& [rule, at] : opened.rules) {
    if (rule.kind != FlowRule::Kind::tenant && rule.kind != FlowRule::Kind::tenant_vlan) continue;
    ++(at.pair->shared() ? shared : own);
    direct += at.pair->direct() ? 1 : 0;
  }
  status.detail += ", " + std::to_string(own) + " tenant queue pairs";
  if (direct != 0) status.detail += " (" + std::to_string(direct) + " direct)";
  if (!opened.sets.front()->completions().extended()) status.detail += ", plain completion queues";
  if (shared != 0) status.detail += ", " + std::to_string(shared) + " tenants on shared ones";
  const auto mention = [&status](std::uint64_t count, const char* what) {
    if (count != 0) status.detail += ", " + std::to_string(count) + " " + what;
  };
  const auto sum = [&opened](Counter verbs::DeviceCounters::*counter) {
    std::uint64_t all = 0;
    for (const auto& set : opened.sets) all += (set->device_counters().*counter).read();
    return all;
  };
  mention(sum(&verbs::DeviceCounters::stripped_tags), "tags stripped in software");
  mention(sum(&verbs::DeviceCounters::receive_errors), "receive errors");
  mention(sum(&verbs::DeviceCounters::lost_events), "interrupts lost");
  std::uint64_t lost_sends = 0;
  for (const auto& set : opened.sets) lost_sends += set->lost_sends();
  mention(lost_sends, "frames lost with queue pairs that broke");
  mention(now.pairs_replaced, "queue pairs replaced");
  mention(now.reopened, "times opened again");
  if (!status.link_up) status.detail += ", the port is down";
  for (const Steering::Rule& rule : now.steering.unicast) {
    if (state && rule.mac == state->mac) status.detail += ", the host took a tenant's address " + rule.mac.to_string();
  }
  return status;
}

}  // namespace vswitch
