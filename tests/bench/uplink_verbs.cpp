#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/bench/frames.h"
#include "tests/bench/process.h"
#include "tests/bench/uplink_rig.h"
#include "tests/ports/net_lab.h"

// What the verbs uplink costs one core between the NIC's queues and a tenant's ring: our driver, the switch and the
// real libmlx5, on a software NIC (tests/softnic) that is slower than they are. So they take turns: the NIC delivers
// frames and writes their completions, and only then the worker's steps that take them are timed. It is no NIC's speed:
// there is no PCIe, and what the device wrote lies in the cache of another core.

namespace vswitch::bench {
namespace {

constexpr std::uint32_t kMostWaiting = 256;  // half of what the uplink's send queue takes
constexpr std::uint32_t kLongWaiting =
    64;  // of 1518 bytes: twice as many lie in the arena of a ring of the default size

struct Case {
  std::string name;
  bool receives = false;      ///< wire to ring
  bool sends = false;         ///< ring to wire
  std::uint32_t size = 0;     ///< bytes of a frame
  std::uint32_t waiting = 0;  ///< frames that wait, in each direction, when the worker begins to step
};

std::vector<Case> all_cases(const std::string& mode) {
  std::vector<Case> cases;
  const auto add = [&](const char* way, bool receives, bool sends) {
    const std::string name = way;
    cases.push_back({name + "-64-" + mode, receives, sends, 64, kMostWaiting});
    for (const std::uint32_t burst : {64U, 16U, 4U, 1U})
      cases.push_back({name + "-64-" + mode + "-burst" + std::to_string(burst), receives, sends, 64, burst});
    cases.push_back({name + "-1518-" + mode, receives, sends, 1518, kLongWaiting});
  };
  add("rx", true, false);
  add("tx", false, true);
  add("xconnect", true, true);
  return cases;
}

constexpr int kMostIdleSteps = 1 << 16;

/// What is timed, and what callgrind is told to collect. @return whether all frames came
[[gnu::noinline]] bool timed_steps(Worker& worker, std::size_t frames, Nanoseconds now, int most_idle) noexcept {
  for (int idle = 0; idle < most_idle; ++idle) {
    const std::size_t moved = worker.step(now);
    if (moved >= frames) return true;
    frames -= moved;
    if (moved != 0) idle = 0;
  }
  return false;
}

/// Times that the scheduler took this thread's CPU away.
std::uint64_t preemptions() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return static_cast<std::uint64_t>(usage.ru_nivcsw);
}

/// Cycles that this core gets, in 10^9 a second: additions that wait for each other, one a cycle. Less than its clock
/// where others use it too.
double core_ghz() {
  constexpr std::uint64_t kAdditions = 1'000'000;
  const Nanoseconds began = monotonic_now();
  for (std::uint64_t i = 0; i < kAdditions; ++i) asm volatile("" : "+r"(i));
  return static_cast<double>(kAdditions) / static_cast<double>(monotonic_now() - began);
}

/// One case: frames by turns, numbered and looked at on the other side.
class Measurement {
 public:
  Measurement(UplinkRig& rig, const Case& what)
      : rig_(rig),
        what_(what),
        to_tenant_(UplinkRig::kWirePort, UplinkRig::kTenantPort, 1, what.size),
        to_wire_(UplinkRig::kTenantPort, UplinkRig::kWirePort, 1, what.size),
        at_tenant_(to_tenant_),
        at_wire_(to_wire_),
        buffer_(std::size_t{kBurst} * what.size) {}

  /// One turn: as many frames as the case lets wait, then steps until all were taken. Throws Error.
  void turn() {
    if (what_.sends) fill();
    if (what_.receives) deliver();
    const std::size_t frames = std::size_t{what_.waiting} * ((what_.receives ? 1 : 0) + (what_.sends ? 1 : 0));
    const std::uint64_t before = preemptions();
    const Nanoseconds began = monotonic_now();
    const bool done = timed_steps(rig_.worker(), frames, began, kMostIdleSteps);
    const Nanoseconds ended = monotonic_now();
    if (!done) throw Error(ETIMEDOUT, "step until frames came in", what_.name);
    stepped_ += frames;
    if (preemptions() == before) {
      frames_ += frames;
      elapsed_ += ended - began;
    } else {
      ++preempted_;
    }
    if (what_.receives) drain();
    if (what_.sends) read_wire();
  }

