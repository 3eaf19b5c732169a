#include "tests/bench/uplink_rig.h"

#include <unistd.h>

#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "ports/ring/ring_port.h"
#include "ports/verbs/verbs_uplink.h"
#include "tests/bench/frames.h"

namespace vswitch::bench {
namespace {

constexpr char kUplink[] = "lan";
constexpr char kNetdev[] = "lan0";
constexpr PortId kUplinkId = 0, kTenantId = 1;
constexpr int kPatienceMs = 5000;
constexpr std::uint64_t kCompletionRounds = 2;  // softnic.h

softnic_memory_wire* open_wire(const std::string& folder) {
  const std::string directory = folder + "/nic";
  softnic_memory_wire_options options{};
  options.directory = directory.c_str();
  options.device = "mlx5_0";
  options.netdev = kNetdev;
  options.mac[0] = 2;
  options.mac[5] = 0xee;
  options.mtu = UplinkRig::kMtu;
  softnic_memory_wire* const wire = softnic_open_memory_wire(&options);
  if (wire == nullptr) throw_errno("make a software NIC in", directory);
  return wire;
}

UplinkSpec uplink_spec(bool direct) {
  UplinkSpec spec;
  spec.name = kUplink;
  spec.netdev = kNetdev;
  spec.driver = UplinkDriver::verbs;
  spec.direct = direct;
  return spec;
}

PortSpec tenant_spec(const std::string& socket) {
  RingAttachSpec attach;
  attach.socket = socket;
  attach.uid = ::geteuid();
  PortSpec spec;
  spec.tenant = "red";
  spec.name = "web";
  spec.uplink = kUplink;
  spec.mac = mac_of(UplinkRig::kTenantPort, 0);
  spec.mtu = UplinkRig::kMtu;
  spec.attach = attach;
  return spec;
}

std::unique_ptr<Uplink> start_uplink(bool direct, PortContext& context) {
  auto uplink = std::make_unique<VerbsUplink>(uplink_spec(direct), context);
  uplink->start();
  uplink->steer({{{0, mac_of(UplinkRig::kTenantPort, 0)}}, {}, false});
  return uplink;
}

std::unique_ptr<Port> start_ring(const std::string& socket, PortContext& context) {
  auto ring = std::make_unique<RingPort>(tenant_spec(socket), context);
  ring->start();
  return ring;
}

std::vector<Mapping> scratch_of_one_worker() {
  std::vector<Mapping> scratch;
  scratch.push_back(Mapping::anonymous(kScratchBytes));
  return scratch;
}

}  // namespace

UplinkRig::UplinkRig(const std::string& folder, bool direct)
    : wire_(open_wire(folder)),
      quiescence_(1),
      context_{.reactor = reactor_, .quiescence = quiescence_, .workers = 1, .scratch = scratch_of_one_worker()},
      uplink_(start_uplink(direct, context_)),
      ring_(start_ring(socket_path(folder, kTenantPort), context_)),
      table_(TableBuilder(1)
                 .add_uplink(kUplinkId, kUplink, *uplink_, kMtu)
                 .add_tenant(kTenantId, tenant_spec(socket_path(folder, kTenantPort)), kUplinkId, *ring_)
                 .build()),
      published_(table_.get()),
      worker_(0, -1, Idle::poll, quiescence_, published_) {
  attach(socket_path(folder, kTenantPort));
  if (!uplink_->status().link_up) throw Error(ENETDOWN, "use uplink", kUplink, uplink_->status().detail);
}

// No step any more: ports may go.
UplinkRig::~UplinkRig() { quiescence_.offline(0); }

void UplinkRig::attach(const std::string& socket) {
  std::exception_ptr failure;
  std::thread attaching([&] {
    try {
      tenant_ = attach_to(socket, 0, kPatienceMs);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  reactor_.run_until([this] { return ring_->status().link_up; }, kPatienceMs * kMillisecond);
  attaching.join();
  if (failure) std::rethrow_exception(failure);
}

void UplinkRig::wait_for_completions() const {
  const std::uint64_t wanted = softnic_memory_wire_rounds(wire_.get()) + kCompletionRounds;
  spin_until([&] { return softnic_memory_wire_rounds(wire_.get()) >= wanted; }, "wait for", "the software NIC");
}

void UplinkRig::check() const {
  for (const char* name : {"violations", "error_completions", "drop_rule", "drop_no_buffer", "drop_length",
                           "drop_protection", "drop_queue_state", "drop_cq_overrun", "drop_channel_full",
                           "drop_wire_full", "drop_wire_down", "drop_kernel_full", "kernel_rx"}) {
    if (const std::uint64_t count = nic_counter(name); count != 0)
      throw Error(0, "measure", "a NIC that counts " + std::to_string(count) + " " + name);
  }
  for (const Port* port : {static_cast<const Port*>(uplink_.get()), static_cast<const Port*>(ring_.get())}) {
    for (const Counter& dropped : port->counters(0).drops) {
      if (dropped.read() != 0)
        throw Error(0, "measure", "a switch that dropped " + std::to_string(dropped.read()) + " frames");
    }
  }
}

std::string UplinkRig::describe() const { return uplink_->status().detail + "; " + ring_->status().detail; }

}  // namespace vswitch::bench
