#pragma once
#include <atomic>
#include <cstdint>

namespace vswitch {

/// A count with one writing thread and any number of readers. add() is a plain add in machine code: no locked
/// instruction.
class Counter {
 public:
  void add(std::uint64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t read() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace vswitch