  void run_for(Nanoseconds time) {
    const std::uint64_t elapsed_before = elapsed_;
    const double ghz = core_ghz();
    const Nanoseconds end = monotonic_now() + time;
    do turn();
    while (monotonic_now() < end);
    cycles_ += (ghz + core_ghz()) / 2 * static_cast<double>(elapsed_ - elapsed_before);
  }

  /// Forgets what was timed until now.
  void restart() noexcept {
    frames_ = elapsed_ = preempted_ = 0;
    cycles_ = 0;
  }

  [[nodiscard]] nlohmann::json result() const {
    for (const FrameReader* reader : {&at_tenant_, &at_wire_}) {
      const Findings& found = reader->findings();
      if (found.lost + found.reordered + found.wrong != 0)
        throw Error(0, "measure " + what_.name + ":",
                    std::to_string(found.lost) + " frames lost, " + std::to_string(found.reordered) + " reordered, " +
                        std::to_string(found.wrong) + " wrong");
    }
    return {{"case", what_.name},
            {"mpps", elapsed_ == 0 ? 0 : 1e3 * static_cast<double>(frames_) / static_cast<double>(elapsed_)},
            {"cycles", frames_ == 0 ? 0 : cycles_ / static_cast<double>(frames_)},
            {"frames", frames_},
            {"stepped", stepped_},
            {"preempted", preempted_}};
  }
  /// Frames ever, timed or not.
  [[nodiscard]] std::uint64_t stepped() const noexcept { return stepped_; }

 private:
  /// Wire to NIC, until the completions are there.
  void deliver() {
    const std::uint64_t wanted = rig_.nic_counter("rx_frames") + what_.waiting;
    std::array<vswitch_frame, kBurst> frames{};
    for (std::uint32_t left = what_.waiting; left != 0;) {
      const std::uint32_t count = std::min(left, kBurst);
      for (std::uint32_t i = 0; i < count; ++i) frames[i].data = buffer_.data() + std::size_t{i} * what_.size;
      to_tenant_.write(frames.data(), count);
      for (std::uint32_t i = 0; i < count; ++i) {
        if (softnic_memory_wire_send(rig_.wire(), frames[i].data, what_.size) != 1)
          throw Error(ENOBUFS, "send to", "the software NIC");
      }
      left -= count;
    }
    spin_until([&] { return rig_.nic_counter("rx_frames") >= wanted; }, "receive all frames of", what_.name);
    rig_.wait_for_completions();
  }

  /// The tenant sends.
  void fill() {
    std::array<vswitch_frame, kBurst> frames{};
    for (std::uint32_t left = what_.waiting; left != 0;) {
      const std::uint32_t count = std::min(left, kBurst);
      for (std::uint32_t i = 0; i < count; ++i) frames[i].length = what_.size;
      wait_for_room(frames.data(), count);
      to_wire_.write(frames.data(), count);
      vswitch_tx_commit(rig_.tenant(), 0, frames.data(), count);
      left -= count;
    }
  }

  /// Frames that are sent directly are the NIC's until the worker, in a step that finds nothing to do, gives them back:
  /// that costs time, too.
  void wait_for_room(vswitch_frame* frames, std::uint32_t count) {
    constexpr int kMostSteps = 100;
    for (int i = 0; vswitch_tx_reserve(rig_.tenant(), 0, frames, count) != count; ++i) {
      const Nanoseconds began = monotonic_now();
      if (i == kMostSteps || timed_steps(rig_.worker(), 1, began, 1))
        throw Error(ENOBUFS, "reserve room in", "the tenant's ring");
      elapsed_ += monotonic_now() - began;
    }
  }

  /// The tenant receives.
  void drain() {
    std::array<vswitch_frame, kBurst> frames{};
    std::uint32_t got = 0;
    while (const std::uint32_t count = vswitch_rx_peek(rig_.tenant(), 0, frames.data(), kBurst)) {
      got += at_tenant_.look(frames.data(), count);
      vswitch_rx_release(rig_.tenant(), 0, count);
    }
    if (got != what_.waiting)
      throw Error(0, "find " + std::to_string(what_.waiting) + " frames in", "the tenant's ring");
  }

