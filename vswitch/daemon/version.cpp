#include "vswitch/daemon/version.h"

namespace vswitch {

std::string_view version() noexcept { return VSWITCH_VERSION; }  // from CMakeLists.txt

}  // namespace vswitch
