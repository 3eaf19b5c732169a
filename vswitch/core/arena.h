#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vswitch/core/frame.h"
#include "vswitch/net/mac.h"

// Direct mode: a device reads frames out of a tenant's memory, and writes frames into it, without a copy by the CPU.
//
// Theory of operation. Ports that have such memory tell of it while a tenant is attached (Arenas::add); an uplink that
// can use it registers with Arenas and gets to know. From then on a frame that is lent with Frame::kept may stay with
// the uplink after transmit(), and is given back to the tenant when the device is done with it.

namespace vswitch {

/// Memory that a device writes frames for a port into. A frame that is lent from it, with Frame::kept pointing into
/// `kept`, the port's queue keeps instead of copying it.
struct ReceiveMemory {
  static constexpr std::size_t kLine = 64;
  std::span<std::byte> bytes;  ///< from a multiple of kLine
  Kept* kept = nullptr;        ///< one for each line of `bytes`; a frame has that of its first
};

/// The memory of one attached tenant. Valid from Arenas::add() to Arenas::remove().
struct Arena {
  std::string uplink;                        ///< name of the port's uplink
  std::uint16_t vlan = 0;                    ///< of the port, 0: none
  Mac mac;                                   ///< likewise
  std::span<std::byte> sent_from;            ///< what the tenant writes, its frames too; empty: they are not to be kept
  std::vector<ReceiveMemory> received_into;  ///< one a worker; or none, and why_no_slots says why
  std::string why_no_slots;
};

/// An uplink that lets its device use tenants' memory. Control thread only.
class ArenaUser {
 public:
  ArenaUser() = default;
  ArenaUser(const ArenaUser&) = delete;
  ArenaUser& operator=(const ArenaUser&) = delete;
  virtual ~ArenaUser() = default;

  /// Name of the uplink whose tenants it serves.
  [[nodiscard]] virtual const std::string& uplink() const noexcept = 0;
  /// Bytes of each worker's Arena::received_into. 0: the device does not write into tenants' memory.
  [[nodiscard]] virtual std::uint32_t receive_bytes() const noexcept = 0;
  /// A tenant attached; or it was attached before, and the user does not know it yet or knows it already.
  virtual void arena_came(const Arena& arena) noexcept = 0;
  /// A tenant is going. No frame of it can come any more. When this returns no device uses its memory.
  virtual void arena_goes(const Arena& arena) noexcept = 0;
  /// "direct", or what is staged and why.
  [[nodiscard]] virtual std::string how(const Arena& arena) const = 0;
};

/// Brings arenas and their users together, whoever comes first. Control thread only.
class Arenas {
 public:
  void add(const Arena& arena) noexcept {
    present_.push_back(&arena);
    if (ArenaUser* user = user_of(arena.uplink); user != nullptr) user->arena_came(arena);
  }
  void remove(const Arena& arena) noexcept {
    if (std::erase(present_, &arena) == 0) return;
    if (ArenaUser* user = user_of(arena.uplink); user != nullptr) user->arena_goes(arena);
  }
  /// Empty: nobody wants to use it.
  [[nodiscard]] std::string how(const Arena& arena) const {
    const ArenaUser* user = user_of(arena.uplink);
    return user != nullptr ? user->how(arena) : std::string();
  }
  [[nodiscard]] const std::vector<const Arena*>& present() const noexcept { return present_; }
  [[nodiscard]] ArenaUser* user_of(const std::string& uplink) const noexcept {
    const auto found =
        std::find_if(users_.begin(), users_.end(), [&](const ArenaUser* user) { return user->uplink() == uplink; });
    return found == users_.end() ? nullptr : *found;
  }

  /// Of two users of one uplink (the one that is about to replace the other) the first has the arenas, until it goes.
  void add_user(ArenaUser& user) {
    users_.push_back(&user);
    hand_over(user);
  }
  void remove_user(ArenaUser& user) noexcept {
    std::erase(users_, &user);
    if (ArenaUser* next = user_of(user.uplink()); next != nullptr) hand_over(*next);
  }

 private:
  void hand_over(ArenaUser& user) noexcept {
    if (user_of(user.uplink()) != &user) return;
    for (const Arena* arena : present_) {
      if (arena->uplink == user.uplink()) user.arena_came(*arena);
    }
  }

  std::vector<const Arena*> present_;
  std::vector<ArenaUser*> users_;
};

}  // namespace vswitch
