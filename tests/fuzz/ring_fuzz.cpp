// A tenant's memory, written as the input says, under the switch's ends of its rings.
//
// Input: a sequence of steps, a byte that says which and its operands; see Program::step(). What a ring promises is
// asserted here; memory errors are AddressSanitizer's to find: the blocks end where their guards do.

#include <sanitizer/asan_interface.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <span>

#include "ports/ring/rings.h"
#include "vswitch/base/fd.h"

namespace {

using namespace vswitch;

constexpr vswitch_geometry kGeometry{1, 1, 64, 256 << 10, 0};
constexpr std::size_t kBurst = 16;  // frames put at once: large ones take their time under sanitizers
constexpr std::size_t kLongestInput = 4096;

void require(bool condition) {
  if (!condition) std::abort();
}

/// A producer block and nothing behind its guard.
class Block {
 public:
  Block() : bytes_(static_cast<std::byte*>(std::aligned_alloc(VSWITCH_RING_PAGE, size()))) {
    require(bytes_ != nullptr);
    std::memset(bytes_, 0, size());
    ASAN_POISON_MEMORY_REGION(bytes_ + used(), size() - used());
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    ASAN_UNPOISON_MEMORY_REGION(bytes_, size());
    std::free(bytes_);
  }
  [[nodiscard]] std::byte* start() const { return bytes_; }
  [[nodiscard]] std::uint32_t& head() const { return reinterpret_cast<vswitch_producer_line*>(bytes_)->head; }
  [[nodiscard]] vswitch_descriptor& descriptor(std::uint32_t i) const {
    return reinterpret_cast<vswitch_descriptor*>(bytes_ + vswitch_descriptors_offset())[i % kGeometry.ring_frames];
  }
  [[nodiscard]] std::byte* arena() const { return bytes_ + vswitch_arena_offset(&kGeometry); }

 private:
  static std::size_t size() { return vswitch_producer_bytes(&kGeometry, 0); }
  static std::size_t used() { return vswitch_arena_offset(&kGeometry) + kGeometry.arena_bytes + VSWITCH_RING_GUARD; }
  std::byte* bytes_;
};

class Program {
 public:
  Program(std::span<const std::uint8_t> input, int wake_fd)
      : input_(input),
        counters_(std::make_unique<PortCounters>()),
        burst_(std::make_unique<Burst>()),
        tx_(tenant_.start(), switch_lines_, kGeometry, true),
        rx_(switch_.start(), tenant_lines_, kGeometry, wake_fd) {}

  void run() {
    while (!input_.empty()) step();
  }

 private:
  template <class T>
  T take() {
    T value{};
    const std::size_t bytes = std::min(sizeof(T), input_.size());
    std::memcpy(&value, input_.data(), bytes);
    input_ = input_.subspan(bytes);
    return value;
  }

  void step() {
    switch (take<std::uint8_t>() % 12) {
      case 0:
        tenant_.head() = take<std::uint32_t>();
        break;
      case 1:
        tenant_.head() = switch_lines_.tail + take<std::uint8_t>() % 80;
        break;
      case 2:
        tenant_.descriptor(take<std::uint8_t>()) = take<vswitch_descriptor>();
        break;
      case 3:
        tenant_.descriptor(take<std::uint8_t>()) = {take<std::uint16_t>(), take<std::uint16_t>(), {}};
        break;
      case 4: {
        const std::size_t at = take<std::uint16_t>();
        const std::size_t bytes = std::min<std::size_t>(take<std::uint8_t>(), input_.size());
        std::memcpy(tenant_.arena() + at, input_.data(), bytes);
        input_ = input_.subspan(bytes);
        break;
      }
      case 5:
        receive(take<std::uint8_t>());
        break;
      case 6:
        tenant_lines_.tail = take<std::uint32_t>();
        break;
      case 7:
        tenant_lines_.tail = switch_.head() - take<std::uint8_t>() % 80;
        break;
      case 8:
        tenant_lines_.need_wake = take<std::uint8_t>();
        break;
      case 10:
        keeping_ = take<std::uint64_t>();
        break;
      case 11:
        let_go(1 + take<std::uint8_t>() % 8);
        break;
      default:
        put(take<std::uint32_t>());
    }
  }

