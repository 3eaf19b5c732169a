#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/core/steering.h"
#include "tests/softnic/core/wire.h"

/// The device: its ports, who has it open, and the way of every frame between wire, kernel and queue pairs.
///
///     wire ──► rules ──► queue pairs            queue pair ──► wire
///                 └────► kernel's netdev        kernel's netdev ──► wire
///
/// Frames that are sent stay inside (loopback) where a rule takes them, once two contexts are open, as on NICs that
/// serve several functions: unicast that a rule traps does not reach the wire; multicast goes both ways.
namespace softnic {

/// Used by one thread.
class Device {
 public:
  explicit Device(Board& board);

  /// Ports are numbered from 1 in the order of their adding. Either end may be missing.
  void add_port(std::unique_ptr<FrameEnd> wire, std::unique_ptr<FrameEnd> kernel);
  [[nodiscard]] std::size_t ports() const noexcept { return ports_.size(); }
  [[nodiscard]] FrameEnd* wire(std::size_t index) const noexcept { return ports_[index].wire.get(); }
  [[nodiscard]] FrameEnd* kernel(std::size_t index) const noexcept { return ports_[index].kernel.get(); }

  /// A context opens the device. `sink` outlives it; deliveries may come during any call.
  [[nodiscard]] OwnerId open(Sink& sink);
  /// Its rules go.
  void close(OwnerId owner);

  [[nodiscard]] std::uint32_t allocate_queue() noexcept { return next_queue_++; }
  void release_queue(QueueRef queue) { steering_.remove_queue(queue); }
  [[nodiscard]] std::pair<int, RuleId> add_rule(const Rule& rule);
  [[nodiscard]] int remove_rule(OwnerId owner, RuleId id);
  [[nodiscard]] std::size_t rules() const noexcept { return steering_.size(); }

  /// A queue pair sends.
  void transmit(QueueRef from, std::uint8_t port, Bytes frame);
  /// Takes up to `most` frames from each end. @return how many.
  std::size_t poll(std::size_t most);
  /// Looks at the carriers and at what the ends lost.
  void check_links();

 private:
  struct Port {
    std::unique_ptr<FrameEnd> wire;
    std::unique_ptr<FrameEnd> kernel;
  };
  [[nodiscard]] bool up(std::uint8_t port) const noexcept;
  void from_wire(std::uint8_t port, Bytes frame);
  void from_kernel(std::uint8_t port, Bytes frame);
  /// A frame on its way out. @return whether loopback kept it.
  [[nodiscard]] bool loop(std::uint8_t port, Bytes frame, QueueRef from, bool to_kernel);
  void deliver(std::uint8_t port, Bytes frame);
  void to_wire(std::uint8_t port, Bytes frame);
  void to_kernel(std::uint8_t port, Bytes frame);

  Board& board_;
  std::vector<Port> ports_;
  Steering steering_;
  std::unordered_map<OwnerId, Sink*> owners_;
  OwnerId next_owner_ = 1;
  std::uint32_t next_queue_ = 64;
  Steered steered_;
};

}  // namespace softnic
