#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace vswitch {

using Json = nlohmann::json;

/// Thrown by a method whose parameters make no sense; the text says what was expected and what was found.
class InvalidParams : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Error codes of JSON-RPC 2.0, section 5.1, and the one of ours.
enum class RpcCode : int {
  parse_error = -32700,
  invalid_request = -32600,
  method_not_found = -32601,
  invalid_params = -32602,
  internal_error = -32603,
  failed = -32000,  ///< the method threw Error; "data" holds its errno
};

/// Turns JSON-RPC 2.0 messages into calls and their outcomes into answers. Knows nothing of sockets. Control thread
/// only.
class RpcDispatcher {
 public:
  static constexpr std::size_t kMaxMessageBytes = std::size_t{1} << 20;
  static constexpr std::size_t kMaxDepth = 16;
  static constexpr std::size_t kMaxBatch = 64;

  /// @param params an object, empty when the request had none
  /// The method may throw Error, InvalidParams or any std::exception.
  using Method = std::function<Json(const Json& params)>;

  void add(std::string name, Method method) { methods_[std::move(name)] = std::move(method); }

  /// Handles one message (a request, a notification or a batch), whatever its bytes are.
  /// @return the answer in one line without the line end; empty when there is nothing to answer
  [[nodiscard]] std::string handle(std::string_view message) const;

  /// An answer that belongs to no request.
  [[nodiscard]] static std::string error_answer(RpcCode code, const std::string& text);

 private:
  [[nodiscard]] Json handle_one(const Json& request) const;
  std::map<std::string, Method, std::less<>> methods_;
};

}  // namespace vswitch
