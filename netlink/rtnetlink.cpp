#include "netlink/rtnetlink.h"

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr std::string_view kNeedsAdmin = "run vswitchd as root, or with CAP_NET_ADMIN in the namespace";

template <class T>
Nl<T> owned(T* object) {
  if (object == nullptr) throw Error(ENOMEM, "allocate", "a netlink object");
  return Nl<T>(object);
}

Nl<nl_sock> connect_route_socket() {
  Nl<nl_sock> socket = owned(nl_socket_alloc());
  if (const int code = nl_connect(socket.get(), NETLINK_ROUTE); code < 0) {
    throw Error(0, "open", "a routing netlink socket", nl_geterror(code));
  }
  return socket;
}

Nl<nl_addr> to_nl(const IpAddress& address, int prefix_length) {
  Nl<nl_addr> result = owned(nl_addr_build(address.family(), address.bytes.data(), address.length));
  nl_addr_set_prefixlen(result.get(), prefix_length);
  return result;
}

Link to_link(rtnl_link* link) {
  Link result;
  result.index = rtnl_link_get_ifindex(link);
  result.name = rtnl_link_get_name(link);
  result.mtu = rtnl_link_get_mtu(link);
  const unsigned flags = rtnl_link_get_flags(link);
  result.up = (flags & IFF_UP) != 0;
  result.running = (flags & IFF_RUNNING) != 0;
  nl_addr* mac = rtnl_link_get_addr(link);
  if (mac != nullptr && nl_addr_get_len(mac) == result.mac.bytes.size()) {
    std::memcpy(result.mac.bytes.data(), nl_addr_get_binary_addr(mac), result.mac.bytes.size());
  }
  return result;
}

