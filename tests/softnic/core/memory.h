#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// What the NIC may touch: memory regions by local key, as ibv_reg_mr(3) made them.
namespace softnic {

struct Region {
  std::uint64_t address = 0;  ///< where the bytes lie in this process
  std::uint64_t iova = 0;     ///< the address that work requests use for them
  std::uint64_t length = 0;   ///< bytes
  std::uint32_t domain = 0;   ///< protection domain it was registered with
  std::uint32_t access = 0;   ///< enum ibv_access_flags
  bool shared = false;        ///< with other processes
};

/// Guarded by the lock of the context that owns it.
class MemoryTable {
 public:
  static constexpr std::uint32_t kLocalWrite = 1;  ///< IBV_ACCESS_LOCAL_WRITE

  /// @return the key: never 0, and another one when a slot is used again, so that a stale key is noticed.
  std::uint32_t add(const Region& region);
  [[nodiscard]] bool remove(std::uint32_t key);
  /// Protection domain of region `key`, 0 where there is none.
  [[nodiscard]] std::uint32_t domain(std::uint32_t key) const noexcept;
  /// Region `key` is memory that other processes have as well.
  [[nodiscard]] bool shared(std::uint32_t key) const noexcept;
  /// The bytes [iova, iova + length) of region `key`, or nullptr where a NIC reports a local protection error: no such
  /// key, another domain, out of bounds, or no right to write.
  [[nodiscard]] std::uint8_t* translate(std::uint32_t key, std::uint64_t iova, std::uint64_t length,
                                        std::uint32_t domain, bool write) const noexcept;

 private:
  struct Slot {
    Region region;
    std::uint8_t generation = 0;
    bool used = false;
  };
  [[nodiscard]] const Slot* find(std::uint32_t key) const noexcept;

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
};

}  // namespace softnic
