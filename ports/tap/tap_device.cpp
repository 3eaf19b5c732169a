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

/// The kernel takes ECN beside TSO only, and the two families of USO together only.
unsigned tun_flags(OffloadCaps caps) noexcept {
  return (caps.checksum ? TUN_F_CSUM : 0U) | (caps.tso4 ? TUN_F_TSO4 : 0U) | (caps.tso6 ? TUN_F_TSO6 : 0U) |
         (caps.ecn ? TUN_F_TSO_ECN : 0U) | (caps.uso ? kTunUso4 | kTunUso6 : 0U);
}

}  // namespace

OffloadCaps set_tap_offloads(int queue, const std::string& name, OffloadCaps wanted) {
  if (::ioctl(queue, TUNSETOFFLOAD, tun_flags(wanted)) == 0) return wanted;
  if (errno == EINVAL && wanted.uso) {
    wanted.uso = false;
    if (::ioctl(queue, TUNSETOFFLOAD, tun_flags(wanted)) == 0) return wanted;
  }
  throw_errno("set the offloads of", name);
}

TapDevice create_tap(const std::string& name, std::size_t queues, OffloadCaps offloads) {
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
  device.offloads = set_tap_offloads(device.queues[0].get(), name, offloads);
  return device;
}

bool tap_exists(int queue) noexcept {
  ifreq request{};
  return ::ioctl(queue, TUNGETIFF, &request) == 0;
}

}  // namespace vswitch
