#include "vswitch/daemon/control_server.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "vswitch/base/error.h"
#include "vswitch/daemon/unix_socket.h"

namespace vswitch {

/// One connection: either reading (a watch for input), or draining an answer (a watch for room), or waiting for its
/// next turn (a timer).
class ControlServer::Client {
 public:
  Client(ControlServer& server, std::uint64_t id, Fd socket) : server_(server), id_(id), socket_(std::move(socket)) {
    wait_for_input();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { server_.reactor_.cancel(waiting_); }

  /// Queues `line` and drops whatever else the client has to say.
  void refuse(const std::string& line) {
    input_.clear();
    ended_ = true;
    queue(line);
    proceed();
  }

 private:
  static constexpr std::size_t kRequestsPerTurn = 16;

  void wait(Reactor::Handle handle) {
    server_.reactor_.cancel(waiting_);
    waiting_ = handle;
  }
  void wait_for_input() {
    wait(server_.reactor_.watch(socket_.get(), [this] { on_input(); }));
  }
  void queue(const std::string& answer) {
    output_ += answer;
    output_ += '\n';
  }

  void on_input() {
    std::array<char, 65'536> chunk;
    const ssize_t got = ::recv(socket_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) return close();
    if (got == 0) ended_ = true;
    input_.append(chunk.data(), static_cast<std::size_t>(got));
    proceed();
  }

  /// Answers what is complete, as far as the client takes it; then waits for whatever is missing, or closes. Last call
  /// of every callback: the client may be gone after it.
  void proceed() {
    for (std::size_t done = 0; done < kRequestsPerTurn; ++done) {
      if (!drain()) return close();
      if (!output_.empty()) return wait(server_.reactor_.watch_writable(socket_.get(), [this] { proceed(); }));
      const std::size_t end = input_.find('\n', scanned_);
      if (end == std::string::npos) {
        scanned_ = input_.size();
        if (ended_) return close();
        if (input_.size() > RpcDispatcher::kMaxMessageBytes) {
          return refuse(RpcDispatcher::error_answer(RpcCode::invalid_request, "the message is longer than 1 MiB"));
        }
        return wait_for_input();
      }
      answer(end);
    }
    wait(server_.reactor_.after(0, [this] { proceed(); }));
  }

  /// Handles the message that ends before `end`.
  void answer(std::size_t end) {
    const std::string message = input_.substr(0, end);
    input_.erase(0, end + 1);
    scanned_ = 0;
    if (message.find_first_not_of(" \t\r") == std::string::npos) return;
    const std::string answer = server_.dispatcher_.handle(message);
    if (!answer.empty()) queue(answer);
  }

  /// Sends what the socket takes. @return false when the peer is gone
  bool drain() {
    while (!output_.empty()) {
      const ssize_t sent = ::send(socket_.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return errno == EAGAIN;
      output_.erase(0, static_cast<std::size_t>(sent));
    }
    return true;
  }

  void close() { server_.close_client(id_); }

  ControlServer& server_;
  std::uint64_t id_;
  Fd socket_;
  Reactor::Handle waiting_ = 0;
  bool ended_ = false;       ///< nothing more will be read
  std::string input_;        ///< at most one message and one chunk
  std::size_t scanned_ = 0;  ///< bytes of input_ known to hold no line end
  std::string output_;       ///< at most one answer
};

ControlServer::ControlServer(UringReactor& reactor, const RpcDispatcher& dispatcher, std::string path)
    : reactor_(reactor), dispatcher_(dispatcher), path_(std::move(path)) {
  ::unlink(path_.c_str());
  listener_ = unix_stream_socket();
  const UnixAddress address(path_);
  // The mode must be right from the first moment: a chmod after bind() would leave a gap.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(listener_.get(), address.generic(), address.size());
  const int error = errno;
  ::umask(before);
  if (bound != 0) {
    throw Error(error, "bind control socket", path_,
                "the directory must exist and be writable; choose one with --control");
  }
  if (::listen(listener_.get(), 64) != 0) throw_errno("listen on control socket", path_);
  listen();
}

ControlServer::~ControlServer() {
  reactor_.cancel(accepting_);
  clients_.clear();
  ::unlink(path_.c_str());
}

void ControlServer::close_client(std::uint64_t id) noexcept { clients_.erase(id); }

void ControlServer::listen() {
  accepting_ = reactor_.watch(listener_.get(), [this] { accept_all(); });
}

void ControlServer::accept_all() {
  while (true) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
      // The connection stays in the backlog and the socket readable: come back later instead of spinning.
      spdlog::warn("{}", Error(errno, "accept on", path_).what());
      reactor_.cancel(accepting_);
      accepting_ = reactor_.after(100 * kMillisecond, [this] { listen(); });
      return;
    }
    const bool full = clients_.size() >= kMaxClients;
    const std::uint64_t id = ++last_client_;
    if (full) {
      const std::string line = RpcDispatcher::error_answer(RpcCode::failed, "too many clients; close some") + "\n";
      static_cast<void>(::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
      continue;
    }
    clients_.emplace(id, std::make_unique<Client>(*this, id, std::move(socket)));
  }
}

}  // namespace vswitch
