#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/device.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/core/memory_wire.h"
#include "tests/softnic/softnic.h"

namespace softnic {

/// A device of this process, with one port: what the daemon is to others.
class LocalDevice {
 public:
  /// @throws std::system_error, std::filesystem::filesystem_error.
  explicit LocalDevice(const softnic_memory_wire_options& options);

  [[nodiscard]] Board& board() const noexcept { return *board_; }
  [[nodiscard]] MemoryWire& wire() noexcept { return wire_; }
  [[nodiscard]] std::uint64_t rounds() const noexcept { return rounds_.load(std::memory_order_acquire); }

 private:
  friend class LocalFabric;
  BoardFile board_;
  MemoryWire wire_;
  Device device_;
  std::mutex mutex_;  // of device_
  std::atomic<std::uint64_t> rounds_{0};
};

/// A device of this process, seen from one open context.
class LocalFabric final : public Fabric, private Sink {
 public:
  explicit LocalFabric(std::shared_ptr<LocalDevice> device);
  ~LocalFabric() override;
  LocalFabric(const LocalFabric&) = delete;
  LocalFabric& operator=(const LocalFabric&) = delete;

  std::uint32_t allocate_queue() override;
  void release_queue(std::uint32_t queue) override;
  std::pair<int, RuleId> add_rule(Rule rule) override;
  int remove_rule(RuleId id) override;
  void transmit(std::uint8_t port, std::uint32_t from, Bytes frame) override;
  std::size_t receive(Sink& sink, std::size_t most) override;

 private:
  struct Waiting {
    std::uint8_t port;
    Delivery to;
    std::vector<std::uint8_t> frame;
  };
  void deliver(std::uint8_t port, const Delivery& to, Bytes frame) override;

  const std::shared_ptr<LocalDevice> device_;
  OwnerId owner_ = 0;
  // All that follows is guarded by the device's mutex.
  std::vector<Waiting> waiting_;  // found by other contexts, or sent by this one
  Sink* receiving_ = nullptr;     // of the NIC's thread that is in receive()
  // The NIC's thread: held from the first frame that it sends in a round until it has received, so that a round locks
  // once.
  std::unique_lock<std::mutex> round_;
};

/// The device of this process in `directory` (absolute); nullptr: there is none, ask its daemon.
[[nodiscard]] std::shared_ptr<LocalDevice> find_local_device(const std::string& directory);

}  // namespace softnic
