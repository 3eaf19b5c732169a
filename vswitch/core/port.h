#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vswitch/base/counter.h"
#include "vswitch/core/drop.h"
#include "vswitch/core/frame.h"
#include "vswitch/core/spec.h"
#include "vswitch/net/mac.h"
#include "vswitch/net/offload.h"

// The whole driver contract: what a new kind of port must know besides net/.

namespace vswitch {

/// What one port counts on one worker. One writer (the worker); anyone reads.
struct alignas(64) PortCounters {
  Counter rx_frames, rx_bytes;  ///< taken from the port: from a tenant, or from the wire
  Counter tx_frames, tx_bytes;  ///< given to the port
  Counter sw_checksum;          ///< checksums computed in software because the port takes no partial ones
  Counter sw_gso;               ///< GSO frames segmented in software because the port takes none
  Counter gro_merged;           ///< frames that went to the port as part of the one before them
  Counter wakeups;              ///< times the port's reader had to be woken
  std::array<Counter, kDropReasons> drops;

  void drop(Drop reason, std::uint64_t frames = 1) noexcept { drops[static_cast<std::size_t>(reason)].add(frames); }
};

/// One port's path for one worker: both directions. Used by that worker only, except where said.
class Queue {
 public:
  explicit Queue(PortCounters& counters) noexcept : counters_(counters) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  virtual ~Queue() = default;

  /// Lends received frames to `out`, oldest first; they stay where they arrived (untrusted memory) until release().
  /// Fills header, length, header_bytes, vlan and a validated offload. Frames it must refuse are counted and not lent.
  /// Never blocks, allocates or throws.
  /// @return frames lent plus frames refused; 0 is idle
  [[nodiscard]] virtual std::size_t receive(Burst& out) noexcept = 0;

  /// Takes a prefix of `frames`: copies them out, completing what Frame::finish says on the way. What is left to do is
  /// within offloads(); lengths are within the port's MTU.
  /// @return frames taken; the caller counts the rest as `refusal()`
  [[nodiscard]] virtual std::size_t transmit(std::span<const Frame* const> frames) noexcept = 0;

  /// Gives the frames of the last receive() back, in order, and leaves `lent` as it is. Called after every receive()
  /// that returned more than 0.
  virtual void release(Burst& lent) noexcept = 0;

  /// Called on idle turns: finish sends, so that nothing stays held in a quiet queue.
  virtual void reclaim() noexcept {}

  /// A descriptor that becomes readable (edge-triggered) when receive() has work after arm() returned true. Constant
  /// from Port::start() to Port::stop().
  [[nodiscard]] virtual int wait_fd() const noexcept = 0;

  /// Asks for wait_fd() to be signalled at the next arrival. The worker polls a queue until it is armed.
  /// @return false if work arrived meanwhile: poll on (no lost wake-up)
  [[nodiscard]] virtual bool arm() noexcept = 0;

  /// Why transmit() took less than all: dest_full, dest_detached or dest_error.
  [[nodiscard]] virtual Drop refusal() const noexcept { return Drop::dest_full; }

  /// Unfinished frames that transmit() takes at this moment. Any thread; set by the port, changeable while frames flow.
  /// Sequentially consistent, as Published: after set_offloads() and Quiescence::wait() no worker acts on the old ones.
  [[nodiscard]] OffloadCaps offloads() const noexcept { return unpack(offloads_.load(std::memory_order_seq_cst)); }
  void set_offloads(OffloadCaps caps) noexcept { offloads_.store(pack(caps), std::memory_order_seq_cst); }

  [[nodiscard]] PortCounters& counters() const noexcept { return counters_; }

 private:
  static constexpr std::uint8_t pack(OffloadCaps c) noexcept {
    return static_cast<std::uint8_t>(c.checksum | c.tso4 << 1 | c.tso6 << 2 | c.ecn << 3 | c.uso << 4);
  }
  static constexpr OffloadCaps unpack(std::uint8_t bits) noexcept {
    return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0};
  }
  PortCounters& counters_;
  std::atomic<std::uint8_t> offloads_{0};
};

/// What people are told about a port beside its counters.
struct PortStatus {
  bool link_up = false;              ///< a tenant is attached, the device is running
  std::uint32_t mtu = 0;             ///< payload bytes behind the Ethernet header (and tags)
  std::string detail;                ///< one line: driver, device, peer, and why a better choice was refused
  OffloadCaps offloads_requested{};  ///< what configuration asks for; Queue::offloads() says what there is
  std::string offloads_why_not{};    ///< why there is less than that; empty: there is not
};

/// One attachment. Control thread only; its queues belong to the workers. start() and stop() alternate: every port can
/// close and reopen. Not movable: its queues are known by address.
class Port {
 public:
  Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  virtual ~Port() = default;

  /// Opens the device or socket and makes one queue per worker. Throws Error; then nothing is left behind.
  virtual void start() = 0;
  /// Closes everything and leaves the system as found. No worker may use the queues any more (see Quiescence). Never
  /// throws.
  virtual void stop() noexcept = 0;
  /// A tenant's port: from now on these are PortSpec::offloads. When it returns no worker gives the tenant what it may
  /// not have any more; the attachment lives on. After start(). Throws Error; then nothing has changed.
  virtual void permit(OffloadCaps /*offloads*/) {}
  /// Worker `w`'s queue. Valid from start() to stop().
  [[nodiscard]] virtual Queue& queue(std::size_t w) = 0;
  /// Counters of worker `w`; they live as long as the port.
  [[nodiscard]] virtual const PortCounters& counters(std::size_t w) const = 0;
  [[nodiscard]] virtual PortStatus status() const = 0;
};

/// What an uplink must let in for the tenants.
struct Steering {
  struct Rule {
    std::uint16_t vlan = 0;  ///< 0: any frame that no access VLAN of this uplink claims
    Mac mac;
    auto operator<=>(const Rule&) const = default;
  };
  std::vector<Rule> unicast;  ///< one per tenant MAC
  std::vector<Mac> sources;   ///< source-mode ports: frames from these, whoever they are for
  bool everything = false;    ///< a passthru port: all frames
  /// The tenants' addresses, each once.
  [[nodiscard]] std::set<Mac> addresses() const {
    std::set<Mac> all;
    for (const Rule& rule : unicast) all.insert(rule.mac);
    return all;
  }
  /// Somebody is there who gets frames to group addresses.
  [[nodiscard]] bool group_frames() const noexcept { return !unicast.empty() || !sources.empty() || everything; }
  bool operator==(const Steering&) const = default;
};

/// The port to the wire: a kernel netdev that the host keeps using.
class Uplink : public Port {
 public:
  /// Makes the netdev let in exactly what the tenants need; called after start() and whenever ports change. Refuses
  /// (throws Error) a rule for an address of the host, and changes nothing then.
  virtual void steer(const Steering& wanted) = 0;
  /// The netdev's own address. Throws Error when the netdev is gone.
  [[nodiscard]] virtual Mac host_mac() const = 0;
};

}  // namespace vswitch
