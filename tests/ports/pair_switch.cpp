#include "tests/ports/pair_switch.h"

#include <iterator>
#include <utility>

#include "tests/ports/test_frames.h"
#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

constexpr std::uint32_t kMtu = 1500;
constexpr Nanoseconds kPatience = 3 * kSecond;

std::vector<Mapping> scratch_for_one_worker() {
  std::vector<Mapping> scratch;
  scratch.push_back(Mapping::anonymous(kScratchBytes));
  return scratch;
}

PortSpec tenant(const char* name, const Mac& mac, bool gro) {
  PortSpec spec;
  spec.tenant = "pair";
  spec.name = name;
  spec.uplink = "wire";
  spec.mac = mac;
  spec.mtu = kMtu;
  spec.gro = gro;
  return spec;
}

void append(std::vector<TestFrame>& to, std::vector<TestFrame> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

PairSwitch::PairSwitch()
    : context_{.reactor = reactor_, .quiescence = quiescence_, .workers = 1, .scratch = scratch_for_one_worker()} {
  unused_wire_.start();
}

PairSwitch::~PairSwitch() {
  for (const auto& plugged : ports_) plugged->port->stop();
}

PluggedPort& PairSwitch::plug(std::unique_ptr<Harness> far, bool is_uplink) {
  PluggedPort& plugged = *ports_.emplace_back(std::make_unique<PluggedPort>());
  plugged.far = std::move(far);
  plugged.is_uplink = is_uplink;
  plugged.port = plugged.far->make_port(context_);
  plugged.port->start();
  plugged.far->connect(*plugged.port, reactor_);
  return plugged;
}

void PairSwitch::join(PluggedPort& from, PluggedPort& to, bool gro) {
  constexpr PortId kWire = 0;
  constexpr PortId kSender = 1;
  constexpr PortId kReceiver = 2;
  Port& wire = from.is_uplink ? *from.port : to.is_uplink ? *to.port : unused_wire_;
  TableBuilder builder(1);
  builder.add_uplink(kWire, "wire", wire, kMtu);
  if (!from.is_uplink) builder.add_tenant(kSender, tenant("from", kFrom, gro), kWire, *from.port);
  if (!to.is_uplink) builder.add_tenant(kReceiver, tenant("to", kTo, gro), kWire, *to.port);
  std::unique_ptr<const Table> next = builder.build();
  published_.replace(next.get());
  table_ = std::move(next);
  from_ = &from;
  to_ = &to;
}

void PairSwitch::step() noexcept {
  (void)worker_.step(monotonic_now());
  quiescence_.offline(0);  // this thread is the control thread too: it must never wait for itself
}

std::vector<TestFrame> PairSwitch::forward(std::span<const TestFrame> frames, std::size_t expected) {
  const Counter& taken = from_->port->counters(0).rx_frames;
  const std::uint64_t all = taken.read() + frames.size();
  for (const TestFrame& frame : frames) {
    if (!from_->far->send(frame)) throw_errno("send", "a test frame");
  }
  std::vector<TestFrame> arrived;
  const Nanoseconds end = monotonic_now() + kPatience;
  while ((arrived.size() < expected || taken.read() < all) && monotonic_now() < end) {
    step();
    append(arrived, to_->far->read(1));
  }
  step();
  append(arrived, to_->far->read(0));
  return arrived;
}

std::vector<TestFrame> PairSwitch::leftovers(int quiet_ms) {
  step();
  return to_->far->read(quiet_ms);
}

}  // namespace vswitch::test
