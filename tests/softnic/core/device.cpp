#include "tests/softnic/core/device.h"

#include <cerrno>

namespace softnic {
namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::uint16_t kMostPriorities = 0x1000;

bool group(Bytes frame) noexcept { return (frame[0] & 1) != 0; }

}  // namespace

Device::Device(Board& board) : board_(board) {}

void Device::add_port(std::unique_ptr<FrameEnd> wire, std::unique_ptr<FrameEnd> kernel) {
  ports_.push_back({std::move(wire), std::move(kernel)});
  check_links();
}

OwnerId Device::open(Sink& sink) {
  const OwnerId owner = next_owner_++;
  owners_[owner] = &sink;
  return owner;
}

void Device::close(OwnerId owner) {
  steering_.remove_owner(owner);
  owners_.erase(owner);
}

std::pair<int, RuleId> Device::add_rule(const Rule& rule) {
  if (rule.port == 0 || rule.port > ports_.size() || rule.priority >= kMostPriorities) return {EINVAL, 0};
  return {0, steering_.add(rule)};
}

int Device::remove_rule(OwnerId owner, RuleId id) { return steering_.remove(owner, id) ? 0 : EINVAL; }

bool Device::up(std::uint8_t port) const noexcept {
  return board_.carrier[port - 1U].load(std::memory_order_relaxed) != 0 &&
         board_.link_down[port - 1U].load(std::memory_order_relaxed) == 0;
}

void Device::deliver(std::uint8_t port, Bytes frame) {
  for (const Delivery& to : steered_.to) {
    const auto owner = owners_.find(to.queue.owner);
    if (owner == owners_.end()) continue;
    board_.count(Counter::delivered);
    owner->second->deliver(port, to, frame);
  }
}

void Device::to_wire(std::uint8_t port, Bytes frame) {
  FrameEnd* wire = ports_[port - 1U].wire.get();
  if (wire == nullptr || !up(port)) {
    board_.count(Counter::drop_wire_down);
    return;
  }
  switch (wire->send(frame)) {
    case Sent::yes:
      board_.count(Counter::wire_tx);
      break;
    case Sent::full:
      board_.count(Counter::drop_wire_full);
      break;
    case Sent::down:
      board_.count(Counter::drop_wire_down);
      break;
  }
}

void Device::to_kernel(std::uint8_t port, Bytes frame) {
  FrameEnd* kernel = ports_[port - 1U].kernel.get();
  if (kernel == nullptr) {
    board_.count(Counter::drop_no_kernel);
    return;
  }
  board_.count(kernel->send(frame) == Sent::yes ? Counter::kernel_rx : Counter::drop_kernel_full);
}

void Device::from_wire(std::uint8_t port, Bytes frame) {
  board_.count(Counter::wire_rx);
  if (frame.size() < kEthernetHeader || !up(port)) {
    board_.count(Counter::drop_wire_down);
    return;
  }
  steering_.classify(port, frame, parse(frame), steered_);
  if (steered_.dropped) board_.count(Counter::drop_rule);
  const std::size_t takers = steered_.to.size() + (steered_.kernel ? 1 : 0);
  if (takers > 1) board_.count(Counter::copies, takers - 1);
  deliver(port, frame);
  if (steered_.kernel) to_kernel(port, frame);
}

bool Device::loop(std::uint8_t port, Bytes frame, QueueRef from, bool to_the_kernel) {
  steering_.classify(port, frame, parse(frame), steered_);
  std::erase_if(steered_.to, [&](const Delivery& to) { return to.queue == from; });
  board_.count(Counter::loopback, steered_.to.size());
  if (steered_.dropped) board_.count(Counter::drop_rule);
  const bool trapped = steered_.trapped;
  const bool kernel = steered_.kernel;
  deliver(port, frame);
  if (group(frame)) {
    if (to_the_kernel && kernel) to_kernel(port, frame);
    return false;
  }
  return trapped;
}

void Device::transmit(QueueRef from, std::uint8_t port, Bytes frame) {
  if (port == 0 || port > ports_.size() || frame.size() < kEthernetHeader) return;
  if (owners_.size() > 1) {
    if (loop(port, frame, from, true)) return;
  } else {
    steered_.to.clear();
    steering_.sniff(port, steered_);
    deliver(port, frame);
  }
  to_wire(port, frame);
}

void Device::from_kernel(std::uint8_t port, Bytes frame) {
  board_.count(Counter::kernel_tx);
  if (frame.size() < kEthernetHeader) return;
  if (owners_.size() > 1 && loop(port, frame, {}, false)) return;
  to_wire(port, frame);
}

std::size_t Device::poll(std::size_t most) {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const auto port = static_cast<std::uint8_t>(i + 1);
    for (std::size_t n = 0; ports_[i].wire && n < most; ++n, ++taken) {
      const Bytes frame = ports_[i].wire->receive();
      if (frame.empty()) break;
      from_wire(port, frame);
    }
    for (std::size_t n = 0; ports_[i].kernel && n < most; ++n, ++taken) {
      const Bytes frame = ports_[i].kernel->receive();
      if (frame.empty()) break;
      from_kernel(port, frame);
    }
  }
  return taken;
}

void Device::check_links() {
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const bool carrier = ports_[i].wire && ports_[i].wire->carrier();
    board_.carrier[i].store(carrier ? 1 : 0, std::memory_order_relaxed);
    if (ports_[i].wire) board_.count(Counter::lost_wire, ports_[i].wire->lost());
    if (ports_[i].kernel) board_.count(Counter::lost_kernel, ports_[i].kernel->lost());
  }
}

}  // namespace softnic
