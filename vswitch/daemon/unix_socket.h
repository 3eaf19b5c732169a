#pragma once
#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "vswitch/base/fd.h"

namespace vswitch {

/// The address of a Unix socket in the file system. Throws Error when the path does not fit (107 bytes).
class UnixAddress {
 public:
  explicit UnixAddress(const std::string& path);
  [[nodiscard]] const sockaddr* generic() const noexcept { return reinterpret_cast<const sockaddr*>(&address_); }
  [[nodiscard]] socklen_t size() const noexcept { return sizeof(address_); }

 private:
  sockaddr_un address_{};
};

/// A stream socket, non-blocking and closed on exec. Throws Error.
Fd unix_stream_socket();

}  // namespace vswitch
