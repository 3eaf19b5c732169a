/// The library that stands between libibverbs and the kernel: LD_PRELOAD=libsoftnic.so SYSFS_PATH=DIR/sysfs.
///
/// libibverbs finds devices below SYSFS_PATH, opens /dev/infiniband/uverbsN, and talks to it by write(2), mmap(2) and
/// (newer) ioctl(2). Those calls are answered here; the rest of the process is left alone. An ioctl is refused with
/// ENOTTY, as by a kernel that has the write interface only, and libibverbs falls back to it.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "tests/softnic/core/board.h"
#include "tests/softnic/daemon/remote_fabric.h"
#include "tests/softnic/kernel/local_fabric.h"
#include "tests/softnic/kernel/session.h"

namespace softnic {
namespace {

constexpr char kNodes[] = "/dev/infiniband/uverbs";

/// The device is one of this process (softnic.h), or a daemon's.
std::unique_ptr<Fabric> open_fabric(const std::string& directory, Board& board) {
  if (auto local = find_local_device(directory)) return std::make_unique<LocalFabric>(std::move(local));
  return std::make_unique<RemoteFabric>(directory + "/socket", board);
}

/// One open of the device.
struct OpenDevice {
  explicit OpenDevice(const std::string& directory)
      : board(directory + "/board", false), fabric(open_fabric(directory, *board)), session(*fabric, *board) {}
  BoardFile board;
  std::unique_ptr<Fabric> fabric;
  Session session;
};

std::mutex table_mutex;
std::atomic<int> open_devices{0};

std::map<int, std::shared_ptr<OpenDevice>>& table() {
  static auto* const devices = new std::map<int, std::shared_ptr<OpenDevice>>;  // outlives static destructors
  return *devices;
}

std::shared_ptr<OpenDevice> find(int fd) {
  if (open_devices.load(std::memory_order_acquire) == 0) return nullptr;
  const std::lock_guard held(table_mutex);
  const auto found = table().find(fd);
  return found == table().end() ? nullptr : found->second;
}

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool is_node(const char* path) {
  return path != nullptr && std::strncmp(path, kNodes, sizeof kNodes - 1) == 0 && std::getenv("SYSFS_PATH") != nullptr;
}

int open_null(int flags) {
  static const auto real = next<int (*)(const char*, int, ...)>("open");
  return real("/dev/null", flags);
}

int open_node(const char* path, int flags) {
  const std::string sysfs = std::getenv("SYSFS_PATH");
  std::ifstream file(sysfs + "/class/infiniband_verbs/uverbs" + (path + sizeof kNodes - 1) + "/softnic");
  std::string directory;
  if (!std::getline(file, directory)) {
    errno = ENOENT;
    return -1;
  }
  std::shared_ptr<OpenDevice> device;
  try {
    device = std::make_shared<OpenDevice>(directory);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "softnic: %s\n", error.what());
    errno = EIO;
    return -1;
  }
  const int fd = open_null(flags);
  if (fd < 0) return -1;
  const std::lock_guard held(table_mutex);
  table()[fd] = std::move(device);
  ++open_devices;
  return fd;
}

int open_any(const char* name, const char* path, int flags, mode_t mode) {
  if (is_node(path)) return open_node(path, flags);
  return next<int (*)(const char*, int, ...)>(name)(path, flags, mode);
}

}  // namespace
}  // namespace softnic

#define SOFTNIC_EXPORT extern "C" __attribute__((visibility("default")))

SOFTNIC_EXPORT int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return softnic::open_any("open", path, flags, mode);
}

SOFTNIC_EXPORT int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return softnic::open_any("open64", path, flags, mode);
}

SOFTNIC_EXPORT int stat(const char* path, struct stat* out) noexcept {
  static const auto real = softnic::next<int (*)(const char*, struct stat*)>("stat");
  return real(softnic::is_node(path) ? "/dev/null" : path, out);
}

SOFTNIC_EXPORT int stat64(const char* path, struct stat64* out) noexcept {
  static const auto real = softnic::next<int (*)(const char*, struct stat64*)>("stat64");
  return real(softnic::is_node(path) ? "/dev/null" : path, out);
}

SOFTNIC_EXPORT ssize_t write(int fd, const void* data, size_t bytes) {
  static const auto real = softnic::next<ssize_t (*)(int, const void*, size_t)>("write");
  const auto device = softnic::find(fd);
  if (!device) return real(fd, data, bytes);
  const int error = device->session.execute({static_cast<const std::uint8_t*>(data), bytes});
  if (error == 0) return static_cast<ssize_t>(bytes);
  errno = error;
  return -1;
}

SOFTNIC_EXPORT int ioctl(int fd, unsigned long request, ...) noexcept {
  static const auto real = softnic::next<int (*)(int, unsigned long, ...)>("ioctl");
  va_list rest;
  va_start(rest, request);
  void* argument = va_arg(rest, void*);
  va_end(rest);
  if (!softnic::find(fd)) return real(fd, request, argument);
  errno = ENOTTY;
  return -1;
}

namespace {

template <typename Map>
void* map_any(Map real, void* at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  const auto device = fd < 0 ? nullptr : softnic::find(fd);
  if (!device) return real(at, bytes, protection, flags, fd, offset);
  const softnic::Session::Page page = device->session.page(static_cast<std::uint64_t>(offset));
  if (page.fd < 0 || bytes != softnic::Nic::kUarBytes) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  return real(at, bytes, protection, flags, page.fd, page.offset);
}

}  // namespace

SOFTNIC_EXPORT void* mmap(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  static const auto real = softnic::next<void* (*)(void*, size_t, int, int, int, off_t)>("mmap");
  return map_any(real, at, bytes, protection, flags, fd, offset);
}

SOFTNIC_EXPORT void* mmap64(void* at, size_t bytes, int protection, int flags, int fd, off64_t offset) noexcept {
  static const auto real = softnic::next<void* (*)(void*, size_t, int, int, int, off64_t)>("mmap64");
  return map_any(real, at, bytes, protection, flags, fd, offset);
}

SOFTNIC_EXPORT int close(int fd) {
  static const auto real = softnic::next<int (*)(int)>("close");
  std::shared_ptr<softnic::OpenDevice> device = softnic::find(fd);
  if (device) {
    const std::lock_guard held(softnic::table_mutex);
    softnic::table().erase(fd);
    --softnic::open_devices;
  }
  return real(fd);  // the device goes with the last reference, outside of the lock
}

// A machine that has RDMA devices of its own would list those by netlink, and not look at SYSFS_PATH.
SOFTNIC_EXPORT int socket(int family, int type, int protocol) noexcept {
  static const auto real = softnic::next<int (*)(int, int, int)>("socket");
  if (family == AF_NETLINK && protocol == NETLINK_RDMA && std::getenv("SYSFS_PATH") != nullptr) {
    errno = EPROTONOSUPPORT;
    return -1;
  }
  return real(family, type, protocol);
}
