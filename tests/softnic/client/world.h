#pragma once

#include <functional>
#include <optional>
#include <string>

#include "tests/softnic/client/frame.h"

/// What lies around the NIC. The environment says where: SOFTNIC_COMMAND is the program `softnic`, SOFTNIC_WIRE the
/// network namespace of the far end of the cable, SYSFS_PATH (of `softnic run`) the NIC.
namespace softnic_client {

inline constexpr int kPatienceMs = 3000;  ///< for what must come
inline constexpr int kQuietMs = 60;       ///< for what must not

/// Runs `what` inside the namespace at the far end of the cable.
void at_wire(const std::function<void()>& what);

/// A packet socket on a netdev: sees and sends whole frames.
class Link {
 public:
  enum class Where { kernel, wire };  ///< lan0 here, or w0 at the far end
  explicit Link(Where where);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void send(const Frame& frame) const;
  /// The next frame for `to`; others are skipped. nullopt stands for any frame of plain(), and for none that came.
  [[nodiscard]] std::optional<Frame> receive(const std::optional<Mac>& to, int timeout_ms = kPatienceMs) const;
  /// Whether a frame for `to` came before one for `mark`, which the NIC got later.
  [[nodiscard]] bool came_before(const Mac& to, const Mac& mark) const;

 private:
  [[nodiscard]] std::optional<Frame> next(int timeout_ms) const;
  int fd_ = -1;
  mutable Frame buffer_;  // larger than any frame
};

/// Runs `softnic VERB DIRECTORY WORDS` for this NIC. @return what it printed.
std::string softnic(const std::string& verb, const std::string& words = {});
[[nodiscard]] std::uint64_t counter(const std::string& name);
/// Runs a shell command. @return its exit status.
int shell(const std::string& command);
/// Whether `condition` came true in time.
[[nodiscard]] bool eventually(const std::function<bool()>& condition, int timeout_ms = kPatienceMs);
[[nodiscard]] std::int64_t now_ms();

}  // namespace softnic_client
