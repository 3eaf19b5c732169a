#pragma once
#include <filesystem>
#include <string_view>

#include "vswitch/core/spec.h"

namespace vswitch {

/// Reads and checks tenants.json (its schema: tenants.schema.json, tenants.json(5)). Nothing outside the file is looked
/// at but the machine's identity, for MAC addresses that are left out; see check_system.h for the rest.
/// Control thread. Throws Error: what() has one line per problem, "FILE:LINE:COLUMN: POINTER: expected ..., found ...",
/// in the order of the file: all problems, but of syntax errors only the first.
[[nodiscard]] SwitchSpec load_file(const std::filesystem::path& file);

/// The same for the text of a file. Any bytes are safe.
/// @param origin what messages call the text
[[nodiscard]] SwitchSpec load_text(std::string_view text, std::string_view origin);

}  // namespace vswitch