  /// NIC to wire, until all was sent and the completions are there.
  void read_wire() {
    std::uint32_t got = 0;
    spin_until(
        [&] {
          vswitch_frame frame{};
          const void* data = nullptr;
          while ((frame.length = softnic_memory_wire_peek(rig_.wire(), &data)) != 0) {
            frame.data = const_cast<void*>(data);
            got += at_wire_.look(&frame, 1);
            softnic_memory_wire_drop(rig_.wire());
          }
          return got == what_.waiting;
        },
        "send all frames of", what_.name);
    rig_.wait_for_completions();
  }

  UplinkRig& rig_;
  const Case what_;
  FrameWriter to_tenant_, to_wire_;
  FrameReader at_tenant_, at_wire_;
  std::vector<std::byte> buffer_;
  std::uint64_t frames_ = 0;
  std::uint64_t elapsed_ = 0;  // nanoseconds
  double cycles_ = 0;          // of the core, meanwhile
  std::uint64_t preempted_ = 0;
  std::uint64_t stepped_ = 0;
};

/// What one reading of the clock adds to each turn, in nanoseconds.
double clock_cost() {
  constexpr int kReadings = 1000;
  const Nanoseconds began = monotonic_now();
  Nanoseconds last = began;
  for (int i = 0; i < kReadings; ++i) last = monotonic_now();
  return static_cast<double>(last - began) / kReadings;
}

struct Options {
  Placement placement;
  int nic_cpu = -1;
  std::string folder;
  std::string mode = "staged";
  std::string only;
  double seconds = 1;
  std::uint64_t frames = 0;
};

/// @return false: help was asked for
bool read_options(int argc, char** argv, Options& options) {
  po::options_description described("uplink_verbs: a verbs uplink and a ring port in this process; options");
  add_placement_options(described, options.placement);
  described.add_options()("nic-cpu", po::value(&options.nic_cpu), "pin the NIC's thread to this CPU")(
      "folder", po::value(&options.folder)->required(), "for the NIC's files and the port's socket")(
      "mode", po::value(&options.mode), "staged or direct")("case", po::value(&options.only), "this case alone")(
      "seconds", po::value(&options.seconds), "for each case, most of it not timed")(
      "frames", po::value(&options.frames), "of each case, instead of a time; none of them to warm up");
  if (!parse(argc, argv, described)) return false;
  if (options.mode != "staged" && options.mode != "direct") throw Error(EINVAL, "use mode", options.mode);
  return true;
}

void run(std::vector<std::unique_ptr<Measurement>>& measurements, const Options& options) {
  if (options.frames != 0) {
    for (const auto& one : measurements) {
      while (one->stepped() < options.frames) one->turn();
    }
    return;
  }
  // In slices, by turns: what slows the machine down for a while slows all cases down.
  constexpr int kSlices = 5;
  const auto slice = static_cast<Nanoseconds>(options.seconds * static_cast<double>(kSecond)) / kSlices;
  for (int i = 0; i <= kSlices; ++i) {
    for (const auto& one : measurements) {
      one->run_for(slice);
      if (i == 0) one->restart();
    }
  }
}

int body(int argc, char** argv) {
  Options options;
  if (!read_options(argc, argv, options)) return 0;
  std::vector<Case> cases = all_cases(options.mode);
  if (!options.only.empty()) std::erase_if(cases, [&](const Case& one) { return one.name != options.only; });
  if (cases.empty()) throw Error(0, "find case", options.only);

  test::enter_new_namespace();
  apply({options.nic_cpu, false, false});
  UplinkRig rig(options.folder, options.mode == "direct");
  apply(options.placement);
  std::vector<std::unique_ptr<Measurement>> measurements;
  for (const Case& one : cases) measurements.push_back(std::make_unique<Measurement>(rig, one));
  run(measurements, options);
  rig.check();
  nlohmann::json results = nlohmann::json::array();
  for (const auto& one : measurements) results.push_back(one->result());
  std::cout << nlohmann::json{{"clock_ns", clock_cost()}, {"ports", rig.describe()}, {"cases", results}} << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("uplink_verbs", vswitch::bench::body, argc, argv); }
