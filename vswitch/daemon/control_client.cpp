#include "vswitch/daemon/control_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "vswitch/daemon/unix_socket.h"

namespace vswitch {
namespace {

constexpr const char* kUnreachable =
    "is vswitchd running, with the same --control path, and may you use it (root only by default)?";

}  // namespace

ControlClient::ControlClient(const std::string& path, std::chrono::milliseconds timeout)
    : path_(path), timeout_(timeout), socket_(unix_stream_socket()) {
  const UnixAddress address(path);
  while (::connect(socket_.get(), address.generic(), address.size()) != 0) {
    if (errno == EINTR) continue;
    // A Unix socket does not connect in the background: EAGAIN means that the backlog is full right now.
    if (errno != EAGAIN) throw_errno("connect to", path, kUnreachable);
    if (timeout <= std::chrono::milliseconds::zero()) throw Error(ETIMEDOUT, "connect to", path, kUnreachable);
    constexpr std::chrono::milliseconds kPause(10);
    ::poll(nullptr, 0, static_cast<int>(kPause.count()));
    timeout -= kPause;
  }
}

void ControlClient::wait_for(short events) {
  pollfd wanted{socket_.get(), events, 0};
  int ready = 0;
  do {
    ready = ::poll(&wanted, 1, static_cast<int>(timeout_.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) throw_errno("wait for", path_);
  if (ready == 0) throw Error(ETIMEDOUT, "wait for", path_, "vswitchd does not answer; see its log");
}

void ControlClient::send_line(const std::string& line) {
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t sent = ::send(socket_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (sent >= 0) {
      done += static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN) {
      wait_for(POLLOUT);
    } else if (errno != EINTR) {
      throw_errno("send to", path_);
    }
  }
}

std::string ControlClient::receive_line() {
  std::array<char, 65'536> chunk;
  std::size_t scanned = 0;
  while (true) {
    const std::size_t end = input_.find('\n', scanned);
    if (end != std::string::npos) {
      std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      return line;
    }
    scanned = input_.size();
    const ssize_t got = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
    if (got > 0) {
      input_.append(chunk.data(), static_cast<std::size_t>(got));
    } else if (got == 0) {
      throw Error(ECONNRESET, "receive from", path_, "vswitchd closed the connection; see its log");
    } else if (errno == EAGAIN) {
      wait_for(POLLIN);
    } else if (errno != EINTR) {
      throw_errno("receive from", path_);
    }
  }
}

nlohmann::json ControlClient::call(const std::string& method, const nlohmann::json& params) {
  const long id = ++last_id_;
  const nlohmann::json request = {{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}};
  send_line(request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  const nlohmann::json answer = nlohmann::json::parse(receive_line(), nullptr, false);
  if (!answer.is_object()) throw Error(EPROTO, "read the answer of", path_, "what listens there is not vswitchd");
  if (const auto error = answer.find("error"); error != answer.end() && error->is_object()) {
    throw RemoteError(error->value("code", 0), error->value("message", std::string("unknown error")));
  }
  if (answer.value("id", nlohmann::json()) != id || !answer.contains("result")) {
    throw Error(EPROTO, "read the answer of", path_, "what listens there is not vswitchd");
  }
  return answer["result"];
}

}  // namespace vswitch
