#include "netlink/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <exception>
#include <thread>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

const char* hint_for_open(int err) noexcept {
  switch (err) {
    case ENOENT:
      return "create it first (ip netns add NAME makes /run/netns/NAME), or give the pid of a running process";
    case EACCES:
    case EPERM:
      return "run vswitchd as root, or with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_SYS_PTRACE";
    default:
      return "give the path of a network namespace, such as /run/netns/NAME or /proc/PID/ns/net";
  }
}

}  // namespace

Netns Netns::open(const std::string& path) {
  const std::string& target = path.empty() ? std::string("/proc/thread-self/ns/net") : path;
  std::string name = path.empty() ? std::string("the daemon's own namespace") : path;
  Fd fd(::open(target.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) throw_errno("open network namespace", target, hint_for_open(errno));
  struct statfs filesystem {};
  if (::fstatfs(fd.get(), &filesystem) != 0) throw_errno("look at", target);
  // An unmounted /run/netns/NAME is an empty plain file; a namespace of another kind answers another type.
  if (filesystem.f_type != NSFS_MAGIC || ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    throw Error(0, "open network namespace", target,
                "it is no network namespace: give a path such as /run/netns/NAME or /proc/PID/ns/net");
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) throw_errno("look at", target);
  return {std::move(fd), std::move(name), status.st_ino};
}

void Netns::run(const std::function<void()>& work) const {
  std::exception_ptr failure;
  std::thread inside([&] {
    try {
      if (::setns(fd_.get(), CLONE_NEWNET) != 0) {
        throw_errno("enter network namespace", name_,
                    "run vswitchd as root, or with CAP_SYS_ADMIN in the user namespace that owns it");
      }
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  inside.join();
  if (failure) std::rethrow_exception(failure);
}

bool is_netns_at(const std::string& path, ino_t inode) noexcept {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && status.st_ino == inode;
}

}  // namespace vswitch
