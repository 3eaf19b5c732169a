#pragma once
#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"

namespace vswitch {

inline constexpr const char* kDefaultControlPath = "/run/vswitch/control.sock";

/// The daemon answered with a JSON-RPC error; what() is its text.
class RemoteError : public std::runtime_error {
 public:
  RemoteError(int rpc_code, const std::string& text) : std::runtime_error(text), rpc_code_(rpc_code) {}
  /// JSON-RPC error code.
  [[nodiscard]] int rpc_code() const noexcept { return rpc_code_; }

 private:
  int rpc_code_;
};

/// One connection to a running vswitchd. Not thread-safe.
class ControlClient {
 public:
  /// Connects. Throws Error (with a hint) when no daemon listens on `path`.
  /// @param timeout how long the daemon may take for each answer
  explicit ControlClient(const std::string& path = kDefaultControlPath,
                         std::chrono::milliseconds timeout = std::chrono::seconds(30));

  /// Calls `method` and waits for its result. Throws RemoteError when the daemon refuses, Error when the connection
  /// breaks or the daemon does not answer in time.
  nlohmann::json call(const std::string& method, const nlohmann::json& params = nlohmann::json::object());

 private:
  void send_line(const std::string& line);
  std::string receive_line();
  void wait_for(short events);

  std::string path_;
  std::chrono::milliseconds timeout_;
  Fd socket_;
  std::string input_;
  long last_id_ = 0;
};

}  // namespace vswitch
