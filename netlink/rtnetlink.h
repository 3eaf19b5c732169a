#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "netlink/handle.h"
#include "vswitch/net/ip.h"
#include "vswitch/net/mac.h"

namespace vswitch {

/// A netdev as the kernel describes it.
struct Link {
  int index = 0;
  std::string name;
  Mac mac;
  std::uint32_t mtu = 0;
  bool up = false;       ///< administratively
  bool running = false;  ///< up and with carrier (IFF_RUNNING)
};

/// What to change of a netdev; what is absent stays.
struct LinkChange {
  std::optional<Mac> mac;
  std::optional<std::uint32_t> mtu;
  std::optional<std::string> name;
  std::optional<bool> up;
};

/// A request socket of the kernel's routing family in one network namespace, and the requests vswitch makes. Control
/// thread only, but may be made in one thread and used in another. Netdevs are known by Link::index. All functions
/// throw Error, with the text of the kernel's extended acknowledgement where it sends one.
class Rtnetlink {
 public:
  /// Opens the socket in the calling thread's network namespace, where it stays (see Netns::run()).
  Rtnetlink();
  // The error callback knows this object by its address.
  Rtnetlink(const Rtnetlink&) = delete;
  Rtnetlink& operator=(const Rtnetlink&) = delete;

  /// nullopt: no such netdev.
  [[nodiscard]] std::optional<Link> find_link(const std::string& name);
  [[nodiscard]] std::optional<Link> find_link(int index);
  void change_link(const Link& link, const LinkChange& change);
  void delete_link(const Link& link);
  /// Bounds the segments that the kernel puts into one GSO frame for `link` (IFLA_GSO_MAX_SEGS).
  void limit_gso_segments(const Link& link, std::uint32_t segments);

  /// Adds the address with its prefix. IPv6: without duplicate address detection, usable at once.
  void add_address(const Link& link, const IpPrefix& address);
  /// Adds a route through `link`. `to` nullopt: default (of via's family; IPv4 without via); `via` nullopt: the
  /// destination is on link.
  void add_route(const Link& link, const std::optional<IpPrefix>& to, const std::optional<IpAddress>& via);

 private:
  std::optional<Link> find(int index, const char* name);
  void check(int code, std::string_view operation, const std::string& subject, std::string_view hint = {});
  static int on_error(sockaddr_nl* from, nlmsgerr* error, void* self) noexcept;

  Nl<nl_sock> socket_;
  int errno_ = 0;       ///< of the last refused request
  std::string reason_;  ///< what the kernel said about it; may be empty
};

/// Tells that some netdev of one network namespace changed, appeared or vanished. Control thread only.
class LinkMonitor {
 public:
  /// Listens in the calling thread's network namespace. Throws Error.
  LinkMonitor();
  /// Readable when something changed.
  [[nodiscard]] int fd() const noexcept { return nl_socket_get_fd(socket_.get()); }
  /// Takes what is queued. What changed is asked for afresh (Rtnetlink::find_link), so a full queue loses nothing.
  void drain() noexcept;

 private:
  Nl<nl_sock> socket_;
};

}  // namespace vswitch
