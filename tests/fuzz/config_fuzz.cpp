#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <tuple>

#include "config/diff.h"
#include "config/load.h"
#include "vswitch/base/error.h"

// Any bytes are a configuration or an Error that a terminal can show: one line for each problem.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const vswitch::SwitchSpec spec = vswitch::load_text(text, "fuzz");
    if (!vswitch::diff(spec, spec).empty()) std::abort();
    const bool ordered = std::is_sorted(spec.ports.begin(), spec.ports.end(), [](const auto& a, const auto& b) {
      return std::tie(a.tenant, a.name) < std::tie(b.tenant, b.name);
    });
    if (!ordered) std::abort();
    if (vswitch::load_text(text, "fuzz") != spec) std::abort();
  } catch (const vswitch::Error& error) {
    const std::string_view message(error.what());
    const bool printable = std::all_of(message.begin(), message.end(), [](char c) {
      return c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    });
    if (!printable) std::abort();
  }
  return 0;
}
