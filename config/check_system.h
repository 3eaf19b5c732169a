#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "vswitch/core/spec.h"

namespace vswitch {

/// Compares a valid configuration with the running system: network devices, namespaces, processes, CPUs, socket
/// directories. Touches nothing. For `vswitchd --check` and every start and reload, with the daemon's own rights: what
/// a missing right hides is reported as such. Control thread; throws Error only when the system refuses to be asked.
/// @param runtime_directory a directory that the daemon makes itself, so it need not exist; may be empty
/// @return one line for each problem, "POINTER: expected ..., found ..."; empty if the system fits
[[nodiscard]] std::vector<std::string> check_system(const SwitchSpec& spec,
                                                    const std::filesystem::path& runtime_directory = {});

}  // namespace vswitch
