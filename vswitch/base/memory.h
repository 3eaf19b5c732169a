#pragma once
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "vswitch/base/fd.h"

namespace vswitch {

/// Sole owner of a memory mapping.
class Mapping {
 public:
  Mapping() noexcept = default;
  /// Maps all `size` bytes of `fd`, shared. Throws Error.
  static Mapping shared(int fd, std::size_t size, bool writable);
  /// Private zeroed pages (4 KiB pages, touched on first use). Throws Error.
  static Mapping anonymous(std::size_t size);

  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  Mapping(std::byte* data, std::size_t size) noexcept : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An anonymous memory file of `size` zero bytes whose size is sealed (F_SEAL_SHRINK, F_SEAL_GROW), so that no holder
/// of the descriptor can cause SIGBUS by truncation. Throws Error.
Fd make_sealed_memory(std::string_view name, std::size_t size);

/// Seals `fd` against new writable mappings (F_SEAL_FUTURE_WRITE) and further seals; existing writable mappings stay.
/// Throws Error.
void seal_against_writers(const Fd& fd, std::string_view name);

}  // namespace vswitch
