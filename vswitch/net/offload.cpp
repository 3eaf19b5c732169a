#include "vswitch/net/offload.h"

namespace vswitch {

std::string to_string(const OffloadCaps& caps) {
  std::string names;
  for (const OffloadName& kind : kOffloadNames) {
    if (caps.*kind.member) names.append(names.empty() ? "" : ", ").append(kind.name);
  }
  return names.empty() ? "none" : names;
}

}  // namespace vswitch
