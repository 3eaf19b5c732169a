#pragma once
#include <linux/filter.h>

#include <vector>

#include "vswitch/core/port.h"
#include "vswitch/net/mac.h"

namespace vswitch::af_packet {

/// The classic BPF program that decides which received frames the kernel copies to the uplink's sockets: steering as
/// far as a program of constant cost can do it. The steering table does the rest.
///
/// - without tenants: none;
/// - with `everything`: all;
/// - otherwise multicast, and unicast that is not the host's; the host's own unicast only from a source-mode port's
///   `sources`, so that a busy host pays nothing for the tenants.
///
/// What the host sends is never copied.
[[nodiscard]] std::vector<sock_filter> make_filter(const Steering& wanted, const Mac& host);

}  // namespace vswitch::af_packet
