#include "tests/bench/tenant.h"

#include <cerrno>
#include <ctime>

#include "vswitch/base/clock.h"
#include "vswitch/base/error.h"

namespace vswitch::bench {

std::string socket_path(const std::string& folder, std::uint32_t index) {
  return folder + "/r" + std::to_string(index);
}

Tenant attach_to(const std::string& socket, std::uint32_t features, int patience_ms) {
  constexpr timespec kPause{0, static_cast<long>(kMillisecond)};
  vswitch_options options{};
  options.size = sizeof(options);
  options.features = features;
  const Nanoseconds deadline = monotonic_now() + static_cast<Nanoseconds>(patience_ms) * kMillisecond;
  for (;;) {
    vswitch_port* port = nullptr;
    const int status = vswitch_attach(socket.c_str(), &options, &port);
    if (status == 0) return Tenant(port);
    const bool may_pass = status == -ENOENT || status == -ECONNREFUSED || status == -EBUSY || status == -ECONNRESET;
    if (!may_pass || monotonic_now() > deadline) throw Error(-status, "attach to", socket, vswitch_attach_error());
    ::nanosleep(&kPause, nullptr);
  }
}

Tenant attach(const std::string& folder, std::uint32_t index, int patience_ms) {
  return attach_to(socket_path(folder, index), 0, patience_ms);
}

}  // namespace vswitch::bench
