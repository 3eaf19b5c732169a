#pragma once
#include <vector>

#include "tests/ports/harness.h"

namespace vswitch::test {

/// Every kind of port there is.
inline std::vector<Kind> kinds() {
  return {{"loop", make_loop_harness},
          {"af_packet", make_af_packet_harness},
          {"ring", make_ring_harness},
          {"tap", make_tap_harness}};
}

}  // namespace vswitch::test
