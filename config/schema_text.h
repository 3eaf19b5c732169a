#pragma once
#include <string_view>

namespace vswitch {

/// The JSON Schema (draft 7) of tenants.json: the text of tenants.schema.json, put into the library when it is built.
[[nodiscard]] std::string_view schema_text() noexcept;

}  // namespace vswitch
