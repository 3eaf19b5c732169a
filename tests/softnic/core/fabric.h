#pragma once

#include <cstdint>
#include <utility>

#include "tests/softnic/core/steering.h"
#include "tests/softnic/core/wire.h"

/// The device as one open context sees it: the part of the NIC that all contexts share.
namespace softnic {

/// Takes the frames that were steered to queue pairs of one context.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void deliver(std::uint8_t port, const Delivery& to, Bytes frame) = 0;
};

class Fabric {
 public:
  virtual ~Fabric() = default;

  // Set-up, by any thread of the application.
  /// A queue pair number that nobody on the device has.
  [[nodiscard]] virtual std::uint32_t allocate_queue() = 0;
  /// Ends all rules and deliveries of the queue pair.
  virtual void release_queue(std::uint32_t queue) = 0;
  /// The owner of `rule.queue` is filled in. @return {0, id} or {errno, 0}.
  [[nodiscard]] virtual std::pair<int, RuleId> add_rule(Rule rule) = 0;
  [[nodiscard]] virtual int remove_rule(RuleId id) = 0;

  // The data path, by the context's NIC thread alone.
  virtual void transmit(std::uint8_t port, std::uint32_t from, Bytes frame) = 0;
  /// Hands up to `most` frames to `sink`. @return how many.
  virtual std::size_t receive(Sink& sink, std::size_t most) = 0;
};

}  // namespace softnic
