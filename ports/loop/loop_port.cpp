#include "ports/loop/loop_port.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vswitch/base/error.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/core/intake.h"

namespace vswitch {

LoopQueue::LoopQueue(PortCounters& counters) : Queue(counters), event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_.valid()) throw_errno("create", "an eventfd for a loop queue");
}

bool LoopQueue::inject(std::span<const std::byte> bytes, std::uint16_t vlan, const Offload& offload) noexcept {
  std::byte* to = incoming_.reserve(bytes.size());
  if (to == nullptr) return false;
  std::ranges::copy(bytes, to);
  incoming_.commit(bytes.size(), vlan, offload);
  // Read-modify-write, so that either this sees armed_ or arm() sees the frame (its exchange reads what this wrote).
  if (armed_.exchange(false, std::memory_order_seq_cst)) ::eventfd_write(event_.get(), 1);
  return true;
}

void LoopQueue::limit(std::size_t room, Drop reason) noexcept {
  room_ = room;
  limit_reason_ = reason;
}

std::size_t LoopQueue::receive(Burst& out) noexcept {
  const std::size_t offered = std::min(incoming_.size() - taken_, out.room());
  for (std::size_t i = 0; i < offered; ++i) {
    const LoopFrame from = incoming_.peek(taken_++);
    if (from.bytes.size() < kEthernetHeaderBytes) {
      counters().drop(Drop::malformed);
      continue;
    }
    Frame& frame = out.next();
    frame.data = from.bytes.data();
    frame.length = static_cast<std::uint32_t>(from.bytes.size());
    frame.header_bytes = static_cast<std::uint16_t>(std::min(from.bytes.size(), kHeaderBytes));
    std::memcpy(frame.header, frame.data, frame.header_bytes);
    frame.vlan = from.vlan;
    if (!take_offload(frame, from.offload, OffloadOrigin::kernel, counters())) continue;
    out.add();
    ++held_;
  }
  return offered;
}

std::size_t LoopQueue::transmit(std::span<const Frame* const> frames) noexcept {
  std::size_t taken = 0;
  for (const Frame* frame : frames) {
    if (room_ == 0) {
      refusal_ = limit_reason_;
      break;
    }
    std::byte* to = outgoing_.reserve(frame->length);
    if (to == nullptr) {
      refusal_ = Drop::dest_full;
      break;
    }
    copy_out(to, *frame, false);
    outgoing_.commit(frame->length, frame->vlan, frame->left_to_do());
    if (room_ != std::numeric_limits<std::size_t>::max()) --room_;
    ++taken;
  }
  return taken;
}

void LoopQueue::release(Burst& /*lent*/) noexcept {
  incoming_.pop(taken_);
  released_ += held_;
  taken_ = 0;
  held_ = 0;
}

bool LoopQueue::arm() noexcept {
  armed_.exchange(true, std::memory_order_seq_cst);
  if (incoming_.size() == taken_) return true;
  armed_.store(false, std::memory_order_relaxed);
  return false;
}

LoopPort::LoopPort(std::size_t workers, Mac host_mac, std::uint32_t mtu)
    : host_mac_(host_mac), mtu_(mtu), counters_(workers) {}

void LoopPort::start() {
  std::vector<std::unique_ptr<LoopQueue>> queues;
  for (PortCounters& counters : counters_) queues.push_back(std::make_unique<LoopQueue>(counters));
  queues_ = std::move(queues);
  permit(permitted_);
}

void LoopPort::permit(OffloadCaps offloads) {
  permitted_ = offloads;
  for (const auto& queue : queues_) queue->set_offloads(offloads);
}

void LoopPort::stop() noexcept {
  queues_.clear();
  steering_ = {};
}

PortStatus LoopPort::status() const {
  if (queues_.empty()) return {false, mtu_, "loop, stopped"};
  return {link_, mtu_, "loop, " + std::to_string(queues_.size()) + " queues in memory", permitted_};
}

void LoopPort::steer(const Steering& wanted) {
  for (const Steering::Rule& rule : wanted.unicast) {
    if (rule.mac == host_mac_) {
      throw Error(EADDRINUSE, "steer", rule.mac.to_string(),
                  "this is the host's own address; give the port another MAC");
    }
  }
  steering_ = wanted;
}

}  // namespace vswitch
