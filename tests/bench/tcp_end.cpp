#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "netlink/netns.h"
#include "tests/bench/process.h"
#include "tests/bench/tcp_pattern.h"
#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

// One end of a TCP connection as everybody has it: an ordinary socket, in a network namespace. Connects and sends the
// pattern, or waits and compares what comes with it. Prints one JSON object.

namespace vswitch::bench {
namespace {

struct Settings {
  Placement placement;
  std::string netns;
  std::string connect;
  std::uint16_t port = 5201;
  double seconds = 1;
  std::uint64_t bytes = 0;
};

constexpr time_t kPatienceSeconds = 20;  // for any one call: a peer that is gone must not hang a test

struct Outcome {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t wrong = 0;
  Nanoseconds first = 0;
  Nanoseconds last = 0;
};

sockaddr_in socket_address(const std::string& text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (!text.empty() && ::inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1)
    throw Error(0, "read", "--connect " + text, "an IPv4 address is wanted");
  return address;
}

Fd make_socket() {
  Fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made.valid()) throw_errno("open", "a TCP socket");
  const int on = 1;
  const timeval patience{kPatienceSeconds, 0};
  if (::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::setsockopt(made.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
      ::setsockopt(made.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0)
    throw_errno("set options of", "a TCP socket");
  return made;
}

/// In the namespace, if one is given: a socket stays in the one it was opened in.
Fd open_socket(const Settings& settings) {
  Fd made;
  if (settings.netns.empty()) return make_socket();
  Netns::open(settings.netns).run([&] { made = make_socket(); });
  return made;
}

std::size_t receive(const Fd& socket, std::span<std::byte> room) {
  const ssize_t count = ::recv(socket.get(), room.data(), room.size(), 0);
  if (count < 0) throw_errno("receive from", "the peer");
  return static_cast<std::size_t>(count);
}

/// Sends until it is time, or all bytes are gone; then waits for the peer's end.
Outcome send_all(const Fd& socket, const Settings& settings) {
  const Pattern pattern;
  Outcome outcome;
  const Nanoseconds end = monotonic_now() + static_cast<Nanoseconds>(settings.seconds * 1e9);
  for (;;) {
    std::size_t wanted = Pattern::kMostBytes;
    if (settings.bytes != 0) wanted = std::min<std::uint64_t>(wanted, settings.bytes - outcome.sent);
    if (wanted == 0 || (settings.bytes == 0 && monotonic_now() >= end)) break;
    const auto bytes = pattern.at(outcome.sent, wanted);
    const ssize_t count = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0) throw_errno("send to", "the peer");
    outcome.sent += static_cast<std::uint64_t>(count);
  }
  if (::shutdown(socket.get(), SHUT_WR) != 0) throw_errno("shut down", "the connection");
  std::byte rest;
  if (receive(socket, {&rest, 1}) != 0) throw Error(0, "end", "the connection", "the peer sent data");
  return outcome;
}

Outcome receive_all(const Fd& socket) {
  const Pattern pattern;
  std::vector<std::byte> buffer(Pattern::kMostBytes);
  Outcome outcome;
  while (const std::size_t count = receive(socket, buffer)) {
    outcome.last = monotonic_now();
    if (outcome.first == 0) outcome.first = outcome.last;
    if (!pattern.matches(outcome.received, std::span(buffer).first(count))) ++outcome.wrong;
    outcome.received += count;
  }
  return outcome;
}

Fd accept_one(const Fd& listener, const Settings& settings) {
  const sockaddr_in address = socket_address("", settings.port);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener.get(), 1) != 0)
    throw_errno("listen on", "TCP port " + std::to_string(settings.port));
  std::cout << R"({"ready": true})" << std::endl;  // flushed: who started this waits for it
  Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted.valid()) throw_errno("accept", "a connection");
  return accepted;
}

bool read_settings(int argc, char** argv, Settings& s) {
  po::options_description options("tcp_end: one end of a TCP connection, an ordinary socket; options");
  add_placement_options(options, s.placement);
  options.add_options()("netns", po::value(&s.netns), "path of the network namespace")(
      "connect", po::value(&s.connect), "send to this IPv4 address; without it: wait and receive")(
      "port", po::value(&s.port), "of the end that waits")("seconds", po::value(&s.seconds), "how long to send")(
      "bytes", po::value(&s.bytes), "how much to send instead");
  return parse(argc, argv, options);
}

int body(int argc, char** argv) {
  Settings settings;
  if (!read_settings(argc, argv, settings)) return 0;
  apply(settings.placement);
  const Fd socket = open_socket(settings);
  Outcome outcome;
  if (settings.connect.empty()) {
    outcome = receive_all(accept_one(socket, settings));
  } else {
    const sockaddr_in address = socket_address(settings.connect, settings.port);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      throw_errno("connect to", settings.connect);
    outcome = send_all(socket, settings);
  }
  std::cout << nlohmann::json{{"sent", outcome.sent},
                              {"received", outcome.received},
                              {"seconds", static_cast<double>(outcome.last - outcome.first) / 1e9},
                              {"wrong", outcome.wrong}}
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("tcp_end", vswitch::bench::body, argc, argv); }
