#include "tests/ports/rig.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>

#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

std::vector<Mapping> scratch_for(std::size_t workers) {
  std::vector<Mapping> scratch;
  for (std::size_t w = 0; w < workers; ++w) scratch.push_back(Mapping::anonymous(kScratchBytes));
  return scratch;
}

}  // namespace

Rig::Rig(std::unique_ptr<Harness> harness, std::size_t workers)
    : harness_(std::move(harness)),
      quiescence_(workers),
      context_{.reactor = reactor_,
               .quiescence = quiescence_,
               .workers = workers,
               .scratch = scratch_for(workers),
               .changed = [this] { ++changes_; }},
      port_(harness_->make_port(context_)) {}

Rig::~Rig() { stop(); }

void Rig::start() {
  port_->start();
  harness_->connect(*port_, reactor_);
}

void Rig::stop() { port_->stop(); }

TestFrame Rig::copy_of(const Frame& frame) {
  TestFrame copy;
  copy.bytes.assign(frame.header, frame.header + frame.header_bytes);
  const auto rest = frame.rest();
  copy.bytes.insert(copy.bytes.end(), rest.begin(), rest.end());
  copy.vlan = frame.vlan;
  copy.offload = frame.offload;
  return copy;
}

std::vector<TestFrame> Rig::receive(std::size_t frames, std::size_t w, int quiet_ms) {
  std::vector<TestFrame> copies;
  Nanoseconds last = monotonic_now();
  while (copies.size() < frames && monotonic_now() - last < static_cast<Nanoseconds>(quiet_ms) * kMillisecond) {
    burst_.clear();
    const std::size_t received = queue(w).receive(burst_);
    EXPECT_GE(received, burst_.size());
    if (received == 0) {
      queue(w).reclaim();
      reactor_.run_once(0);
      continue;
    }
    last = monotonic_now();
    for (const Frame& frame : burst_) {
      EXPECT_EQ(frame.header_bytes, std::min<std::size_t>(frame.length, kHeaderBytes));
      EXPECT_EQ(std::memcmp(frame.header, frame.data, frame.header_bytes), 0)
          << "the header copy differs from the frame";
      copies.push_back(copy_of(frame));
    }
    queue(w).release(burst_);
  }
  return copies;
}

std::size_t Rig::transmit(const std::vector<TestFrame>& frames, std::size_t w) {
  std::vector<OwnedFrame> owned(frames.begin(), frames.end());
  std::vector<const Frame*> pointers;
  for (const OwnedFrame& frame : owned) pointers.push_back(&frame.frame());
  std::size_t taken = 0;
  while (taken < pointers.size()) {
    const std::size_t count = std::min(kBurstFrames, pointers.size() - taken);
    const std::size_t now = queue(w).transmit({pointers.data() + taken, count});
    EXPECT_LE(now, count);
    taken += now;
    if (now < count) break;
  }
  return taken;
}

std::vector<TestFrame> Rig::read(std::size_t frames, int quiet_ms) {
  std::vector<TestFrame> all;
  while (all.size() < frames) {
    std::vector<TestFrame> more = harness_->read(quiet_ms);
    if (more.empty()) break;
    all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return all;
}

OwnedFrame::OwnedFrame(const TestFrame& from) : bytes_(from.bytes), header_(kHeaderBytes) {
  frame_.length = static_cast<std::uint32_t>(bytes_.size());
  frame_.header_bytes = static_cast<std::uint16_t>(std::min(bytes_.size(), kHeaderBytes));
  std::memcpy(header_.data(), bytes_.data(), frame_.header_bytes);
  // Bytes that have a copy must be taken from the copy: what lies where the frame arrived may change at any moment.
  std::fill_n(bytes_.begin(), frame_.header_bytes, std::byte{0xee});
  frame_.data = bytes_.data();
  frame_.header = header_.data();
  frame_.vlan = from.vlan;
  frame_.offload = from.offload;
}

Waiter::Waiter(const Queue& queue) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, queue.wait_fd(), &event) != 0) throw_errno("watch", "a queue");
}

bool Waiter::wait(int timeout_ms) {
  epoll_event event{};
  return ::epoll_wait(epoll_.get(), &event, 1, timeout_ms) == 1;
}

}  // namespace vswitch::test
