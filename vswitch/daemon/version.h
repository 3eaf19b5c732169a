#pragma once
#include <string_view>

namespace vswitch {

/// "MAJOR.MINOR.PATCH" of this build.
[[nodiscard]] std::string_view version() noexcept;

}  // namespace vswitch
