#include "tests/bench/frames.h"

#include <array>
#include <bit>
#include <string>

#include "vswitch/base/error.h"

namespace vswitch::bench {
namespace {

constexpr std::array<std::byte, 2> kExperimental{std::byte{0x88}, std::byte{0xb5}};  // IEEE 802 local experimental
constexpr std::size_t kEthernetBytes = 14;
constexpr std::size_t kSourceAt = 6;
constexpr std::size_t kPortBytes = 4;  ///< of an address, the same for all addresses of a port

}  // namespace

Mac mac_of(std::uint32_t port, std::uint32_t which) noexcept {
  const auto byte = [](std::uint32_t value) { return static_cast<std::uint8_t>(value); };
  return Mac{{2, 0, byte(port >> 8), byte(port), byte(which >> 8), byte(which)}};
}

FrameWriter::FrameWriter(std::uint32_t from_port, std::uint32_t to_port, std::uint32_t macs, std::uint32_t size)
    : bytes_(size), size_(size), mac_mask_(macs - 1) {
  if (!std::has_single_bit(macs)) throw Error(0, "use " + std::to_string(macs) + " addresses", "not a power of two");
  if (size < kLeastSize || size > kMostSize)
    throw Error(0, "send frames of " + std::to_string(size) + " bytes", "64 to 9216 are possible");
  const Mac to = mac_of(to_port, 0);
  const Mac from = mac_of(from_port, 0);
  std::memcpy(bytes_.data(), to.bytes.data(), to.bytes.size());
  std::memcpy(bytes_.data() + to.bytes.size(), from.bytes.data(), from.bytes.size());
  std::memcpy(bytes_.data() + 12, kExperimental.data(), kExperimental.size());
  for (std::size_t i = kEthernetBytes; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i * 131);
}

bool FrameWriter::is_right(const vswitch_frame& frame) const noexcept {
  constexpr std::size_t kHead = kNumberAt + sizeof(std::uint64_t);
  if (frame.length != size_) return false;
  std::array<std::byte, kHead> head{};
  std::memcpy(head.data(), bytes_.data(), head.size());
  std::uint64_t number;
  std::memcpy(&number, static_cast<const std::byte*>(frame.data) + kNumberAt, sizeof(number));
  std::memcpy(head.data() + kNumberAt, &number, sizeof(number));
  if (mac_mask_ != 0) address(head.data(), number & mac_mask_);
  return std::memcmp(frame.data, head.data(), kHead) == 0 &&
         std::memcmp(static_cast<const std::byte*>(frame.data) + kHead, bytes_.data() + kHead, size_ - kHead) == 0;
}

bool FrameWriter::is_source_of(const vswitch_frame& frame) const noexcept {
  return std::memcmp(static_cast<const std::byte*>(frame.data) + kSourceAt, bytes_.data() + kSourceAt, kPortBytes) == 0;
}

bool FrameReader::note(const vswitch_frame& frame, std::uint64_t number, std::uint64_t expected) noexcept {
  if (!source_.is_source_of(frame)) return false;
  if (frame.length != source_.size()) ++findings_.wrong;
  if (number > expected) findings_.lost += number - expected;
  if (number < expected) ++findings_.reordered;
  return true;
}

}  // namespace vswitch::bench
