#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "tests/bench/frames.h"
#include "tests/bench/tcp_segment.h"
#include "tests/bench/tenant.h"

namespace vswitch::bench {

/// A segment to be sent.
struct Outgoing {
  TcpHeader header;
  std::span<const std::byte> payload;
};

/// An IPv4 host behind a ring port: answers ARP, receives and sends segments. One thread.
class RingHost {
 public:
  struct Settings {
    std::string socket;
    bool offloads = true;         ///< takes unfinished frames, and sends them
    std::uint32_t drop_each = 0;  ///< of each so many segments with payload, either way, one gets lost; 0: none
  };

  /// Throws Error. The address is the first IPv4 one of the port.
  explicit RingHost(const Settings& settings);

  /// The port that segments are sent from, and that they have to be for.
  void bind(std::uint16_t port) noexcept { self_.port = port; }
  [[nodiscard]] std::uint16_t mss() const noexcept { return static_cast<std::uint16_t>(mtu_ - kIpBytes - kTcpBytes); }
  /// Payload of the longest frame to be sent, whole segments of `mss`.
  [[nodiscard]] std::size_t most_payload(std::uint16_t mss) const noexcept;

  /// Hands at most a burst of segments to `take`, oldest first, their checksums verified. @return frames received
  template <class Take>
  std::uint32_t receive(Take take) {
    const std::uint32_t count = vswitch_rx_peek(port_.get(), 0, received_.data(), kBurst);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto segment = read_segment(received_[i]);
      if (!segment) {
        take_other(received_[i]);
      } else if (arrives(received_[i], *segment)) {
        take(*segment);
      }
    }
    vswitch_rx_release(port_.get(), 0, count);
    return count;
  }

  /// Sends a prefix of `segments`, at most a burst; none is longer than the one before it. @return how many
  std::size_t send(const Endpoint& to, std::uint16_t mss, std::span<const Outgoing> segments) noexcept;
  /// Sleeps until frames come.
  void wait(int timeout_ms) noexcept { (void)vswitch_wait(port_.get(), 0, timeout_ms); }

  /// The MAC address of `address`, memory order; asks until the answer comes. Throws Error.
  [[nodiscard]] Mac resolve(std::uint32_t address);

  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::uint64_t bad_checksums() const noexcept { return bad_checksums_; }

 private:
  [[nodiscard]] bool arrives(const vswitch_frame& frame, const Segment& segment) noexcept;
  [[nodiscard]] bool is_lost(std::size_t payload) noexcept;
  /// ARP: answers requests, remembers who answered last.
  void take_other(const vswitch_frame& frame) noexcept;
  void send_arp(std::uint16_t operation, const Mac& to, std::uint32_t address) noexcept;

  Tenant port_;
  bool offloads_;
  std::uint32_t drop_each_;
  std::uint32_t mtu_ = 0;
  Endpoint self_;
  Endpoint answered_;  ///< the last ARP answer
  std::uint64_t with_payload_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t bad_checksums_ = 0;
  std::array<vswitch_frame, kBurst> received_{};
};

}  // namespace vswitch::bench
