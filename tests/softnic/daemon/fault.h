#pragma once

#include <string>
#include <vector>

#include "tests/softnic/core/board.h"

namespace softnic {

/// Asks the device for a fault, as `softnic fault DIR WORD...` says it. @return what is wrong with the words, or
/// nothing.
[[nodiscard]] std::string inject(Board& board, const std::vector<std::string>& words);

}  // namespace softnic
