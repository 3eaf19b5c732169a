#include "netlink/netdev.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

bool query(const Fd& socket, unsigned long request, ifreq& answer) noexcept {
  return ::ioctl(socket.get(), request, &answer) == 0;
}

}  // namespace

Netdev::Netdev(const std::string& name) : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  if (!socket_.valid()) throw_errno("open", "a socket to ask for netdevs");
  ifreq request{};
  if (name.empty() || name.size() >= sizeof(request.ifr_name)) {
    throw Error(EINVAL, "use netdev", '"' + name + '"', "a netdev name has 1 to 15 characters");
  }
  std::memcpy(request.ifr_name, name.data(), name.size());
  if (!query(socket_, SIOCGIFINDEX, request)) {
    throw_errno("find netdev", name, "`ip link` lists the netdevs of the network namespace that vswitchd runs in");
  }
  index_ = request.ifr_ifindex;
  if (!query(socket_, SIOCGIFFLAGS, request)) throw_errno("ask for the flags of netdev", name);
  if ((request.ifr_flags & IFF_LOOPBACK) != 0) {
    throw Error(EINVAL, "use netdev", name, "the loopback device has no wire; name an Ethernet netdev");
  }
  if (!query(socket_, SIOCGIFHWADDR, request)) throw_errno("ask for the address of netdev", name);
  if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
    throw Error(EINVAL, "use netdev", name, "it is not an Ethernet device; name one whose `ip link` says link/ether");
  }
}

std::optional<NetdevState> Netdev::state() const {
  ifreq request{};
  request.ifr_ifindex = index_;
  if (!query(socket_, SIOCGIFNAME, request)) return std::nullopt;
  NetdevState state;
  state.name = request.ifr_name;
  if (!query(socket_, SIOCGIFFLAGS, request)) return std::nullopt;
  state.up = (request.ifr_flags & IFF_UP) != 0 && (request.ifr_flags & IFF_RUNNING) != 0;
  if (!query(socket_, SIOCGIFMTU, request)) return std::nullopt;
  state.mtu = static_cast<std::uint32_t>(request.ifr_mtu);
  if (!query(socket_, SIOCGIFHWADDR, request)) return std::nullopt;
  std::memcpy(state.mac.bytes.data(), request.ifr_hwaddr.sa_data, state.mac.bytes.size());
  return state;
}

Fd open_netdev_monitor() {
  Fd monitor(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  if (!monitor.valid()) throw_errno("open", "a netlink socket to watch the netdev");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (::bind(monitor.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw_errno("listen to", "changes of netdevs");
  }
  return monitor;
}

}  // namespace vswitch
