#pragma once
#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/route.h>

#include <memory>

namespace vswitch {

/// Gives libnl objects back; one overload a kind, so that Nl<T> is all a caller writes.
struct NlDelete {
  void operator()(nl_sock* p) const noexcept { nl_socket_free(p); }
  void operator()(nl_msg* p) const noexcept { nlmsg_free(p); }
  void operator()(nl_addr* p) const noexcept { nl_addr_put(p); }
  void operator()(rtnl_link* p) const noexcept { rtnl_link_put(p); }
  void operator()(rtnl_addr* p) const noexcept { rtnl_addr_put(p); }
  void operator()(rtnl_route* p) const noexcept { rtnl_route_put(p); }
};
template <class T>
using Nl = std::unique_ptr<T, NlDelete>;

}  // namespace vswitch
