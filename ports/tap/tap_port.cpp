#include "ports/tap/tap_port.h"

#include "netlink/netns.h"
#include "ports/tap/tap_device.h"
#include "vswitch/base/error.h"
#include "vswitch/net/offload_check.h"

namespace vswitch {
namespace {

/// Our descriptors keep a namespace alive whose name was deleted, and nothing signals the deletion: look now and then.
constexpr Nanoseconds kNamespaceCheck = 2 * kSecond;

}  // namespace

TapPort::TapPort(const PortSpec& spec, PortContext& context)
    : spec_(spec),
      attach_(std::get<TapAttachSpec>(spec_.attach)),
      context_(context),
      counters_(std::make_unique<PortCounters[]>(context.workers)),
      requested_(spec.offloads) {}

TapPort::~TapPort() { stop(); }

void TapPort::start() {
  try {
    create();
    configure();
    watch();
  } catch (...) {
    stop();
    throw;
  }
}

void TapPort::create() {
  const Netns netns = Netns::open(attach_.netns);
  namespace_name_ = netns.name();
  namespace_inode_ = netns.inode();
  TapDevice device;
  // All of these belong to the namespace they are opened in.
  netns.run([&] {
    device = create_tap(attach_.name, context_.workers, requested_);
    rtnetlink_.emplace();
    monitor_.emplace();
  });
  offloads_ = device.offloads;
  for (std::size_t w = 0; w < context_.workers; ++w) {
    queues_.push_back(
        std::make_unique<TapQueue>(std::move(device.queues[w]), counters_[w], context_.scratch[w].bytes(), spec_.vlan));
    queues_.back()->set_offloads(offloads_);
  }
}

void TapPort::configure() {
  const std::optional<Link> made = rtnetlink_->find_link(attach_.name);
  if (!made) throw Error(ENODEV, "look up", attach_.name, "the tenant removed it at once");
  link_ = *made;
  // Frames of more segments would be refused as bad_gso_segments; a path with a small MSS asks for hundreds.
  rtnetlink_->limit_gso_segments(link_, kMaxSegments);
  rtnetlink_->change_link(link_, {.mac = spec_.mac, .mtu = spec_.mtu, .name = {}, .up = true});
  for (const IpPrefix& address : spec_.ips) rtnetlink_->add_address(link_, address);
  for (const RouteSpec& route : attach_.routes) rtnetlink_->add_route(link_, route.to, route.via);
  link_ = rtnetlink_->find_link(link_.index).value_or(link_);
}

void TapPort::watch() {
  monitor_watch_ = context_.reactor.watch(monitor_->fd(), [this] { on_link_change(); });
  if (!attach_.netns.empty()) {
    namespace_timer_ = context_.reactor.after(kNamespaceCheck, [this] { on_namespace_check(); });
  }
}

void TapPort::on_link_change() {
  monitor_->drain();
  std::optional<Link> now;
  try {
    now = rtnetlink_->find_link(link_.index);
  } catch (const Error&) {
    return;  // out of memory: the next change asks again
  }
  const Link before = link_;
  if (now) {
    link_ = *now;
  } else {
    link_.up = link_.running = false;
    if (gone_.empty()) gone_ = "was removed by the tenant";
  }
  if (link_.running != before.running || link_.mtu != before.mtu) context_.changed();
}

void TapPort::on_namespace_check() {
  if (is_netns_at(attach_.netns, namespace_inode_)) {
    namespace_timer_ = context_.reactor.after(kNamespaceCheck, [this] { on_namespace_check(); });
    return;
  }
  namespace_timer_ = 0;
  // Nobody can reach the namespace by its name any more, but its kernel would go on answering ARP and ping. Removing
  // the netdev is what the kernel does with a namespace that ends; the workers' queues notice by themselves.
  gone_ = "went with its namespace";
  try {
    rtnetlink_->delete_link(link_);
  } catch (const Error&) {
    return;  // the tenant was faster
  }
}

void TapPort::stop() noexcept {
  context_.reactor.cancel(monitor_watch_);
  context_.reactor.cancel(namespace_timer_);
  monitor_watch_ = namespace_timer_ = 0;
  queues_.clear();  // with the last descriptor the netdev goes
  monitor_.reset();
  rtnetlink_.reset();
  link_ = {};
  gone_.clear();
}

void TapPort::permit(OffloadCaps offloads) {
  const OffloadCaps before = offloads_;
  // A netdev that the tenant deleted has no offloads to set, and none to take back.
  if (tap_exists(queues_[0]->wait_fd())) offloads_ = set_tap_offloads(queues_[0]->wait_fd(), attach_.name, offloads);
  requested_ = offloads;
  for (const auto& queue : queues_) queue->set_offloads(offloads_);
  if (before.without(offloads_) != OffloadCaps{}) context_.quiescence.wait();
}

PortStatus TapPort::status() const {
  PortStatus status{.link_up = link_.running, .mtu = link_.mtu, .detail = "netdev " + attach_.name};
  if (queues_.empty()) {
    status.detail += " is not made yet";
  } else if (!gone_.empty()) {
    status.detail += " in " + namespace_name_ + " " + gone_ + "; stop and start the port to make it again";
  } else {
    status.detail = "netdev " + link_.name + " in " + namespace_name_ + (link_.up ? "" : ", set down by the tenant");
    status.offloads_requested = requested_;
    if (offloads_ != requested_) status.offloads_why_not = "this kernel's TAP has no UDP segmentation";
  }
  return status;
}

}  // namespace vswitch
