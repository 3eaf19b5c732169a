#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/fabric.h"
#include "tests/softnic/daemon/protocol.h"

namespace softnic {

/// The device of a daemon, seen from one open context of another process.
class RemoteFabric : public Fabric {
 public:
  /// @param socket path of the daemon's socket. @throws std::system_error where nobody listens.
  RemoteFabric(const std::string& socket, Board& board);
  ~RemoteFabric() override;
  RemoteFabric(const RemoteFabric&) = delete;
  RemoteFabric& operator=(const RemoteFabric&) = delete;

  std::uint32_t allocate_queue() override;
  void release_queue(std::uint32_t queue) override;
  std::pair<int, RuleId> add_rule(Rule rule) override;
  int remove_rule(RuleId id) override;
  void transmit(std::uint8_t port, std::uint32_t from, Bytes frame) override;
  std::size_t receive(Sink& sink, std::size_t most) override;
  /// Readable when receive() has something.
  [[nodiscard]] int fd() const noexcept { return frames_; }

 private:
  [[nodiscard]] Reply ask(const Request& request);

  Board& board_;
  std::mutex asking_;
  int control_ = -1;
  int frames_ = -1;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace softnic
