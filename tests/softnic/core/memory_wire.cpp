#include "tests/softnic/core/memory_wire.h"

#include <cstring>
#include <stdexcept>

namespace softnic {
namespace {

constexpr std::size_t kEthernetAndTags = 14 + 2 * 4;

class NicEnd final : public FrameEnd {
 public:
  NicEnd(FrameRing& in, FrameRing& out) noexcept : in_(in), out_(out) {}

  [[nodiscard]] int fd() const noexcept override { return -1; }
  [[nodiscard]] Bytes receive() override {
    if (shown_) in_.drop();
    const Bytes frame = in_.front();
    shown_ = !frame.empty();
    return frame;
  }
  [[nodiscard]] Sent send(Bytes frame) override { return out_.put(frame); }
  [[nodiscard]] std::uint64_t lost() noexcept override { return 0; }
  [[nodiscard]] bool carrier() const noexcept override { return true; }

 private:
  FrameRing& in_;
  FrameRing& out_;
  bool shown_ = false;  // the front of in_ was given out
};

}  // namespace

FrameRing::FrameRing(std::size_t slots, std::size_t frame_bytes)
    : frame_bytes_((frame_bytes + kLine - 1) / kLine * kLine), lengths_(slots), bytes_(slots * frame_bytes_) {
  if (slots == 0 || (slots & (slots - 1)) != 0) throw std::invalid_argument("a ring's size is a power of two");
}

Sent FrameRing::put(Bytes frame) noexcept {
  if (frame.empty() || frame.size() > frame_bytes_) return Sent::down;
  const std::uint64_t index = put_.load(std::memory_order_relaxed);
  if (index - dropped_.load(std::memory_order_acquire) == lengths_.size()) return Sent::full;
  std::memcpy(bytes_.data() + at(index) * frame_bytes_, frame.data(), frame.size());
  lengths_[at(index)] = static_cast<std::uint32_t>(frame.size());
  put_.store(index + 1, std::memory_order_release);
  return Sent::yes;
}

Bytes FrameRing::front() const noexcept {
  const std::uint64_t index = dropped_.load(std::memory_order_relaxed);
  if (index == put_.load(std::memory_order_acquire)) return {};
  return {bytes_.data() + at(index) * frame_bytes_, lengths_[at(index)]};
}

void FrameRing::drop() noexcept {
  dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

MemoryWire::MemoryWire(unsigned mtu)
    : to_nic_(kSlots, mtu + kEthernetAndTags), from_nic_(kSlots, mtu + kEthernetAndTags) {}

std::unique_ptr<FrameEnd> MemoryWire::nic_end() { return std::make_unique<NicEnd>(to_nic_, from_nic_); }

}  // namespace softnic
