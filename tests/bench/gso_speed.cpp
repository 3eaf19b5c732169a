#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ports/ring/attachment.h"
#include "tests/bench/process.h"
#include "tests/unit/offload_frames.h"
#include "vswitch/base/error.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/adapt.h"
#include "vswitch/core/coalesce.h"
#include "vswitch/net/offload_check.h"

// What it takes to put GSO frames into a ring port's RX ring: whole, or cut into segments; and MTU-sized ones, as they
// are or merged. The code is the switch's own (Adapter, Coalescer, RxRing); the tenant takes everything at once.

namespace vswitch::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kNear = 4;  // frames in turn: as many as a ring's default arena holds; they stay in the L2 cache
/// 32 MiB of them: no L2 cache holds them, as it does not hold what a tenant has just written on another core.
constexpr std::size_t kFar = 512;
constexpr std::size_t kTcpHeaders = 66;

/// An RX ring and a tenant that reads nothing of what it releases.
class Sink {
 public:
  Sink()
      : attachment_(kGeometry, 0, false),
        memory_(Mapping::shared(attachment_.tenant_fd(), vswitch_tenant_memory_bytes(&kGeometry), true)),
        ring_(attachment_.worker(0).rx.front()) {}

  void put(std::span<const Frame* const> frames) {
    const std::size_t taken = ring_.put(frames, false);
    if (taken != frames.size()) throw Error(ENOBUFS, "put frames into", "an empty ring");
    (void)ring_.publish();
    head_ += static_cast<std::uint32_t>(taken);
    auto* lines =
        reinterpret_cast<vswitch_consumer_lines*>(memory_.data() + vswitch_rx_consumer_offset(&kGeometry, 0, 0));
    std::atomic_ref(lines->tail).store(head_, std::memory_order_release);
  }

 private:
  static constexpr vswitch_geometry kGeometry{1, 1, 1024, 256 << 10, 0};  // the daemon's defaults
  Attachment attachment_;
  Mapping memory_;
  RxRing& ring_;
  std::uint32_t head_ = 0;
};

/// Frames as a queue lends them, packed one behind the other.
class Sources {
 public:
  explicit Sources(const std::vector<test::BuiltFrame>& frames) : headers_(frames.size()), lent_(frames.size()) {
    constexpr std::size_t kLine = 64;
    std::size_t bytes = 0;
    for (const auto& frame : frames) bytes += (frame.bytes.size() + kLine - 1) / kLine * kLine;
    arena_ = Mapping::anonymous(bytes);
    std::size_t at = 0;
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const test::Bytes& from = frames[i].bytes;
      Frame& frame = lent_[i];
      std::ranges::copy(from, arena_.data() + at);
      frame.data = arena_.data() + at;
      frame.header = headers_[i].data();
      frame.length = static_cast<std::uint32_t>(from.size());
      frame.header_bytes = static_cast<std::uint16_t>(std::min(from.size(), kHeaderBytes));
      frame.offload = frames[i].offload;
      std::copy_n(from.begin(), frame.header_bytes, frame.header);
      at += (from.size() + kLine - 1) / kLine * kLine;
    }
  }
  [[nodiscard]] const std::vector<Frame>& frames() const noexcept { return lent_; }

 private:
  Mapping arena_;
  std::vector<std::array<std::byte, kHeaderBytes>> headers_;
  std::vector<Frame> lent_;
};

test::BuiltFrame gso_frame(bool tcp, std::size_t bytes, std::uint16_t segment) {
  const std::size_t headers = tcp ? kTcpHeaders : 42;
  return test::build({.tcp = tcp, .flags = 0x010, .payload = bytes - headers, .gso_size = segment});
}

/// What is timed: hands `turn`-th work over; @return bytes of frames as they came in
using Work = std::function<std::size_t(std::size_t turn)>;

/// GSO frames to a destination with `caps`.
Work gso_work(Sink& sink, Adapter& adapter, const Sources& sources, OffloadCaps caps) {
  return [&sink, &adapter, &sources, caps](std::size_t turn) -> std::size_t {
    const Frame& frame = sources.frames()[turn % sources.frames().size()];
    if (!Adapter::needed(frame, caps)) {
      const Frame* whole = &frame;
      sink.put({&whole, 1});
      return frame.length;
    }
    std::array<const Frame*, kMaxSegments> pieces;
    const std::size_t count = adapter.adapt(frame, caps, pieces);
    if (count == 0) throw Error(0, "cut", "a GSO frame");
    sink.put(std::span(pieces).first(count));
    adapter.reset();
    return frame.length;
  };
}

