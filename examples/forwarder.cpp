// A tenant with two ports that passes frames from one to the other, both ways: the frame of a firewall or a router.
//
// Frames leave with the source address of the port they leave by, or anti-spoofing would drop them; --next-a and
// --next-b say whom they are for (without, the destination stays as it is).
//
// c++ -std=c++20 forwarder.cpp $(pkg-config --cflags --libs vswitch)
#include <getopt.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <vswitch/vswitch.hpp>

namespace {

using vswitch::tenant::Frame;
using vswitch::tenant::Port;
using MacBytes = std::array<std::uint8_t, 6>;

volatile std::sig_atomic_t stopped = 0;

struct Side {
  Port port;
  MacBytes own{};
  std::optional<MacBytes> next;  ///< whom frames that leave by this port are for
};

constexpr const char* kUsage =
    "usage: forwarder [--next-a MAC] [--next-b MAC] SOCKET_A SOCKET_B\n"
    "Passes frames between the ring ports at SOCKET_A and SOCKET_B.\n"
    "  --next-a MAC  destination of what leaves by port A (unchanged)\n"
    "  --next-b MAC  destination of what leaves by port B (unchanged)\n";

std::optional<MacBytes> parse_mac(const char* text) {
  MacBytes m{};
  int end = 0;
  const int fields =
      std::sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &end);
  return fields == 6 && text[end] == '\0' ? std::optional(m) : std::nullopt;
}

/// One burst from `from` to `to`. What finds no room is dropped, as on a wire. @return frames received
std::size_t forward(Side& from, Side& to) {
  std::array<Frame, 64> in;
  const auto received = from.port.peek(in);
  if (received.empty()) return 0;
  std::array<Frame, 64> out{};
  for (std::size_t i = 0; i < received.size(); ++i) out[i].length = std::max(received[i].length, 14U);
  const auto reserved = to.port.reserve(std::span(out).first(received.size()));
  for (std::size_t i = 0; i < reserved.size(); ++i) {
    auto* bytes = static_cast<std::uint8_t*>(reserved[i].data);
    std::memcpy(bytes, received[i].data, received[i].length);
    if (to.next) std::memcpy(bytes, to.next->data(), to.next->size());
    std::memcpy(bytes + 6, to.own.data(), to.own.size());
    reserved[i].offload = received[i].offload;
  }
  to.port.commit(reserved);
  from.port.release(received.size());
  return received.size();
}

/// Sleeps until a port has frames.
void sleep(Side& a, Side& b) {
  constexpr int kRetryMs = 50;   // how often an away switch is looked for
  constexpr int kLookMs = 1000;  // how often `stopped` is, should a signal come just before poll()
  const int armed_a = a.port.arm();
  const int armed_b = b.port.arm();
  if (armed_a == 1 || armed_b == 1) return;
  std::array<pollfd, 2> fds{pollfd{a.port.fd(), POLLIN, 0}, pollfd{b.port.fd(), POLLIN, 0}};
  ::poll(fds.data(), fds.size(), armed_a == 0 && armed_b == 0 ? kLookMs : kRetryMs);
}

Side open(const std::string& socket, const std::optional<MacBytes>& next) {
  // Unfinished frames are passed on as they are.
  Side side{Port(socket, {.features = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4 | VSWITCH_FEATURE_TSO6 |
                                      VSWITCH_FEATURE_ECN | VSWITCH_FEATURE_USO}),
            {},
            next};
  const auto info = side.port.info();
  std::copy_n(info.mac, side.own.size(), side.own.begin());
  return side;
}

}  // namespace

int main(int argc, char** argv) {
  const std::array<option, 4> options{option{"next-a", required_argument, nullptr, 'a'},
                                      option{"next-b", required_argument, nullptr, 'b'},
                                      option{"help", no_argument, nullptr, 'h'}, option{}};
  std::optional<MacBytes> next_a;
  std::optional<MacBytes> next_b;
  for (int found; (found = ::getopt_long(argc, argv, "h", options.data(), nullptr)) != -1;) {
    if (found == 'h') {
      std::cout << kUsage;
      return 0;
    }
    auto& next = found == 'a' ? next_a : next_b;
    if (found != '?') next = parse_mac(optarg);
    if (found == '?' || !next) {
      if (found != '?') std::cerr << "forwarder: " << optarg << ": not a MAC address\n";
      std::cerr << kUsage;
      return 2;
    }
  }
  if (optind + 2 != argc) {
    std::cerr << kUsage;
    return 2;
  }
  struct sigaction action {};
  action.sa_handler = [](int) { stopped = 1; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  try {
    Side a = open(argv[optind], next_a);
    Side b = open(argv[optind + 1], next_b);
    while (stopped == 0) {
      if (forward(a, b) + forward(b, a) == 0) sleep(a, b);
    }
  } catch (const std::exception& error) {
    std::cerr << "forwarder: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
