#include "tests/softnic/mlx5/doorbell.h"

#include <cstring>

#include "tests/softnic/core/headers.h"

namespace softnic {

std::optional<Doorbell::Ring> Doorbell::take() noexcept {
  for (std::uint64_t* half : halves_) {
    std::atomic_ref<std::uint64_t> word(*half);
    if (word.load(std::memory_order_relaxed) == 0) continue;
    const std::uint64_t taken = word.exchange(0, std::memory_order_acquire);
    std::uint8_t bytes[8];
    std::memcpy(bytes, &taken, sizeof bytes);
    return Ring{load_be16(bytes + 1), load_be32(bytes + 4) >> 8};
  }
  return std::nullopt;
}

void Doorbell::join() noexcept {
  if (users_ == 0) drain();
  shared_ = users_ != 0;
  ++users_;
}

void Doorbell::drain() noexcept {
  while (take()) {
  }
}

}  // namespace softnic
