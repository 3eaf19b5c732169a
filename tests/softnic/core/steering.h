#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "tests/softnic/core/headers.h"

/// Which queue pairs get a frame, and whether the kernel's netdev gets it too. The rules of ibv_create_flow(3), without
/// any ABI: a shell translates.
namespace softnic {

/// Who made a rule: one open context of one process. Its rules go with it.
using OwnerId = std::uint32_t;

struct QueueRef {
  OwnerId owner = 0;
  std::uint32_t queue = 0;  ///< queue pair number, unique on the device
  friend bool operator==(const QueueRef&, const QueueRef&) = default;
};

/// Every field a rule can look at, as it lies on the wire (big-endian). Fields of a header that the frame does not have
/// are 0; a rule that asks for the header itself sets the bit of `kinds`.
struct FlowKey {
  static constexpr std::uint8_t kTagged = 1, kIpv4 = 2, kIpv6 = 4, kTcp = 8, kUdp = 16;
  std::array<std::uint8_t, 6> dst_mac{};
  std::array<std::uint8_t, 6> src_mac{};
  std::array<std::uint8_t, 2> ether_type{};  ///< behind the tag
  std::array<std::uint8_t, 2> vlan_tag{};    ///< TCI of the tag
  std::array<std::uint8_t, 16> src_ip{};     ///< IPv4: the first 4 bytes
  std::array<std::uint8_t, 16> dst_ip{};
  std::array<std::uint8_t, 2> src_port{};
  std::array<std::uint8_t, 2> dst_port{};
  std::array<std::uint8_t, 4> flow_label{};  ///< IPv6, 20 bits
  std::uint8_t protocol = 0;                 ///< IPv4 protocol or IPv6 next header
  std::uint8_t tos = 0;                      ///< IPv4 TOS or IPv6 traffic class
  std::uint8_t ttl = 0;                      ///< IPv4 TTL or IPv6 hop limit
  std::uint8_t kinds = 0;                    ///< kTagged | kIpv4 | ...
  std::uint8_t port = 0;                     ///< physical port, 1-based; always part of the match
  std::uint8_t ip_flags = 0;                 ///< IPv4: 0x2 = DF, 0x4 = MF (kernel: enum ib_ipv4_flags; unlike the wire)
  std::array<std::uint8_t, 10> unused{};     ///< makes the size a multiple of 8
  friend bool operator==(const FlowKey&, const FlowKey&) = default;
};
static_assert(sizeof(FlowKey) == 72);

[[nodiscard]] FlowKey flow_key(std::uint8_t port, Bytes frame, const Headers& headers) noexcept;

/// enum ibv_flow_attr_type, in the order in which they are asked: NORMAL rules by priority (0 first); then MC_DEFAULT
/// (multicast that no rule took), then ALL_DEFAULT (whatever no rule took), then the kernel. SNIFFER rules get a copy
/// of everything that the port receives or sends and change nothing else.
enum class RuleKind : std::uint8_t { normal, all_default, mc_default, sniffer };

struct Rule {
  RuleKind kind = RuleKind::normal;
  std::uint8_t port = 1;
  std::uint16_t priority = 0;  ///< of NORMAL rules; lower is asked first
  bool dont_trap = false;      ///< NORMAL: what lies below this rule (and the kernel) gets the frame as well
  bool drop = false;           ///< matching frames are dropped (and counted); no queue
  bool tagged = false;         ///< `tag` is reported with each frame
  std::uint32_t tag = 0;
  FlowKey value{};
  FlowKey mask{};
  QueueRef queue{};
};

struct Delivery {
  QueueRef queue;
  std::uint32_t tag = 0;
  bool tagged = false;
};

/// The judgement of one frame. Reused from frame to frame, so that it allocates only while it grows.
struct Steered {
  std::vector<Delivery> to;  ///< each queue once
  bool kernel = false;
  bool trapped = false;  ///< a NORMAL rule took it, and let nothing below have it
  bool dropped = false;  ///< a drop rule took it
};

using RuleId = std::uint32_t;

/// Used by one thread at a time. Two NORMAL rules of the same priority and match both get the frame (as flow table
/// entries with several destinations do); of two rules of the same priority with unlike masks that both match, the one
/// whose mask was used first wins.
class Steering {
 public:
  Steering();
  ~Steering();
  Steering(const Steering&) = delete;
  Steering& operator=(const Steering&) = delete;

  /// @return id, never 0. The value is masked by the mask first.
  RuleId add(const Rule& rule);
  /// @return whether there was such a rule of that owner.
  bool remove(OwnerId owner, RuleId id);
  /// Removes all rules of `owner`, or only those of one of its queues.
  void remove_owner(OwnerId owner);
  void remove_queue(QueueRef queue);
  [[nodiscard]] std::size_t size() const noexcept;

  /// A frame that came from the wire (or through loopback) to `port`. Clears `out` first.
  void classify(std::uint8_t port, Bytes frame, const Headers& headers, Steered& out) const;
  /// The queues that sniff `port`, appended to `out` where not there yet: for frames that are sent.
  void sniff(std::uint8_t port, Steered& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace softnic
