#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "vswitch/daemon/json_rpc.h"
#include "vswitch/daemon/reconcile.h"

namespace vswitch {

/// One frame in words, as `vswitchctl trace` takes it.
struct TraceRequest {
  std::string port;  ///< "tenant/port", or an uplink: the frame comes from the wire
  Mac dst;
  std::optional<Mac> src;             ///< not given: the port's own MAC
  std::optional<std::uint16_t> vlan;  ///< 802.1Q VLAN ID of a tag; 0: a priority tag
  std::uint16_t ethertype = 0x0800;
  std::uint32_t length = 64;              ///< bytes, Ethernet header included, FCS not
  bool unfinished_checksum = false;       ///< the sender leaves the checksum to whoever finishes it
  std::optional<std::uint16_t> gso_size;  ///< a TCP segment train with that many payload bytes in each
};

/// Reads the parameters of the method "trace". Throws InvalidParams, which names the parameter.
[[nodiscard]] TraceRequest parse_trace(const Json& params);

/// Puts the frame through decide(), the very function the workers call, on the table they use now, and tells what
/// would become of it: rule or drop reason, destinations, and what each of them would do to the frame. Nothing is sent
/// or counted. Throws InvalidParams.
[[nodiscard]] Json trace(const Switch& running, const TraceRequest& request);

}  // namespace vswitch
