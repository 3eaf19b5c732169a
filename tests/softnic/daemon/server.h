#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/softnic/core/device.h"
#include "tests/softnic/daemon/protocol.h"

namespace softnic {

/// Serves one device to the processes that open it. One thread, one epoll.
class Server {
 public:
  /// Listens on `socket`. @throws std::system_error.
  Server(Device& device, Board& board, const std::string& socket);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Until SIGTERM or SIGINT, which the caller has blocked.
  void run();

 private:
  class Client;
  void accept_client();
  void watch(int fd);
  void forget(Client& client);
  /// @return false where the client is gone.
  bool answer(Client& client);
  bool take_frames(Client& client);

  Device& device_;
  Board& board_;
  int epoll_ = -1;
  int listener_ = -1;
  int signals_ = -1;
  std::map<int, std::unique_ptr<Client>> clients_;  // by control socket
  std::map<int, Client*> by_frames_;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace softnic
