#include "tests/bench/tenant.h"

#include <cerrno>
#include <ctime>

#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

namespace vswitch::bench {

std::string socket_path(const std::string& folder, std::uint32_t index) {
  return folder + "/r" + std::to_string(index);
}

Tenant attach(const std::string& folder, std::uint32_t index, int patience_ms) {
  constexpr timespec kPause{0, static_cast<long>(kMillisecond)};
  const std::string path = socket_path(folder, index);
  const Nanoseconds deadline = monotonic_now() + static_cast<Nanoseconds>(patience_ms) * kMillisecond;
  for (;;) {
    vswitch_port* port = nullptr;
    const int status = vswitch_attach(path.c_str(), nullptr, &port);
    if (status == 0) return Tenant(port);
    const bool may_pass = status == -ENOENT || status == -ECONNREFUSED || status == -EBUSY || status == -ECONNRESET;
    if (!may_pass || monotonic_now() > deadline) throw Error(-status, "attach to", path, vswitch_attach_error());
    ::nanosleep(&kPause, nullptr);
  }
}

}  // namespace vswitch::bench
