#include "ports/ring/socket.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) throw Error(ENAMETOOLONG, "listen on", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

/// Removes what a daemon that died left behind.
void clear_stale(const std::string& path, const sockaddr_un& address) {
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) return;
  if (!S_ISSOCK(file.st_mode))
    throw Error(EEXIST, "listen on", path, "a file that is no socket is there; remove it or choose another path");
  const Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    throw Error(EADDRINUSE, "listen on", path, "another process serves this socket");
  }
  if (errno != ECONNREFUSED) throw_errno("listen on", path, "another process may serve this socket");
  if (::unlink(path.c_str()) != 0) throw_errno("remove the stale socket", path);
}

}  // namespace

Fd listen_for_tenant(const RingAttachSpec& spec) {
  const sockaddr_un address = address_of(spec.socket);
  clear_stale(spec.socket, address);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) throw_errno("create a socket for", spec.socket);
  const mode_t mode = spec.gid ? 0660 : 0600;
  ::fchmod(fd.get(),
           0600);  // the file gets these bits, less the umask, when it is made: closed until it is ours to open
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw_errno("listen on", spec.socket, errno == ENOENT ? "create its directory first" : "");
  }
  const uid_t owner = spec.uid.value_or(static_cast<uid_t>(-1));
  const gid_t group = spec.gid.value_or(static_cast<gid_t>(-1));
  if (::chown(spec.socket.c_str(), owner, group) != 0 || ::chmod(spec.socket.c_str(), mode) != 0 ||
      ::listen(fd.get(), 8) != 0) {
    const int err = errno;
    ::unlink(spec.socket.c_str());
    throw Error(err, "open to its tenant", spec.socket);
  }
  return fd;
}

bool tenant_is_allowed(const RingAttachSpec& spec, const ucred& peer, int socket) {
  if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
  if (spec.uid && peer.uid == *spec.uid) return true;
  if (!spec.gid) return false;
  if (peer.gid == *spec.gid) return true;
  std::array<gid_t, 256> groups{};
  socklen_t bytes = sizeof(groups);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) != 0) return false;
  const gid_t* end = groups.data() + bytes / sizeof(gid_t);
  return std::find<const gid_t*>(groups.data(), end, *spec.gid) != end;
}

}  // namespace vswitch
