#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace softnic {

/// One command of the uverbs write interface (<rdma/ib_user_verbs.h>): what was written to the device, split into the
/// core's and the driver's part, and where the answers go.
class Command {
 public:
  /// Empty where header and length do not fit each other.
  static std::optional<Command> parse(std::span<const std::uint8_t> written) noexcept;

  [[nodiscard]] std::uint32_t code() const noexcept { return code_; }
  [[nodiscard]] bool extended() const noexcept { return extended_; }

  /// Copies the core's part; what the caller left out is zero, as the kernel does with newer fields. A legacy command
  /// keeps the address of its response in its first field.
  /// @return false where even the response address is missing.
  template <typename Core>
  [[nodiscard]] bool read(Core& core) noexcept {
    std::memset(static_cast<void*>(&core), 0, sizeof core);
    const auto whole = extended_ ? core_ : core_.first(std::min(core_.size(), sizeof core));
    std::memcpy(static_cast<void*>(&core), whole.data(), std::min(whole.size(), sizeof core));
    if (!extended_) driver_ = core_.subspan(whole.size());
    if constexpr (requires { core.response; }) {
      if (core_.size() < sizeof core.response) return false;
      response_ = core.response;
    }
    return true;
  }
  /// What follows the fixed part of the core's command (lists of handles, flow specifications).
  [[nodiscard]] std::span<const std::uint8_t> behind(std::size_t fixed) const noexcept {
    return core_.subspan(std::min(fixed, core_.size()));
  }
  /// Copies the driver's part. @return its bytes as the caller wrote them.
  template <typename Driver>
  std::size_t read_driver(Driver& driver) const noexcept {
    std::memset(static_cast<void*>(&driver), 0, sizeof driver);
    std::memcpy(static_cast<void*>(&driver), driver_.data(), std::min(driver_.size(), sizeof driver));
    return driver_.size();
  }

  /// Bytes that the caller has room for.
  [[nodiscard]] std::size_t room() const noexcept { return room_; }
  [[nodiscard]] std::size_t driver_room() const noexcept { return driver_room_; }

  template <typename Core>
  void respond(const Core& core) noexcept {
    const std::size_t bytes = std::min(sizeof core, room_);
    std::memcpy(reinterpret_cast<void*>(response_), &core, bytes);
    if (extended_) return;
    // The driver's answer follows the core's in the same buffer.
    driver_response_ = response_ + sizeof core;
    driver_room_ = room_ - bytes;
  }
  /// After respond().
  template <typename Driver>
  void respond_driver(const Driver& driver) noexcept {
    if (driver_response_ != 0) {
      std::memcpy(reinterpret_cast<void*>(driver_response_), &driver, std::min(sizeof driver, driver_room_));
    }
  }

 private:
  std::uint32_t code_ = 0;
  bool extended_ = false;
  std::span<const std::uint8_t> core_;
  std::span<const std::uint8_t> driver_;
  std::uint64_t response_ = 0;
  std::uint64_t driver_response_ = 0;
  std::size_t room_ = 0;
  std::size_t driver_room_ = 0;
};

}  // namespace softnic
