#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace softnic {

/// One BlueFlame register of a UAR page: two halves that the driver writes in turn, the first 8 bytes of a send work
/// request each time. Real registers are write-only; the model takes what it finds and leaves zero.
class Doorbell {
 public:
  struct Ring {
    std::uint16_t index;  ///< block index of the work request that rang
    std::uint32_t queue;
  };

  Doorbell(std::uint8_t* page, std::uint32_t offset, std::uint32_t half_bytes) noexcept
      : halves_{at(page, offset), at(page, offset + half_bytes)} {}

  /// The next write, if one came since the last call.
  [[nodiscard]] std::optional<Ring> take() noexcept;

  /// A queue pair that rings here comes, or goes.
  void join() noexcept;
  void leave() noexcept { --users_; }
  [[nodiscard]] int users() const noexcept { return users_; }
  /// More than one rang here since the register was last unused: a write may have hidden another before the model
  /// looked, or may be of one that is gone.
  [[nodiscard]] bool shared() const noexcept { return shared_; }
  /// Forgets what was written.
  void drain() noexcept;

 private:
  static std::uint64_t* at(std::uint8_t* page, std::uint32_t offset) noexcept {
    return reinterpret_cast<std::uint64_t*>(page + offset);
  }
  std::uint64_t* halves_[2];
  int users_ = 0;
  bool shared_ = false;
};

}  // namespace softnic
