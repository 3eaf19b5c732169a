#pragma once

#include <cstdio>

#include "tests/softnic/core/board.h"

namespace softnic {

/// The software under test broke a rule of the interface: said on stderr and counted. Real hardware would hang, send
/// garbage or write into memory that is not the NIC's any more.
template <typename... Values>
void violation(Board& board, const char* format, Values... values) noexcept {
  board.count(Counter::violations);
  std::fputs("softnic: violation: ", stderr);
  std::fprintf(stderr, format, values...);
  std::fputc('\n', stderr);
}

}  // namespace softnic