  void receive(unsigned how) {
    burst_->clear(1 + how % kBurstFrames);
    const std::uint32_t before = switch_lines_.tail;
    const std::size_t received = tx_.receive(*burst_, (how & 0x80U) != 0 ? 100 : 0, *counters_);
    require(burst_->size() <= received);
    for (const Frame& frame : *burst_) {
      require(frame.length >= kEthernetHeaderBytes && frame.length <= kMaxFrameBytes);
      require(frame.header_bytes <= std::min<std::size_t>(frame.length, kHeaderBytes));
      require(frame.header_bytes >= std::min<std::size_t>(frame.length, kHeaderBytes - kVlanTagBytes));
      const std::byte* arena = tenant_.arena();
      require(frame.data >= arena && frame.data + frame.length <= arena + kGeometry.arena_bytes);
    }
    if ((how & 0x40U) != 0) tenant_.head() ^= 5;  // rewritten while the frames are lent
    for (std::size_t i = 0; i < burst_->size(); ++i) {
      if ((keeping_ >> i & 1U) != 0) keep((*burst_)[i]);
    }
    tx_.release();
    if (kept_.empty()) require(received == 0 || switch_lines_.tail != before);
    require(tx_.settle() == kept_.empty());
    if (received == 0) tx_.arm();
  }

  void keep(const Frame& frame) {
    if (frame.kept == nullptr) {
      require(!kept_.empty());  // half of the ring is kept, or waits for what is
      return;
    }
    require(!frame.kept->exchange(true));  // nobody else has it
    kept_.push_back(frame.kept);
  }

  void let_go(std::size_t count) {
    const std::uint32_t before = switch_lines_.tail;
    for (; count > 0 && !kept_.empty(); --count) {
      kept_.front()->store(false);
      kept_.pop_front();
    }
    require(tx_.settle() == kept_.empty() && switch_lines_.tail - before <= kGeometry.ring_frames);
  }

  /// A burst of equal frames into the tenant's ring.
  void put(std::uint32_t what) {
    const std::uint32_t length = 14 + what % (kMaxFrameBytes - 14);
    std::array<std::byte, kHeaderBytes> header;
    header.fill(static_cast<std::byte>(what));
    Frame frame;
    frame.data = source_.data();
    frame.header = header.data();
    frame.length = length;
    frame.header_bytes = static_cast<std::uint16_t>(std::min<std::size_t>(length, kHeaderBytes));
    frame.vlan = (what & 0x8000'0000U) != 0 ? 7 : 0;
    std::array<const Frame*, kBurst> burst;
    burst.fill(&frame);
    const std::uint32_t before = switch_.head();
    const std::size_t done = rx_.put(std::span(burst).first(1 + (what >> 24) % kBurst), true);
    require(switch_.head() == before);
    rx_.publish();
    require(switch_.head() == before + done && done <= kGeometry.ring_frames);
    for (std::size_t i = 0; i < done; ++i) {
      const vswitch_descriptor d = switch_.descriptor(before + static_cast<std::uint32_t>(i));
      require(d.length == length + (frame.vlan != 0 ? 4 : 0) && d.offset % VSWITCH_RING_LINE == 0);
      require(d.offset <= kGeometry.arena_bytes && d.length <= kGeometry.arena_bytes - d.offset);
      require(switch_.arena()[d.offset] == header[0] && switch_.arena()[d.offset + 11] == header[11]);
    }
  }

  static inline std::array<std::byte, kMaxFrameBytes> source_{};
  std::span<const std::uint8_t> input_;
  Block tenant_;
  Block switch_;
  vswitch_consumer_lines switch_lines_{};
  vswitch_consumer_lines tenant_lines_{};
  std::unique_ptr<PortCounters> counters_;
  std::unique_ptr<Burst> burst_;
  std::uint64_t keeping_ = 0;  // which frames of a burst are kept
  std::deque<Kept*> kept_;
  TxRing tx_;
  RxRing rx_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > kLongestInput) return 0;
  static const std::array<Fd, 2> wake = [] {
    int ends[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    return std::array<Fd, 2>{Fd(ends[0]), Fd(ends[1])};
  }();
  Program({data, size}, wake[0].get()).run();
  std::array<char, 512> bytes;
  while (::recv(wake[1].get(), bytes.data(), bytes.size(), MSG_DONTWAIT) == static_cast<ssize_t>(bytes.size()))
    continue;
  return 0;
}
