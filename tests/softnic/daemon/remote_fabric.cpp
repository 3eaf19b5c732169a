#include "tests/softnic/daemon/remote_fabric.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace softnic {
namespace {

constexpr int kPatienceMs = 2000;  // a daemon that takes no frame for so long is stuck or dead

// The daemon's first answer: one byte with the frame socket.
int receive_fd(int from) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

}  // namespace

RemoteFabric::RemoteFabric(const std::string& socket_path, Board& board)
    : board_(board), buffer_(sizeof(FrameHeader) + kMostFrameBytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    throw std::system_error(ENAMETOOLONG, std::generic_category(), socket_path);
  }
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  control_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const bool connected =
      control_ >= 0 && ::connect(control_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  if (connected) frames_ = receive_fd(control_);
  if (frames_ < 0) {
    const int error = errno;
    if (control_ >= 0) ::close(control_);
    throw std::system_error(error, std::generic_category(), socket_path + ": the device's daemon does not answer");
  }
}

RemoteFabric::~RemoteFabric() {
  ::close(frames_);
  ::close(control_);
}

Reply RemoteFabric::ask(const Request& request) {
  const std::lock_guard one(asking_);
  Reply reply{EIO, 0};
  if (::send(control_, &request, sizeof request, MSG_NOSIGNAL) != sizeof request) return reply;
  if (::recv(control_, &reply, sizeof reply, 0) != sizeof reply) return {EIO, 0};
  return reply;
}

std::uint32_t RemoteFabric::allocate_queue() { return ask({Ask::allocate_queue, 0, {}}).value; }

void RemoteFabric::release_queue(std::uint32_t queue) { static_cast<void>(ask({Ask::release_queue, queue, {}})); }

std::pair<int, RuleId> RemoteFabric::add_rule(Rule rule) {
  const Reply reply = ask({Ask::add_rule, 0, rule});
  return {reply.error, reply.value};
}

int RemoteFabric::remove_rule(RuleId id) {
  const int error = ask({Ask::remove_rule, id, {}}).error;
  return error == EIO ? 0 : error;  // a device that is gone has no rules
}

void RemoteFabric::transmit(std::uint8_t port, std::uint32_t from, Bytes frame) {
  FrameHeader header{from, 0, port, 0, 0};
  iovec parts[2] = {{&header, sizeof header}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  while (::sendmsg(frames_, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    pollfd room{frames_, POLLOUT, 0};
    const bool wait = errno == EAGAIN && ::poll(&room, 1, kPatienceMs) == 1 && (room.revents & POLLERR) == 0;
    if (wait || errno == EINTR) continue;
    board_.count(Counter::drop_channel_full);
    return;
  }
}

std::size_t RemoteFabric::receive(Sink& sink, std::size_t most) {
  std::size_t taken = 0;
  for (; taken < most; ++taken) {
    const ssize_t got = ::recv(frames_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < static_cast<ssize_t>(sizeof(FrameHeader))) break;
    FrameHeader header{};
    std::memcpy(&header, buffer_.data(), sizeof header);
    const Delivery to{{0, header.queue}, header.tag, header.tagged != 0};
    sink.deliver(header.port, to, Bytes(buffer_.data() + sizeof header, static_cast<std::size_t>(got) - sizeof header));
  }
  return taken;
}

}  // namespace softnic
