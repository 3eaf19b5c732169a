#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "config/problems.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// The addresses of the array of strings `ips` at `pointer`; adds a problem for each that no port can have.
/// @param mtu of the port in bytes, 0: not known
[[nodiscard]] std::vector<IpPrefix> read_ips(const nlohmann::json& ips, const std::string& pointer, std::uint32_t mtu,
                                             Problems& problems);

/// The routes of the array `routes` at `pointer`; adds a problem for each that a kernel would refuse on a device with
/// the addresses `ips`.
[[nodiscard]] std::vector<RouteSpec> read_routes(const nlohmann::json& routes, const std::string& pointer,
                                                 const std::vector<IpPrefix>& ips, Problems& problems);

}  // namespace vswitch
