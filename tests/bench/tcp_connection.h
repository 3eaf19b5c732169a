#pragma once
#include <cstdint>

#include "tests/bench/ring_host.h"
#include "tests/bench/tcp_halves.h"
#include "tests/bench/tcp_pattern.h"

namespace vswitch::bench {

/// One TCP connection of a RingHost: as much of RFC 9293 as it takes to talk to a kernel over one switch. No SACK, no
/// timestamps, no congestion control; a fixed window, for what arrives is looked at and gone. One thread.
class Connection {
 public:
  /// @param port of this end
  /// @param window what this end takes, bytes
  /// @param most_in_flight of what it sends, bytes
  Connection(RingHost& host, std::uint16_t port, std::uint32_t window, std::uint64_t most_in_flight);

  /// Throw Error when nobody answers or comes within seconds.
  void connect(std::uint32_t address, std::uint16_t port);
  void accept(int patience_ms);

  [[nodiscard]] Sender& sender() noexcept { return sender_; }
  [[nodiscard]] const Receiver& receiver() const noexcept { return receiver_; }

  /// Receives a burst, sends what there is to be sent. @return whether there was anything. Throws Error when the peer
  /// breaks off.
  bool step(Nanoseconds now);
  void wait() noexcept { host_.wait(1); }
  /// Both have sent everything, and have heard that it arrived.
  [[nodiscard]] bool done() const noexcept { return sender_.done() && receiver_.finished(); }

 private:
  void take(const Segment& segment, Nanoseconds now);
  /// SYN or SYN and ACK of the peer. @return whether it is one
  bool take_syn(const Segment& segment, std::uint8_t flags) noexcept;
  void send_syn(std::uint8_t flags) noexcept;
  bool send_answers() noexcept;
  bool send_data(Nanoseconds now) noexcept;
  [[nodiscard]] TcpHeader header(std::uint64_t offset) const noexcept;

  RingHost& host_;
  const Pattern pattern_;
  Sender sender_;
  Receiver receiver_;
  std::uint32_t window_;
  Endpoint peer_;
  std::uint16_t mss_ = 0;
  int peer_shift_ = 0;
  int shift_ = 0;            ///< of the windows that this end writes
  std::uint32_t first_ = 0;  ///< sequence number of this end's first byte
  std::uint32_t peer_first_ = 0;
  bool open_ = false;
  bool reset_ = false;
};

}  // namespace vswitch::bench