/// A burst of finished MTU-sized frames of one flow, merged or not.
Work gro_work(Sink& sink, Coalescer& coalescer, const Sources& sources, bool merge) {
  return [&sink, &coalescer, &sources, merge](std::size_t) -> std::size_t {
    std::array<const Frame*, kBurstFrames> burst;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < kBurstFrames; ++i) {
      burst[i] = &sources.frames()[i];
      bytes += burst[i]->length;
    }
    const std::size_t count = merge ? coalescer.merge(burst, OffloadCaps::all()) : burst.size();
    if (merge && count > 4) throw Error(0, "merge", "a burst of one flow");
    sink.put(std::span<const Frame* const>(burst).first(count));
    return bytes;
  };
}

double gbits_per_second(const Work& work, double seconds) {
  std::size_t turn = 0;
  std::size_t bytes = 0;
  const auto began = Clock::now();
  const auto end = began + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  Clock::time_point now;
  do {
    for (int i = 0; i < 64; ++i) bytes += work(turn++);
    now = Clock::now();
  } while (now < end);
  return static_cast<double>(bytes) * 8e-9 / std::chrono::duration<double>(now - began).count();
}

std::vector<test::BuiltFrame> same(const test::BuiltFrame& frame, std::size_t count) {
  return std::vector<test::BuiltFrame>(count, frame);
}

/// The segments of 64 frames' worth of one flow, finished.
std::vector<test::BuiltFrame> flow_of_segments() {
  constexpr std::size_t kPayload = 1448;
  std::vector<test::BuiltFrame> frames;
  for (std::size_t i = 0; i < kBurstFrames; ++i) {
    test::BuiltFrame frame =
        test::build({.flags = 0x010, .sequence = 1 + i * kPayload, .id = i, .payload = kPayload, .gso_size = 0});
    const auto summed = std::span<const std::byte>(frame.bytes).subspan(frame.l4);
    test::set16(frame.bytes, frame.l4 + frame.offload.csum_offset, 0xffff ^ test::reference_sum(summed));
    frame.offload = {};
    frames.push_back(std::move(frame));
  }
  return frames;
}

int body(int argc, char** argv) {
  Placement placement;
  double seconds = 1;
  po::options_description options("gso_speed: cutting and merging frames on their way into a ring; options");
  add_placement_options(options, placement);
  std::string only;
  options.add_options()("seconds", po::value(&seconds), "for each case")("case", po::value(&only), "this case alone");
  if (!parse(argc, argv, options)) return 0;
  apply(placement);

  Sink sink;
  Adapter adapter;
  Coalescer coalescer;
  const Sources tcp(same(gso_frame(true, 65'520, 1448), kFar));
  const Sources jumbo(same(gso_frame(true, 65'520, 8948), kFar));
  const Sources udp(same(gso_frame(false, 65'520, 1472), kFar));
  const Sources near(same(gso_frame(true, 65'520, 1448), kNear));
  const Sources segments(flow_of_segments());
  const OffloadCaps none;
  const OffloadCaps checksum{.checksum = true};
  std::vector<std::pair<std::string, Work>> cases{
      {"copy-64k", gso_work(sink, adapter, tcp, OffloadCaps::all())},
      {"gso-64k-1448", gso_work(sink, adapter, tcp, none)},
      {"gso-64k-1448-partial", gso_work(sink, adapter, tcp, checksum)},
      {"gso-64k-8948", gso_work(sink, adapter, jumbo, none)},
      {"uso-64k-1472", gso_work(sink, adapter, udp, none)},
      {"near-copy-64k", gso_work(sink, adapter, near, OffloadCaps::all())},
      {"near-gso-64k-1448", gso_work(sink, adapter, near, none)},
      {"near-gso-64k-1448-partial", gso_work(sink, adapter, near, checksum)},
      {"copy-64x1514", gro_work(sink, coalescer, segments, false)},
      {"gro-64x1514", gro_work(sink, coalescer, segments, true)},
  };
  if (!only.empty()) std::erase_if(cases, [&](const auto& one) { return one.first != only; });
  if (cases.empty()) throw Error(0, "find case", only);
  // In slices, by turns: what slows the machine down for a while slows all cases down.
  constexpr int kSlices = 10;
  nlohmann::json result = nlohmann::json::object();
  std::vector<double> sums(cases.size());
  for (int slice = 0; slice < kSlices; ++slice) {
    for (std::size_t i = 0; i < cases.size(); ++i) sums[i] += gbits_per_second(cases[i].second, seconds / kSlices);
  }
  for (std::size_t i = 0; i < cases.size(); ++i) result[cases[i].first] = sums[i] / kSlices;
  std::cout << result << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("gso_speed", vswitch::bench::body, argc, argv); }
