#pragma once

#include <cstdint>

/// What the kernel asks before it pins memory for a NIC.
namespace softnic {

/// RLIMIT_MEMLOCK, or the privilege to exceed it.
[[nodiscard]] bool may_lock_memory(std::uint64_t bytes) noexcept;
/// How memory is mapped that is to be pinned.
struct Pinnable {
  bool allowed = false;  ///< all bytes are mapped, with the right to read them, and to write them where asked
  bool shared = false;   ///< with other processes (MAP_SHARED), all of it
};
[[nodiscard]] Pinnable can_pin(std::uint64_t start, std::uint64_t length, bool to_write);

}  // namespace softnic
