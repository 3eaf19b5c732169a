#pragma once
#include <span>
#include <string>
#include <string_view>

namespace vswitch {

/// The member of `known` that `word` is most likely a misspelling of: within two edits (insertion, deletion, exchange
/// of a letter or of neighbours; case does not count) and less than half of the word. Empty if there is none.
[[nodiscard]] std::string_view nearest(std::string_view word, std::span<const std::string> known);

}  // namespace vswitch
