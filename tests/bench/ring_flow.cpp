#include <sys/prctl.h>

#include <deque>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tests/bench/frames.h"
#include "tests/bench/process.h"
#include "tests/bench/tenant.h"
#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

// Source and sink in one process: attaches to ports 0..N-1 below a folder and sends from each even one to the odd one
// behind it, flat out or at a rate. Prints one JSON object.

namespace vswitch::bench {
namespace {

constexpr Nanoseconds kTick = 100 * kMicrosecond;  // a paced flow sleeps that long between its bursts
constexpr Nanoseconds kDrain = kSecond;            // a busy machine may keep the switch off its CPU for long
constexpr std::size_t kBurstsPerClock = 64;        // reading the clock each turn would cost
constexpr int kPatienceMs = 5000;

struct Settings {
  Placement placement;
  std::string folder;
  std::uint32_t first = 0;
  std::uint32_t ports = 2;
  std::uint32_t active_pairs = 1;
  std::uint32_t macs = 1;
  std::uint32_t size = kLeastSize;
  double seconds = 1;
  double warm_up = 0.2;
  double rate = 0;
  bool one_way = false;
};

/// One pair of ports with traffic.
class Flow {
 public:
  Flow(vswitch_port* from, vswitch_port* to, const FrameWriter& writer) : from_(from), to_(to), writer_(writer) {
    for (vswitch_frame& frame : frames_) frame.length = writer.size();
  }
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  std::uint32_t send(std::uint32_t most) noexcept {
    const std::uint32_t count = vswitch_tx_reserve(from_, 0, frames_, most);
    writer_.write(frames_, count);
    vswitch_tx_commit(from_, 0, frames_, count);
    return count;
  }
  std::uint32_t receive() noexcept {
    const std::uint32_t count = vswitch_rx_peek(to_, 0, received_, kBurst);
    const std::uint32_t own = reader_.look(received_, count);
    vswitch_rx_release(to_, 0, count);
    return own;
  }
  [[nodiscard]] std::uint64_t sent() const noexcept { return writer_.written(); }
  [[nodiscard]] const Findings& findings() const noexcept { return reader_.findings(); }

 private:
  vswitch_port* from_;
  vswitch_port* to_;
  FrameWriter writer_;
  FrameReader reader_{writer_};
  vswitch_frame frames_[kBurst]{};
  vswitch_frame received_[kBurst]{};
};

/// When frames came, of a paced flow.
struct Arrivals {
  Nanoseconds first = 0;
  Nanoseconds last = 0;
  Nanoseconds silence_from = 0;  ///< the longest time without a frame
  Nanoseconds silence_to = 0;

  void note(Nanoseconds now) noexcept {
    if (first == 0) first = now;
    if (last != 0 && now - last > silence_to - silence_from) {
      silence_from = last;
      silence_to = now;
    }
    last = now;
  }
};

struct Totals {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

/// What happened between the end of the warm-up and the end.
struct Window {
  Totals totals;
  Nanoseconds duration = 0;
};

class Run {
 public:
  Run(const Settings& settings, std::deque<Flow>& flows) : settings_(settings), flows_(flows) {}

  Window flat_out() {
    const Nanoseconds begin = monotonic_now();
    const Nanoseconds measure_from = begin + seconds(settings_.warm_up);
    const Nanoseconds end = measure_from + seconds(settings_.seconds);
    Totals at_start;
    Nanoseconds started = 0;
    for (;;) {
      const Nanoseconds now = monotonic_now();
      if (started == 0 && now >= measure_from) {
        started = now;
        at_start = total_;
      }
      if (now >= end || end_wanted()) return window(at_start, started, now);
      for (std::size_t bursts = 0; bursts < kBurstsPerClock; bursts += flows_.size()) {
        for (Flow& flow : flows_) {
          total_.sent += flow.send(kBurst);
          if (!settings_.one_way) total_.received += flow.receive();
        }
      }
    }
  }

  /// Sends what is due at each tick and sleeps in between, so that others get the CPU. One flow.
  Window paced() {
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    const Nanoseconds begin = monotonic_now();
    const Nanoseconds measure_from = begin + seconds(settings_.warm_up);
    const Nanoseconds end = measure_from + seconds(settings_.seconds);
    Totals at_start;
    Nanoseconds started = 0;
    for (Nanoseconds tick = begin;; tick += kTick) {
      const Nanoseconds now = monotonic_now();
      if (started == 0 && now >= measure_from) {
        started = now;
        at_start = total_;
      }
      if (now >= end || end_wanted()) return window(at_start, started, now);
      exchange(now, begin);
      const Nanoseconds next = tick + kTick;
      const timespec until{static_cast<time_t>(next / kSecond), static_cast<long>(next % kSecond)};
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
    }
  }

  /// Receives until all that was sent is there, or nothing comes any more.
  void drain() {
    Nanoseconds last = monotonic_now();
    while (total_.received < total_.sent && monotonic_now() - last < kDrain) {
      for (Flow& flow : flows_) {
        if (const std::uint32_t count = flow.receive(); count != 0) {
          total_.received += count;
          last = monotonic_now();
        }
      }
    }
  }

