#include "vswitch/daemon/unix_socket.h"

#include <cerrno>
#include <cstring>

#include "vswitch/base/error.h"

namespace vswitch {

UnixAddress::UnixAddress(const std::string& path) {
  address_.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address_.sun_path)) {
    throw Error(ENAMETOOLONG, "use socket path", path, "a socket path has 1 to 107 bytes");
  }
  std::memcpy(address_.sun_path, path.data(), path.size());
}

Fd unix_stream_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) throw_errno("create", "Unix socket");
  return socket;
}

}  // namespace vswitch
