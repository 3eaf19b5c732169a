#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "vswitch/net/ip.h"
#include "vswitch/net/mac.h"
#include "vswitch/net/offload.h"

// What the user asked for, as plain values: config/ fills them from tenants.json, the daemon compares two of them to
// find what a reload must change. Every default is already filled in.

namespace vswitch {

/// macvlan modes, the words of ip-link(8).
enum class Mode : std::uint8_t { bridge, private_, vepa, passthru, source };
/// "bridge", "private", "vepa", "passthru", "source".
[[nodiscard]] const char* to_string(Mode mode) noexcept;

/// What an idle worker does: adaptive spins, then pauses, then sleeps; poll never sleeps; sleep sleeps at once.
enum class Idle : std::uint8_t { adaptive, poll, sleep };
[[nodiscard]] const char* to_string(Idle idle) noexcept;

struct WorkersSpec {
  std::vector<int> cpus;  ///< one worker pinned to each; empty: one worker, not pinned
  Idle idle = Idle::adaptive;
  bool operator==(const WorkersSpec&) const = default;
};

enum class UplinkDriver : std::uint8_t { automatic, af_packet, verbs };
/// "auto", "af_packet", "verbs".
[[nodiscard]] const char* to_string(UplinkDriver driver) noexcept;

struct UplinkSpec {
  std::string name;    ///< key below "uplinks"
  std::string netdev;  ///< in the daemon's network namespace
  UplinkDriver driver = UplinkDriver::automatic;
  bool direct = true;  ///< the device may use tenants' memory by itself, where it and the port can
  bool operator==(const UplinkSpec&) const = default;
};

/// A shared-memory ring that a process attaches to through a Unix socket.
struct RingAttachSpec {
  std::string socket;        ///< path; one port each
  std::optional<uid_t> uid;  ///< who may attach, checked by SO_PEERCRED; neither: the daemon's own user only
  std::optional<gid_t> gid;
  std::string token;                      ///< if not empty, the client must present it
  std::uint32_t queues = 1;               ///< queue pairs, 1..16
  std::uint32_t ring_frames = 1024;       ///< descriptors per ring, a power of two 64..32768
  std::uint32_t arena_bytes = 256 << 10;  ///< per ring, a power of two 256 KiB..64 MiB
  bool operator==(const RingAttachSpec&) const = default;
};

/// One route set inside the tenant's namespace.
struct RouteSpec {
  std::optional<IpPrefix> to;    ///< nullopt: default
  std::optional<IpAddress> via;  ///< nullopt: on link
  bool operator==(const RouteSpec&) const = default;
};

/// A kernel netdev (TAP) inside the tenant's network namespace.
struct TapAttachSpec {
  std::string netns;  ///< path; "/proc/PID/ns/net" when the user gave a pid; empty: the daemon's own namespace
  std::string name;   ///< netdev name inside it
  std::vector<RouteSpec> routes;
  bool operator==(const TapAttachSpec&) const = default;
};

using AttachSpec = std::variant<RingAttachSpec, TapAttachSpec>;

struct PortSpec {
  std::string tenant;  ///< key below "tenants"
  std::string name;    ///< key below "ports"
  std::string uplink;  ///< name of an UplinkSpec
  Mode mode = Mode::bridge;
  Mac mac;
  std::vector<Mac> macs;         ///< further MACs behind the port
  std::uint16_t vlan = 0;        ///< access VLAN 1..4094; 0: the port sees frames as they are, tags included
  std::uint32_t mtu = 0;         ///< 0: the uplink's
  bool trusted = false;          ///< lifts the source-MAC check
  std::vector<Mac> source_macs;  ///< mode source: whose frames the port gets
  bool nodst = false;            ///< mode source: a match consumes the frame
  std::vector<IpPrefix> ips;
  OffloadCaps offloads = OffloadCaps::all();  ///< what may be unfinished in frames to the tenant; consistent()
  bool gro = true;  ///< small frames of a TCP flow are merged on their way to the port, if it takes larger ones
  AttachSpec attach;

  /// "tenant/name": how the port is known everywhere.
  [[nodiscard]] std::string full_name() const { return tenant + "/" + name; }
  bool operator==(const PortSpec&) const = default;
};

struct SwitchSpec {
  WorkersSpec workers;
  std::vector<UplinkSpec> uplinks;  ///< sorted by name
  std::vector<PortSpec> ports;      ///< sorted by tenant, then name
  bool operator==(const SwitchSpec&) const = default;
};

}  // namespace vswitch
