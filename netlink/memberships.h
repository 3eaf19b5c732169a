#pragma once
#include <set>

#include "vswitch/base/fd.h"
#include "vswitch/net/mac.h"

namespace vswitch {

/// Addresses that a netdev lets in for us (packet(7), PACKET_ADD_MEMBERSHIP). They are references that the kernel drops
/// with the descriptor, so nothing is left behind, whatever ends the process. Control thread only.
class Memberships {
 public:
  /// What the netdev's receive filter must let in.
  struct Wanted {
    std::set<Mac> unicast;
    bool all_multicast = false;
    bool promiscuous = false;
  };

  /// Throws Error.
  explicit Memberships(int netdev_index);

  /// Lets in `wanted` instead of what was let in before. Throws Error, and then nothing has changed.
  void change(const Wanted& wanted);

 private:
  void change_one(int option, unsigned short type, const Mac& mac);
  void add(const Wanted& wanted, Wanted& added);
  void drop(const Wanted& unwanted) noexcept;

  int netdev_index_;
  Fd socket_;  ///< bound to no protocol: receives nothing
  Wanted current_;
};

}  // namespace vswitch
