#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/bench/frames.h"
#include "tests/bench/process.h"
#include "tests/bench/tenant.h"
#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

// Ping-pong: one frame goes from port 0 to port 1; when it is there, one goes back; the process polls. A round trip
// crosses the switch twice, so one hop (tenant's send to tenant's receive) is half of it. Prints one JSON object.

namespace vswitch::bench {
namespace {

constexpr Nanoseconds kGiveUp = kSecond;
constexpr std::size_t kMostRoundTrips = 4'000'000;
constexpr int kPatienceMs = 5000;

class Direction {
 public:
  Direction(vswitch_port* from, vswitch_port* to, std::uint32_t from_index, std::uint32_t to_index, std::uint32_t size)
      : from_(from), to_(to), writer_(from_index, to_index, 1, size) {
    frame_.length = size;
  }
  Direction(const Direction&) = delete;
  Direction& operator=(const Direction&) = delete;

  /// Sends one frame and polls until it is there. Throws Error when it is lost.
  void hop() {
    frame_.length = writer_.size();
    if (vswitch_tx_reserve(from_, 0, &frame_, 1) != 1) throw Error(0, "send", "a frame", "the ring has no room");
    writer_.write(&frame_, 1);
    vswitch_tx_commit(from_, 0, &frame_, 1);
    vswitch_frame arrived;
    std::uint64_t polls = 0;
    while (vswitch_rx_peek(to_, 0, &arrived, 1) == 0) {
      constexpr std::uint64_t kPollsPerClock = 1 << 16;
      if (++polls % kPollsPerClock != 0) continue;
      if (polls == kPollsPerClock) lost_at_ = monotonic_now() + kGiveUp;
      if (monotonic_now() > lost_at_) throw Error(0, "receive", "a frame", "none came within a second");
    }
    const std::uint32_t own = reader_.look(&arrived, 1);
    vswitch_rx_release(to_, 0, 1);
    if (own != 1) throw Error(0, "receive", "a frame", "one of somebody else came");
  }
  [[nodiscard]] const Findings& findings() const noexcept { return reader_.findings(); }

 private:
  vswitch_port* from_;
  vswitch_port* to_;
  FrameWriter writer_;
  FrameReader reader_{writer_};
  vswitch_frame frame_{};
  Nanoseconds lost_at_ = 0;
};

int body(int argc, char** argv) {
  Placement placement;
  std::string folder;
  std::uint32_t size = kLeastSize;
  double seconds = 1;
  po::options_description options("ring_hop: one frame there and back, again and again; options");
  add_placement_options(options, placement);
  options.add_options()("folder", po::value(&folder)->required(), "where the ports' sockets r0 and r1 are")(
      "size", po::value(&size), "bytes of each frame, without FCS")("seconds", po::value(&seconds), "how long");
  if (!parse(argc, argv, options)) return 0;
  apply(placement);
  const Tenant left = attach(folder, 0, kPatienceMs);
  const Tenant right = attach(folder, 1, kPatienceMs);
  Direction there(left.get(), right.get(), 0, 1, size);
  Direction back(right.get(), left.get(), 1, 0, size);
  std::vector<std::uint32_t> hops;  // ns
  hops.reserve(kMostRoundTrips);
  const auto end = monotonic_now() + static_cast<Nanoseconds>(seconds * static_cast<double>(kSecond));
  for (Nanoseconds now = monotonic_now(); now < end && hops.size() < kMostRoundTrips;) {
    there.hop();
    back.hop();
    const Nanoseconds after = monotonic_now();
    hops.push_back(static_cast<std::uint32_t>((after - now) / 2));
    now = after;
  }
  std::sort(hops.begin(), hops.end());
  const auto quantile = [&](double q) {
    return hops[static_cast<std::size_t>(q * static_cast<double>(hops.size() - 1))];
  };
  const Findings &a = there.findings(), &b = back.findings();
  std::cout << nlohmann::json{{"hop_ns", quantile(0.5)},
                              {"hop_p99_ns", quantile(0.99)},
                              {"round_trips", hops.size()},
                              {"lost", a.lost + b.lost},
                              {"reordered", a.reordered + b.reordered},
                              {"wrong", a.wrong + b.wrong}}
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("ring_hop", vswitch::bench::body, argc, argv); }
