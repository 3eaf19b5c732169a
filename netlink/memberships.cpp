#include "netlink/memberships.h"

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr const char* kNeedsCapability =
    "vswitchd needs the capability CAP_NET_RAW: run it as root or by its systemd unit";

using Wanted = Memberships::Wanted;

/// What is in `a` but not in `b`.
Wanted difference(const Wanted& a, const Wanted& b) {
  Wanted result;
  std::set_difference(a.unicast.begin(), a.unicast.end(), b.unicast.begin(), b.unicast.end(),
                      std::inserter(result.unicast, result.unicast.end()));
  result.all_multicast = a.all_multicast && !b.all_multicast;
  result.promiscuous = a.promiscuous && !b.promiscuous;
  return result;
}

}  // namespace

Memberships::Memberships(int netdev_index)
    : netdev_index_(netdev_index), socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
  if (!socket_.valid()) throw_errno("open", "a packet socket", errno == EPERM ? kNeedsCapability : "");
}

void Memberships::change_one(int option, unsigned short type, const Mac& mac) {
  packet_mreq request{};
  request.mr_ifindex = netdev_index_;
  request.mr_type = type;
  request.mr_alen = static_cast<unsigned short>(mac.bytes.size());
  std::memcpy(request.mr_address, mac.bytes.data(), mac.bytes.size());
  if (::setsockopt(socket_.get(), SOL_PACKET, option, &request, sizeof(request)) == 0) return;
  if (option == PACKET_DROP_MEMBERSHIP) return;  // the netdev is gone, and its filter with it
  throw_errno("let the netdev receive",
              type == PACKET_MR_UNICAST ? mac.to_string()
                                        : std::string(type == PACKET_MR_PROMISC ? "all frames" : "all multicast"),
              errno == ENODEV ? "the netdev is gone" : "");
}

void Memberships::add(const Wanted& wanted, Wanted& added) {
  for (const Mac& mac : wanted.unicast) {
    change_one(PACKET_ADD_MEMBERSHIP, PACKET_MR_UNICAST, mac);
    added.unicast.insert(mac);
  }
  if (wanted.all_multicast) change_one(PACKET_ADD_MEMBERSHIP, PACKET_MR_ALLMULTI, {});
  added.all_multicast = wanted.all_multicast;
  if (wanted.promiscuous) change_one(PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, {});
  added.promiscuous = wanted.promiscuous;
}

void Memberships::drop(const Wanted& unwanted) noexcept {
  for (const Mac& mac : unwanted.unicast) change_one(PACKET_DROP_MEMBERSHIP, PACKET_MR_UNICAST, mac);
  if (unwanted.all_multicast) change_one(PACKET_DROP_MEMBERSHIP, PACKET_MR_ALLMULTI, {});
  if (unwanted.promiscuous) change_one(PACKET_DROP_MEMBERSHIP, PACKET_MR_PROMISC, {});
}

void Memberships::change(const Wanted& wanted) {
  Wanted added;
  try {
    add(difference(wanted, current_), added);
  } catch (...) {
    drop(added);
    throw;
  }
  drop(difference(current_, wanted));
  current_ = wanted;
}

}  // namespace vswitch
