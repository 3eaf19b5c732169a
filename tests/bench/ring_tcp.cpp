#include <iostream>
#include <nlohmann/json.hpp>

#include "tests/bench/process.h"
#include "tests/bench/tcp_connection.h"
#include "vswitch/base/error.h"
#include "vswitch/net/ip.h"

// One end of a TCP connection on a ring port, the other end of which is an ordinary socket (tcp_end.cpp): connects and
// sends, or waits and receives. There is no TCP for rings, so this brings what little of it is needed. Prints one JSON
// object.

namespace vswitch::bench {
namespace {

constexpr Nanoseconds kLinger = 50 * kMillisecond;  // the peer's FIN may come once more, and the switch has to read
constexpr Nanoseconds kPatience = 5 * kSecond;      // without any progress
constexpr int kAcceptPatienceMs = 10'000;

struct Settings {
  Placement placement;
  RingHost::Settings host;
  std::string connect;
  std::uint16_t port = 5201;
  double seconds = 1;
  std::uint64_t bytes = 0;
  std::uint32_t window = 192 << 10;
  std::uint64_t in_flight = 1 << 20;
};

/// When data came.
struct Times {
  Nanoseconds first = 0;
  Nanoseconds last = 0;
};

Times talk(Connection& connection, const Settings& settings) {
  const bool source = !settings.connect.empty();
  const Nanoseconds began = monotonic_now();
  const Nanoseconds end =
      began + (settings.bytes != 0 ? ~Nanoseconds{0} / 2 : static_cast<Nanoseconds>(settings.seconds * 1e9));
  Times times;
  std::uint64_t received = 0;
  Nanoseconds progress = began;
  bool ended = false;
  while (!connection.done()) {
    const Nanoseconds now = monotonic_now();
    if (!ended && (source ? now >= end : connection.receiver().finished())) {
      connection.sender().end_here();
      ended = true;
    }
    const bool busy = connection.step(now);
    if (connection.receiver().bytes() != received) {
      received = connection.receiver().bytes();
      if (times.first == 0) times.first = now;
      times.last = now;
    }
    if (busy) {
      progress = now;
    } else {
      if (now - progress > kPatience) throw Error(ETIMEDOUT, "talk to", "the peer");
      connection.wait();
    }
  }
  for (Nanoseconds now = monotonic_now(), until = now + kLinger; now < until; now = monotonic_now()) {
    if (!connection.step(now)) connection.wait();
  }
  return times;
}

bool read_settings(int argc, char** argv, Settings& s) {
  po::options_description options("ring_tcp: TCP between a ring port and an ordinary socket; options");
  add_placement_options(options, s.placement);
  std::string offloads = "yes";
  options.add_options()("socket", po::value(&s.host.socket)->required(), "of the ring port")(
      "connect", po::value(&s.connect), "send to this IPv4 address; without it: wait and receive")(
      "port", po::value(&s.port), "of the end that waits")("seconds", po::value(&s.seconds), "how long to send")(
      "bytes", po::value(&s.bytes), "how much to send instead")(
      "window", po::value(&s.window), "bytes that it receives at once")("in-flight", po::value(&s.in_flight),
                                                                        "most bytes that are under way")(
      "offloads", po::value(&offloads), "yes: unfinished frames, up to 64 KiB; no: finished ones")(
      "drop", po::value(&s.host.drop_each), "lose one of so many segments with payload");
  if (!parse(argc, argv, options)) return false;
  if (offloads != "yes" && offloads != "no") throw Error(0, "read", "--offloads " + offloads, "yes or no");
  s.host.offloads = offloads == "yes";
  return true;
}

std::uint32_t address_of(const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address || address->is_v6()) throw Error(0, "read", "--connect " + text, "an IPv4 address is wanted");
  std::uint32_t bits;
  std::memcpy(&bits, address->bytes.data(), sizeof(bits));
  return bits;
}

int body(int argc, char** argv) {
  Settings settings;
  if (!read_settings(argc, argv, settings)) return 0;
  apply(settings.placement);
  const bool source = !settings.connect.empty();
  constexpr std::uint16_t kFirstEphemeral = 49152;
  const auto own_port = static_cast<std::uint16_t>(kFirstEphemeral + monotonic_now() / kMillisecond % 16384);
  RingHost host(settings.host);
  Connection connection(host, source ? own_port : settings.port, settings.window, settings.in_flight);
  if (source) connection.sender().end_at(settings.bytes != 0 ? settings.bytes : ~std::uint64_t{0} - 1);
  std::cout << R"({"ready": true})" << std::endl;  // flushed: who started this waits for it
  if (source) {
    connection.connect(address_of(settings.connect), settings.port);
  } else {
    connection.accept(kAcceptPatienceMs);
  }
  const Times times = talk(connection, settings);
  const Sender& sender = connection.sender();
  const Receiver& receiver = connection.receiver();
  std::cout << nlohmann::json{{"sent", sender.bytes()},
                              {"received", receiver.bytes()},
                              {"seconds", static_cast<double>(times.last - times.first) / 1e9},
                              {"bytes_again", sender.bytes_again()},
                              {"timeouts", sender.timeouts()},
                              {"out_of_order", receiver.out_of_order()},
                              {"wrong", receiver.wrong()},
                              {"bad_checksums", host.bad_checksums()},
                              {"dropped", host.dropped()}}
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("ring_tcp", vswitch::bench::body, argc, argv); }