/// The text of the kernel's extended acknowledgement (include/uapi/linux/netlink.h, NLMSGERR_ATTR_MSG), or "".
std::string extended_text(const nlmsgerr& error) {
  const auto* header = reinterpret_cast<const nlmsghdr*>(reinterpret_cast<const std::byte*>(&error) - NLMSG_HDRLEN);
  if ((header->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  std::size_t skip = sizeof(nlmsgerr);  // NETLINK_CAP_ACK is set: of our request only its header comes back
  if ((header->nlmsg_flags & NLM_F_CAPPED) == 0) skip += NLMSG_ALIGN(error.msg.nlmsg_len) - sizeof(nlmsghdr);
  const std::size_t payload = header->nlmsg_len - NLMSG_HDRLEN;
  if (payload <= skip) return {};
  const auto* attributes = reinterpret_cast<const nlattr*>(reinterpret_cast<const std::byte*>(&error) + skip);
  const nlattr* text = nla_find(attributes, static_cast<int>(payload - skip), NLMSGERR_ATTR_MSG);
  if (text == nullptr) return {};
  const auto length = static_cast<std::size_t>(nla_len(text));
  const char* characters = static_cast<const char*>(nla_data(text));
  return {characters, ::strnlen(characters, length)};
}

}  // namespace

Rtnetlink::Rtnetlink() : socket_(connect_route_socket()) {
  const int on = 1;
  // Kernels before 4.12 know neither option: errors then come without a text.
  ::setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
  ::setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  nl_socket_modify_err_cb(socket_.get(), NL_CB_CUSTOM, &Rtnetlink::on_error, this);
}

int Rtnetlink::on_error(sockaddr_nl* /*from*/, nlmsgerr* error, void* self) noexcept {
  auto& owner = *static_cast<Rtnetlink*>(self);
  owner.errno_ = -error->error;
  try {
    owner.reason_ = extended_text(*error);
  } catch (...) {  // out of memory: the number alone must do; nothing may be thrown through libnl
    owner.reason_.clear();
  }
  return -nl_syserr2nlerr(error->error);
}

void Rtnetlink::check(int code, std::string_view operation, const std::string& subject, std::string_view hint) {
  if (code >= 0) return;
  const int refusal = std::exchange(errno_, 0);
  if (refusal == 0) throw Error(0, operation, subject, nl_geterror(code));  // libnl itself failed
  std::string advice = reason_.empty() ? std::string() : "the kernel says: " + reason_;
  if (refusal == EPERM) hint = kNeedsAdmin;
  if (!hint.empty()) advice.append(advice.empty() ? "" : "; ").append(hint);
  throw Error(refusal, operation, subject, advice);
}

std::optional<Link> Rtnetlink::find(int index, const char* name) {
  rtnl_link* found = nullptr;
  const int code = rtnl_link_get_kernel(socket_.get(), index, name, &found);
  if (code == -NLE_NODEV || code == -NLE_OBJ_NOTFOUND) return std::nullopt;
  check(code, "look up", name != nullptr ? std::string(name) : "netdev " + std::to_string(index));
  return to_link(owned(found).get());
}

std::optional<Link> Rtnetlink::find_link(const std::string& name) { return find(0, name.c_str()); }
std::optional<Link> Rtnetlink::find_link(int index) { return find(index, nullptr); }

void Rtnetlink::change_link(const Link& link, const LinkChange& change) {
  Nl<rtnl_link> from = owned(rtnl_link_alloc());
  Nl<rtnl_link> wanted = owned(rtnl_link_alloc());
  rtnl_link_set_ifindex(from.get(), link.index);
  rtnl_link_set_ifindex(wanted.get(), link.index);
  std::string what;
  if (change.mac) {
    Nl<nl_addr> mac = owned(nl_addr_build(AF_LLC, change.mac->bytes.data(), change.mac->bytes.size()));
    rtnl_link_set_addr(wanted.get(), mac.get());
    what += " MAC " + change.mac->to_string();
  }
  if (change.mtu) {
    rtnl_link_set_mtu(wanted.get(), *change.mtu);
    what += " MTU " + std::to_string(*change.mtu);
  }
  if (change.name) {
    rtnl_link_set_name(wanted.get(), change.name->c_str());
    what += " name " + *change.name;
  }
  if (change.up) {
    *change.up ? rtnl_link_set_flags(wanted.get(), IFF_UP) : rtnl_link_unset_flags(wanted.get(), IFF_UP);
    what += *change.up ? " up" : " down";
  }
  check(rtnl_link_change(socket_.get(), from.get(), wanted.get(), 0), "set", link.name + what);
}

void Rtnetlink::delete_link(const Link& link) {
  Nl<rtnl_link> request = owned(rtnl_link_alloc());
  rtnl_link_set_ifindex(request.get(), link.index);
  check(rtnl_link_delete(socket_.get(), request.get()), "delete netdev", link.name);
}

void Rtnetlink::limit_gso_segments(const Link& link, std::uint32_t segments) {
  // libnl 3.7 has no accessor for this attribute of rtnl_link.
  Nl<nl_msg> message = owned(nlmsg_alloc_simple(RTM_SETLINK, 0));
  ifinfomsg header{};
  header.ifi_index = link.index;
  int code = nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  if (code >= 0) code = nla_put_u32(message.get(), IFLA_GSO_MAX_SEGS, segments);
  if (code >= 0) code = nl_send_sync(socket_.get(), message.release());  // frees the message
  check(code, "limit the GSO segments of", link.name);
}

void Rtnetlink::add_address(const Link& link, const IpPrefix& address) {
  Nl<rtnl_addr> request = owned(rtnl_addr_alloc());
  rtnl_addr_set_ifindex(request.get(), link.index);
  check(rtnl_addr_set_local(request.get(), to_nl(address.address, address.prefix_length).get()), "build address",
        address.to_string());
  if (address.address.is_v6()) rtnl_addr_set_flags(request.get(), IFA_F_NODAD);
  check(
      rtnl_addr_add(socket_.get(), request.get(), NLM_F_CREATE | NLM_F_EXCL),
      "add address " + address.to_string() + " to", link.name,
      address.address.is_v6() ? "is IPv6 disabled there (net.ipv6.conf.all.disable_ipv6), or the MTU below 1280?" : "");
}

void Rtnetlink::add_route(const Link& link, const std::optional<IpPrefix>& to, const std::optional<IpAddress>& via) {
  const std::string subject = (to ? to->to_string() : "default") + (via ? " via " + via->to_string() : "");
  const int family = to ? to->address.family() : via ? via->family() : AF_INET;
  if (via && via->family() != family) {
    throw Error(0, "add route", subject, "give a gateway of the destination's address family");
  }
  Nl<rtnl_route> route = owned(rtnl_route_alloc());
  rtnl_route_set_family(route.get(), static_cast<std::uint8_t>(family));
  rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
  rtnl_route_set_protocol(route.get(), RTPROT_STATIC);
  rtnl_route_set_scope(route.get(), via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
  Nl<nl_addr> destination;
  if (to) {
    destination = to_nl(to->address, to->prefix_length);
  } else {
    destination = owned(nl_addr_alloc(0));
    nl_addr_set_family(destination.get(), family);
  }
  check(rtnl_route_set_dst(route.get(), destination.get()), "build route", subject);
  rtnl_nexthop* hop = rtnl_route_nh_alloc();
  if (hop == nullptr) throw Error(ENOMEM, "allocate", "a netlink object");
  rtnl_route_add_nexthop(route.get(), hop);  // owns it from here on
  rtnl_route_nh_set_ifindex(hop, link.index);
  if (via) rtnl_route_nh_set_gateway(hop, to_nl(*via, via->length * 8).get());
  check(rtnl_route_add(socket_.get(), route.get(), NLM_F_CREATE | NLM_F_EXCL), "add route", subject,
        "is the gateway inside a subnet of the port's addresses, and the route new?");
}

LinkMonitor::LinkMonitor() : socket_(connect_route_socket()) {
  if (const int code = nl_socket_add_membership(socket_.get(), RTNLGRP_LINK); code < 0) {
    throw Error(0, "listen to", "netdev changes", nl_geterror(code));
  }
}

void LinkMonitor::drain() noexcept {
  std::array<std::byte, 64> head;  // the rest of each message is cut off
  // ENOBUFS says that messages were lost, and clears the condition.
  while (::recv(fd(), head.data(), head.size(), MSG_DONTWAIT) >= 0 || errno == ENOBUFS || errno == EINTR) {
  }
}

}  // namespace vswitch
