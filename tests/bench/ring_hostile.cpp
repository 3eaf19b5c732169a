#include <sys/eventfd.h>

#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/bench/frames.h"
#include "tests/bench/process.h"
#include "tests/bench/tenant.h"
#include "vswitch/base/error.h"

extern "C" {
#include "ports/client/session.h"
}

// A tenant that means harm, until SIGTERM: what does it cost the tenants beside it? Prints one JSON object at the end.

namespace vswitch::bench {
namespace {

constexpr int kPatienceMs = 5000;

struct Settings {
  Placement placement;
  std::string folder;
  std::string how;
  std::uint32_t first = 0;
  std::uint32_t victim = 0;
};

/// Sends flat out from port `from` what claims to come from `source` and is for `destination`.
std::uint64_t flood(vswitch_port* from, std::uint32_t source, std::uint32_t destination) {
  FrameWriter writer(source, destination, 1, kLeastSize);
  vswitch_frame frames[kBurst]{};
  while (!end_wanted()) {
    for (vswitch_frame& frame : frames) frame.length = kLeastSize;
    const std::uint32_t count = vswitch_tx_reserve(from, 0, frames, kBurst);
    writer.write(frames, count);
    vswitch_tx_commit(from, 0, frames, count);
  }
  return writer.written();
}

/// The memory a tenant can write, used as no tenant should.
class Scribbler {
 public:
  Scribbler(session& own, std::uint32_t from, std::uint32_t to)
      : session_(own), ring_(own.tx[0]), writer_(from, to, 1, kLeastSize) {}

  /// One of: garbage anywhere, a head far away, a head with garbage descriptors behind it, a few good frames.
  void strike() {
    switch (random_() % 8) {
      case 0:
        anywhere();
        break;
      case 1:
        store(ring_.line->head, word());
        break;
      case 2:
        store(session_.rx[0].own->tail, word());
        break;
      case 3:
        store(session_.rx[0].own->need_wake, word());
        break;
      case 4:
        ::eventfd_write(ring_.kick_fd, 1);
        break;
      default:
        publish(random_() % kBurst);
    }
  }

 private:
  [[nodiscard]] std::uint32_t word() { return static_cast<std::uint32_t>(random_()); }
  static void store(std::uint32_t& to, std::uint32_t value) { __atomic_store_n(&to, value, __ATOMIC_RELEASE); }

  void anywhere() {
    for (int i = 0; i < 64; ++i) {
      const std::size_t words = session_.tenant_bytes / sizeof(std::uint32_t);
      store(static_cast<std::uint32_t*>(session_.tenant_memory)[random_() % words], word());
    }
  }

  /// Moves the head from where the switch has come by `count` frames, every second one of them with a bad descriptor.
  void publish(std::uint64_t count) {
    const std::uint32_t mask = session_.geometry.ring_frames - 1;
    std::uint32_t head = __atomic_load_n(&ring_.peer->tail, __ATOMIC_ACQUIRE);
    for (std::uint64_t i = 0; i < count; ++i, ++head) {
      vswitch_descriptor descriptor{(head & mask) * kLeastSize, kLeastSize, {}};
      const vswitch_frame frame{ring_.arena + descriptor.offset, kLeastSize, 0, {}};
      writer_.write(&frame, 1);
      if (i % 2 == 1) {
        const std::uint64_t garbage = random_();
        std::memcpy(reinterpret_cast<std::byte*>(&descriptor) + (garbage & 8), &garbage, sizeof(garbage));
      }
      ring_.descriptors[head & mask] = descriptor;
    }
    store(ring_.line->head, head);
  }

  session& session_;
  tx_ring& ring_;
  FrameWriter writer_;
  std::mt19937_64 random_{20'261'123};  // NOLINT: the same garbage each time is what makes runs comparable
};

std::uint64_t scribble(const std::string& folder, std::uint32_t from, std::uint32_t to) {
  const vswitch_options options{sizeof(vswitch_options), 0, nullptr, kPatienceMs, 0};
  session* raw = nullptr;
  const std::string path = socket_path(folder, from);
  if (const int status = session_open(path.c_str(), &options, &raw); status != 0)
    throw Error(-status, "attach to", path, vswitch_attach_error());
  const std::unique_ptr<session, decltype(&session_release)> own(raw, &session_release);
  Scribbler scribbler(*own, from, to);
  std::uint64_t strikes = 0;
  for (; !end_wanted(); ++strikes) scribbler.strike();
  return strikes;
}

int body(int argc, char** argv) {
  Settings s;
  po::options_description options("ring_hostile: a tenant that means harm, until SIGTERM; options");
  add_placement_options(options, s.placement);
  options.add_options()("folder", po::value(&s.folder)->required(), "where the ports' sockets r0, r1, ... are")(
      "how", po::value(&s.how)->required(),
      "spoof: flood with the addresses of the victim; unread: flood a reader that never reads; garbage: into the ring")(
      "first", po::value(&s.first)->required(), "number of its port; the next one is its reader's")(
      "victim", po::value(&s.victim), "spoof: number of the port whose address is used; the next one is the target");
  if (!parse(argc, argv, options)) return 0;
  apply(s.placement);
  watch_for_end();
  const auto ready = [] { std::cout << R"({"ready": true})" << std::endl; };  // flushed: who started this waits for it
  const Tenant reader = attach(s.folder, s.first + 1, kPatienceMs);
  std::uint64_t done = 0;
  if (s.how == "garbage") {
    ready();
    done = scribble(s.folder, s.first, s.first + 1);
  } else if (s.how == "spoof" || s.how == "unread") {
    const Tenant from = attach(s.folder, s.first, kPatienceMs);
    ready();
    done = s.how == "spoof" ? flood(from.get(), s.victim, s.victim + 1) : flood(from.get(), s.first, s.first + 1);
  } else {
    throw Error(0, "harm", s.how, "--how is spoof, unread or garbage");
  }
  std::cout << nlohmann::json{{"done", done}} << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("ring_hostile", vswitch::bench::body, argc, argv); }
