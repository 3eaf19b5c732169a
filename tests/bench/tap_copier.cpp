#include <poll.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "netlink/netns.h"
#include "ports/tap/tap_device.h"
#include "tests/bench/process.h"
#include "vswitch/base/error.h"
#include "vswitch/base/memory.h"
#include "vswitch/core/frame.h"

// What any user-space switch between two TAP netdevs has to do, and nothing else: read() what one has, write() it to
// the other, sleep when neither has anything. No lookup, no check, no counter. All offloads are on, as with vswitchd.

namespace vswitch::bench {
namespace {

constexpr std::size_t kFramesInARow = 64;
constexpr std::size_t kFrameBytes = kMaxFrameBytes + 16;  // and its virtio-net header
constexpr int kLookForEndMs = 200;

/// Copies what waits at `from` to `to`. @return whether anything did
bool copy(const Fd& from, const Fd& to, std::span<std::byte> frame) {
  std::size_t frames = 0;
  for (; frames < kFramesInARow; ++frames) {
    const ssize_t bytes = ::read(from.get(), frame.data(), frame.size());
    if (bytes < 0) break;
    // A netdev that is not up yet refuses: dropped, as a switch would.
    if (::write(to.get(), frame.data(), static_cast<std::size_t>(bytes)) < 0 && errno == EBADFD)
      throw_errno("write to", "a TAP netdev that is gone");
  }
  return frames != 0;
}

int run(int argc, char** argv) {
  po::options_description options("tap_copier: copies frames between a netdev eth0 in each of two namespaces");
  std::array<std::string, 2> paths;
  Placement placement;
  options.add_options()("left", po::value(&paths[0])->required(), "path of a network namespace");
  options.add_options()("right", po::value(&paths[1])->required(), "path of another one");
  add_placement_options(options, placement);
  if (!parse(argc, argv, options)) return 0;

  std::array<TapDevice, 2> taps;
  for (std::size_t i = 0; i < taps.size(); ++i) {
    Netns::open(paths[i]).run([&] { taps[i] = create_tap("eth0", 1, OffloadCaps::all()); });
  }
  apply(placement);
  watch_for_end();
  const Fd& left = taps[0].queues[0];
  const Fd& right = taps[1].queues[0];
  const Mapping frame = Mapping::anonymous(kFrameBytes);
  std::array<pollfd, 2> wanted{{{left.get(), POLLIN, 0}, {right.get(), POLLIN, 0}}};
  std::cout << "ready" << std::endl;
  while (!end_wanted()) {
    const bool there = copy(left, right, frame.bytes());
    const bool back = copy(right, left, frame.bytes());
    if (!there && !back) ::poll(wanted.data(), wanted.size(), kLookForEndMs);
  }
  std::cout << "{}" << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("tap_copier", vswitch::bench::run, argc, argv); }
