#include "vswitch/daemon/json_rpc.h"

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

Json error_object(const Json& id, RpcCode code, const std::string& text) {
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", {{"code", static_cast<int>(code)}, {"message", text}}}};
}

/// Serialising is recursive in the library, so the depth of what is accepted must be bounded; counted on the text,
/// before anything is built from it.
bool deeper_than(std::string_view text, std::size_t limit) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

std::string to_line(const Json& answer) { return answer.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// What is wrong with the frame of a request, or nullptr.
const char* request_problem(const Json& request) {
  if (!request.is_object()) return "a request must be an object";
  const auto version = request.find("jsonrpc");
  if (version == request.end() || *version != "2.0") return "\"jsonrpc\" must be \"2.0\"";
  const auto method = request.find("method");
  if (method == request.end() || !method->is_string()) return "\"method\" must be a string";
  const auto id = request.find("id");
  if (id != request.end() && !id->is_string() && !id->is_number() && !id->is_null()) {
    return "\"id\" must be a string, a number or null";
  }
  return nullptr;
}

}  // namespace

std::string RpcDispatcher::error_answer(RpcCode code, const std::string& text) {
  return to_line(error_object(nullptr, code, text));
}

std::string RpcDispatcher::handle(std::string_view message) const {
  if (message.size() > kMaxMessageBytes)
    return error_answer(RpcCode::invalid_request, "the message is longer than 1 MiB");
  if (deeper_than(message, kMaxDepth))
    return error_answer(RpcCode::invalid_request, "the message is nested too deeply");
  const Json request = Json::parse(message, nullptr, false);
  if (request.is_discarded()) return error_answer(RpcCode::parse_error, "the message is not JSON");
  if (!request.is_array()) {
    const Json answer = handle_one(request);
    return answer.is_null() ? std::string() : to_line(answer);
  }
  if (request.empty()) return error_answer(RpcCode::invalid_request, "a batch must not be empty");
  if (request.size() > kMaxBatch) {
    return error_answer(RpcCode::invalid_request,
                        "a batch must not hold more than " + std::to_string(kMaxBatch) + " requests");
  }
  Json answers = Json::array();
  for (const Json& one : request) {
    Json answer = handle_one(one);
    if (!answer.is_null()) answers.push_back(std::move(answer));
  }
  return answers.empty() ? std::string() : to_line(answers);
}

Json RpcDispatcher::handle_one(const Json& request) const {
  if (const char* problem = request_problem(request)) return error_object(nullptr, RpcCode::invalid_request, problem);
  const bool is_notification = !request.contains("id");
  const Json id = is_notification ? Json() : request["id"];
  const auto fail = [&](RpcCode code, const std::string& text) {
    return is_notification ? Json() : error_object(id, code, text);
  };

  const auto& name = request["method"].get_ref<const std::string&>();
  const auto method = methods_.find(name);
  if (method == methods_.end()) return fail(RpcCode::method_not_found, "there is no method \"" + name + "\"");
  Json params = request.value("params", Json::object());
  if (params.is_array() && params.empty()) params = Json::object();
  if (!params.is_object()) return fail(RpcCode::invalid_params, "\"params\" must be an object");
  try {
    Json result = method->second(params);
    if (is_notification) return {};
    return {{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}};
  } catch (const InvalidParams& error) {
    return fail(RpcCode::invalid_params, error.what());
  } catch (const Error& error) {
    Json answer = fail(RpcCode::failed, error.what());
    if (!answer.is_null()) answer["error"]["data"] = {{"errno", error.code()}};
    return answer;
  } catch (const std::exception& error) {
    return fail(RpcCode::internal_error, error.what());
  }
}

}  // namespace vswitch