  [[nodiscard]] const Totals& totals() const noexcept { return total_; }
  [[nodiscard]] const Arrivals& arrivals() const noexcept { return arrivals_; }

 private:
  static Nanoseconds seconds(double value) { return static_cast<Nanoseconds>(value * static_cast<double>(kSecond)); }

  [[nodiscard]] Window window(const Totals& at_start, Nanoseconds started, Nanoseconds now) const {
    if (started == 0) return {};
    return {{total_.sent - at_start.sent, total_.received - at_start.received}, now - started};
  }

  void exchange(Nanoseconds now, Nanoseconds begin) noexcept {
    Flow& flow = flows_.front();
    const auto due = static_cast<std::uint64_t>(settings_.rate * static_cast<double>(now - begin) / 1e9);
    while (total_.sent + lost_time_ < due) {
      const auto most = static_cast<std::uint32_t>(std::min<std::uint64_t>(kBurst, due - total_.sent - lost_time_));
      const std::uint32_t count = flow.send(most);
      total_.sent += count;
      if (count == 0) {
        lost_time_ = due - total_.sent;  // no room: these are never sent, so that the rate stays what it was set to
        break;
      }
    }
    std::uint32_t received = 0;
    while (const std::uint32_t count = flow.receive()) received += count;
    total_.received += received;
    if (received != 0) arrivals_.note(now);
  }

  const Settings& settings_;
  std::deque<Flow>& flows_;
  Totals total_;
  std::uint64_t lost_time_ = 0;  ///< frames that were due and found no room
  Arrivals arrivals_;
};

nlohmann::json report(const Settings& settings, const Run& run, const Window& window, const std::deque<Flow>& flows) {
  Findings sum;
  for (const Flow& flow : flows) {
    sum.lost += flow.findings().lost;
    sum.reordered += flow.findings().reordered;
    sum.wrong += flow.findings().wrong;
  }
  const double us = static_cast<double>(window.duration) / 1e3;
  const auto frames = static_cast<double>(settings.one_way ? window.totals.sent : window.totals.received);
  return {{"mpps", us > 0 ? frames / us : 0.0},
          {"offered_mpps", us > 0 ? static_cast<double>(window.totals.sent) / us : 0.0},
          {"sent", run.totals().sent},
          {"received", run.totals().received},
          {"lost", sum.lost},
          {"reordered", sum.reordered},
          {"wrong", sum.wrong},
          {"first_arrival_ns", run.arrivals().first},
          {"silence_from_ns", run.arrivals().silence_from},
          {"silence_to_ns", run.arrivals().silence_to}};
}

bool read_settings(int argc, char** argv, Settings& s) {
  po::options_description options("ring_flow: numbered frames from port to port, counted; options");
  add_placement_options(options, s.placement);
  options.add_options()("folder", po::value(&s.folder)->required(), "where the ports' sockets r0, r1, ... are")(
      "first", po::value(&s.first), "number of the first port")("ports", po::value(&s.ports), "attach to that many")(
      "active-pairs", po::value(&s.active_pairs), "pairs that have traffic")(
      "macs", po::value(&s.macs), "addresses behind each port, a power of two, used in turn")(
      "size", po::value(&s.size), "bytes of each frame, without FCS")(
      "seconds", po::value(&s.seconds), "how long to measure")("warm-up", po::value(&s.warm_up), "seconds before that")(
      "rate", po::value(&s.rate), "frames per second of one pair, sleeping in between; 0: flat out")(
      "one-way", po::bool_switch(&s.one_way), "send only; the rate is that of sending");
  if (!parse(argc, argv, options)) return false;
  if (s.ports < 2 || s.active_pairs == 0 || s.active_pairs > s.ports / 2)
    throw Error(0, "use " + std::to_string(s.active_pairs) + " pairs", "of " + std::to_string(s.ports) + " ports");
  if (s.rate > 0 && s.active_pairs != 1) throw Error(0, "keep to a rate", "on several pairs");
  return true;
}

int body(int argc, char** argv) {
  Settings settings;
  if (!read_settings(argc, argv, settings)) return 0;
  apply(settings.placement);
  raise_open_files_limit();
  watch_for_end();
  std::vector<Tenant> tenants;
  for (std::uint32_t i = 0; i < settings.ports; ++i)
    tenants.push_back(attach(settings.folder, settings.first + i, kPatienceMs));
  std::deque<Flow> flows;
  for (std::uint32_t i = 0; i < settings.active_pairs; ++i) {
    const std::uint32_t from = settings.first + 2 * i;
    flows.emplace_back(tenants[2 * i].get(), tenants[2 * i + 1].get(),
                       FrameWriter(from, from + 1, settings.macs, settings.size));
  }
  std::cout << R"({"ready": true})" << std::endl;  // flushed: who started this waits for it
  Run run(settings, flows);
  const Window window = settings.rate > 0 ? run.paced() : run.flat_out();
  if (!settings.one_way) run.drain();
  std::cout << report(settings, run, window, flows) << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("ring_flow", vswitch::bench::body, argc, argv); }
