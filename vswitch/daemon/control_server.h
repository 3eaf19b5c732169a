#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "vswitch/base/fd.h"
#include "vswitch/daemon/json_rpc.h"
#include "vswitch/daemon/reactor.h"

namespace vswitch {

/// The control socket: newline-delimited JSON-RPC over a Unix stream socket, mode 0600.
///
/// Nothing a client does stalls the daemon: sockets never block, a client is read from only while it owes nothing (its
/// answers are drained first), a message is bounded by RpcDispatcher::kMaxMessageBytes, and a client with many requests
/// waiting takes turns with everything else. Control thread only.
class ControlServer {
 public:
  static constexpr std::size_t kMaxClients = 128;

  /// Listens on `path`; removes a socket left there by a daemon that was killed, so the caller must hold the lock
  /// beside it (LockFile). Throws Error.
  ControlServer(UringReactor& reactor, const RpcDispatcher& dispatcher, std::string path);
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  /// Closes all connections and removes the socket.
  ~ControlServer();

  [[nodiscard]] std::size_t clients() const noexcept { return clients_.size(); }

 private:
  class Client;
  void listen();
  void accept_all();
  void close_client(std::uint64_t id) noexcept;

  UringReactor& reactor_;
  const RpcDispatcher& dispatcher_;
  std::string path_;
  Fd listener_;
  Reactor::Handle accepting_ = 0;  ///< the watch on the listener, or the timer of a pause
  std::uint64_t last_client_ = 0;
  std::map<std::uint64_t, std::unique_ptr<Client>> clients_;
};

}  // namespace vswitch
