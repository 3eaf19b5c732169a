#include "ports/tap/tap_device.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr const char* kDevice = "/dev/net/tun";
constexpr unsigned kTunUso4 = 0x20;  // TUN_F_USO4 and TUN_F_USO6, Linux 6.2; <linux/if_tun.h> of Debian 12 lacks them
constexpr unsigned kTunUso6 = 0x40;
constexpr unsigned kTunBase = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

Fd open_device() {
  Fd fd(::open(kDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd.valid()) return fd;
  switch (errno) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      throw_errno("open", kDevice, "load the module (modprobe tun); in a container, pass the device to it");
    case EACCES:
    case EPERM:
      throw_errno("open", kDevice, "run vswitchd as root, and let its cgroup use the device (systemd: DeviceAllow=)");
    default:
      throw_errno("open", kDevice);
  }
}

[[noreturn]] void throw_attach(const std::string& name) {
  switch (errno) {
    case EBUSY:
      throw_errno("create netdev", name,
                  "the namespace has a netdev of that name, which stays as it is: remove it or choose another name");
    case EPERM:
      throw_errno("create netdev", name, "run vswitchd as root, or with CAP_NET_ADMIN in the namespace");
    case EINVAL:
      throw_errno("create netdev", name, "is it a netdev name: at most 15 characters, no space, no '/', no ':'?");
    case E2BIG:
      throw_errno("create netdev", name, "TAP has no more queues: use fewer workers");
    default:
      throw_errno("create netdev", name);
  }
}

Fd open_queue(const std::string& name, int flags) {
  Fd fd = open_device();
  ifreq request{};
  name.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | flags);
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) throw_attach(name);
  return fd;
}

/// Says what the netdev's own stack may leave unfinished in frames we read.
OffloadCaps set_offloads(const Fd& fd, const std::string& name, bool wanted) {
  OffloadCaps accepted;
  if (wanted) {
    accepted = OffloadCaps::all();
    if (::ioctl(fd.get(), TUNSETOFFLOAD, kTunBase | kTunUso4 | kTunUso6) == 0) return accepted;
    accepted.uso = false;
  }
  if (::ioctl(fd.get(), TUNSETOFFLOAD, wanted ? kTunBase : 0U) != 0) throw_errno("set the offloads of", name);
  return accepted;
}

}  // namespace

TapDevice create_tap(const std::string& name, std::size_t queues, bool offloads) {
  // The kernel would cut a long name off, and number one with a '%'.
  if (name.empty() || name.size() >= IFNAMSIZ || name.find('%') != std::string::npos) {
    throw Error(EINVAL, "create netdev", name, "give it a name of 1 to 15 characters without '%'");
  }
  TapDevice device;
  for (std::size_t i = 0; i < queues; ++i) {
    device.queues.push_back(open_queue(name, i == 0 ? IFF_TUN_EXCL : 0));
  }
  const int little_endian = 1;
  if (::ioctl(device.queues[0].get(), TUNSETVNETLE, &little_endian) != 0) throw_errno("set the byte order of", name);
  device.offloads = set_offloads(device.queues[0], name, offloads);
  return device;
}

bool tap_exists(const Fd& queue) noexcept {
  ifreq request{};
  return ::ioctl(queue.get(), TUNGETIFF, &request) == 0;
}

}  // namespace vswitch
