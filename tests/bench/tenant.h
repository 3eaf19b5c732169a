#pragma once
#include <vswitch/vswitch.h>

#include <cstdint>
#include <memory>
#include <string>

namespace vswitch::bench {

struct Detach {
  void operator()(vswitch_port* port) const noexcept { vswitch_detach(port); }
};
using Tenant = std::unique_ptr<vswitch_port, Detach>;

/// Path of the socket of port `index`: all benchmarks name them alike.
[[nodiscard]] std::string socket_path(const std::string& folder, std::uint32_t index);

/// Attaches to the port behind `socket` and asks for `features`; tries again until `patience_ms` has passed, for a port
/// that somebody else still holds or that is not there yet. Throws Error.
[[nodiscard]] Tenant attach_to(const std::string& socket, std::uint32_t features, int patience_ms);
/// The same for port `index` below `folder`, without features.
[[nodiscard]] Tenant attach(const std::string& folder, std::uint32_t index, int patience_ms);

}  // namespace vswitch::bench
