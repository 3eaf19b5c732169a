#include "tests/softnic/daemon/server.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <tuple>

namespace softnic {
namespace {

constexpr std::size_t kFramesPerTurn = 64;
constexpr int kLinkCheckMs = 20;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

bool send_fd(int to, int fd) {
  char byte = 1;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(to, &message, MSG_NOSIGNAL) == 1;
}

}  // namespace

class Server::Client : public Sink {
 public:
  Client(int control_socket, int frame_socket, Board& board)
      : control(control_socket), frames(frame_socket), board_(board) {}
  ~Client() override {
    ::close(control);
    ::close(frames);
  }
  void deliver(std::uint8_t port, const Delivery& to, Bytes frame) override {
    FrameHeader header{to.queue.queue, to.tag, port, to.tagged, 0};
    iovec parts[2] = {{&header, sizeof header}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (::sendmsg(frames, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) board_.count(Counter::drop_channel_full);
  }

  const int control;
  const int frames;
  OwnerId owner = 0;

 private:
  Board& board_;
};

Server::Server(Device& device, Board& board, const std::string& socket_path)
    : device_(device), board_(board), buffer_(sizeof(FrameHeader) + kMostFrameBytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    throw std::system_error(ENAMETOOLONG, std::generic_category(), socket_path);
  }
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  signals_ = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
  listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  ::unlink(socket_path.c_str());
  if (epoll_ < 0 || signals_ < 0 || listener_ < 0) fail("epoll, signalfd and socket");
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 64) != 0) {
    fail(socket_path.c_str());
  }
  watch(signals_);
  watch(listener_);
  for (std::size_t i = 0; i < device_.ports(); ++i) {
    if (device_.wire(i) != nullptr) watch(device_.wire(i)->fd());
    if (device_.kernel(i) != nullptr) watch(device_.kernel(i)->fd());
  }
}

Server::~Server() {
  ::close(epoll_);
  ::close(signals_);
  ::close(listener_);
}

void Server::watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

void Server::accept_client() {
  const int control = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (control < 0) return;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    ::close(control);
    return;
  }
  for (const int end : ends) {
    setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &kChannelBytes, sizeof kChannelBytes);
  }
  auto client = std::make_unique<Client>(control, ends[0], board_);
  const bool sent = send_fd(control, ends[1]);
  ::close(ends[1]);
  if (!sent) return;
  client->owner = device_.open(*client);
  watch(client->control);
  watch(client->frames);
  by_frames_[client->frames] = client.get();
  clients_[control] = std::move(client);
}

void Server::forget(Client& client) {
  // What it sent before it ended is on its way: a NIC that completed a send has the frame.
  while (take_frames(client)) {
    pollfd more{client.frames, POLLIN, 0};
    if (::poll(&more, 1, 0) != 1 || (more.revents & POLLIN) == 0) break;
  }
  device_.close(client.owner);
  by_frames_.erase(client.frames);
  clients_.erase(client.control);  // closes the sockets, which takes them out of the epoll
}

bool Server::answer(Client& client) {
  Request request{};
  const ssize_t got = ::recv(client.control, &request, sizeof request, 0);
  if (got < 0 && errno == EAGAIN) return true;
  if (got != sizeof request) return false;
  Reply reply{0, 0};
  switch (request.ask) {
    case Ask::allocate_queue:
      reply.value = device_.allocate_queue();
      break;
    case Ask::release_queue:
      device_.release_queue({client.owner, request.value});
      break;
    case Ask::add_rule: {
      request.rule.queue.owner = client.owner;
      std::tie(reply.error, reply.value) = device_.add_rule(request.rule);
      break;
    }
    case Ask::remove_rule:
      reply.error = device_.remove_rule(client.owner, request.value);
      break;
    default:
      reply.error = EOPNOTSUPP;
  }
  return ::send(client.control, &reply, sizeof reply, MSG_NOSIGNAL) == sizeof reply;
}

bool Server::take_frames(Client& client) {
  for (std::size_t i = 0; i < kFramesPerTurn; ++i) {
    const ssize_t got = ::recv(client.frames, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got < static_cast<ssize_t>(sizeof(FrameHeader))) return false;
    FrameHeader header{};
    std::memcpy(&header, buffer_.data(), sizeof header);
    device_.transmit({client.owner, header.queue}, header.port,
                     Bytes(buffer_.data() + sizeof header, static_cast<std::size_t>(got) - sizeof header));
  }
  return true;
}

void Server::run() {
  // As the NIC's thread of a client: clients that poll must not keep the hardware from working.
  const sched_param first{1};
  sched_setscheduler(0, SCHED_FIFO, &first);
  std::array<epoll_event, 32> ready{};
  std::uint64_t turns = 0;
  while (true) {
    const int count = epoll_wait(epoll_, ready.data(), ready.size(), kLinkCheckMs);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    bool ends = false;
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      if (fd == signals_) return;
      if (fd == listener_) {
        accept_client();
      } else if (const auto control = clients_.find(fd); control != clients_.end()) {
        if (!answer(*control->second)) forget(*control->second);
      } else if (const auto frames = by_frames_.find(fd); frames != by_frames_.end()) {
        // Its end is seen at the control socket.
        if (!take_frames(*frames->second)) epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
      } else {
        ends = true;
      }
    }
    if (ends) device_.poll(kFramesPerTurn);
    if (count == 0 || ++turns % 64 == 0) device_.check_links();
  }
}

}  // namespace softnic
