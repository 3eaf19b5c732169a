#include "tests/softnic/client/world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace softnic_client {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) throw std::runtime_error(std::string(name) + " is not set: run this by test_verbs.py");
  return value;
}

int packet_socket(const char* netdev) {
  const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
  if (fd < 0) fail("packet socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(if_nametoindex(netdev));
  const int yes = 1;
  const int bytes = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  const packet_mreq promiscuous{address.sll_ifindex, PACKET_MR_PROMISC, 0, {}};
  if (address.sll_ifindex == 0 || setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &yes, sizeof yes) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0 ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail(netdev);
  }
  return fd;
}

}  // namespace

void at_wire(const std::function<void()>& what) {
  std::exception_ptr thrown;
  std::thread there([&] {
    try {
      const int netns = ::open(environment("SOFTNIC_WIRE").c_str(), O_RDONLY | O_CLOEXEC);
      if (netns < 0 || setns(netns, CLONE_NEWNET) != 0) fail("namespace of the wire");
      ::close(netns);
      what();
    } catch (...) {
      thrown = std::current_exception();
    }
  });
  there.join();
  if (thrown) std::rethrow_exception(thrown);
}

Link::Link(Where where) : buffer_(66000) {
  if (where == Where::kernel) {
    fd_ = packet_socket("lan0");
  } else {
    at_wire([this] { fd_ = packet_socket("w0"); });
  }
}

Link::~Link() { ::close(fd_); }

void Link::send(const Frame& frame) const {
  while (::send(fd_, frame.data(), frame.size(), 0) < 0) {
    if (errno != ENOBUFS && errno != EINTR) fail("send a frame");
  }
}

// The kernel takes the VLAN tag out of a frame; it is put back.
std::optional<Frame> Link::next(int timeout_ms) const {
  pollfd ready{fd_, POLLIN, 0};
  if (::poll(&ready, 1, timeout_ms) != 1) return std::nullopt;
  iovec part{buffer_.data(), buffer_.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  const ssize_t got = recvmsg(fd_, &message, 0);
  if (got < 0) fail("receive a frame");
  Frame frame(buffer_.begin(), buffer_.begin() + got);
  tpacket_auxdata extra{};
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
    std::memcpy(&extra, CMSG_DATA(header), sizeof extra);
  }
  return (extra.tp_status & TP_STATUS_VLAN_VALID) != 0 ? tagged(std::move(frame), extra.tp_vlan_tci) : frame;
}

std::optional<Frame> Link::receive(const std::optional<Mac>& to, int timeout_ms) const {
  const std::int64_t until = now_ms() + timeout_ms;
  do {
    auto frame = next(static_cast<int>(std::max<std::int64_t>(0, until - now_ms())));
    if (!frame) continue;
    if (to ? std::equal(to->begin(), to->end(), frame->begin()) : word(*frame, 12) == 0x88b5) return frame;
  } while (now_ms() < until);
  return std::nullopt;
}

bool Link::came_before(const Mac& to, const Mac& mark) const {
  bool came = false;
  while (const auto frame = next(kPatienceMs)) {
    if (std::equal(mark.begin(), mark.end(), frame->begin())) return came;
    came = came || std::equal(to.begin(), to.end(), frame->begin());
  }
  throw std::runtime_error("the frame that marks the end did not come");
}

std::string softnic(const std::string& verb, const std::string& words) {
  const std::string sysfs = environment("SYSFS_PATH");
  const std::string directory = sysfs.substr(0, sysfs.rfind('/'));
  const std::string command = environment("SOFTNIC_COMMAND") + ' ' + verb + ' ' + directory + ' ' + words;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) fail(command);
  std::string said;
  char line[256];
  while (std::fgets(line, sizeof line, pipe) != nullptr) said += line;
  if (pclose(pipe) != 0) throw std::runtime_error(command + " failed");
  return said;
}

std::uint64_t counter(const std::string& name) {
  std::istringstream lines(softnic("counters"));
  std::string word_of_line;
  for (std::uint64_t value = 0; lines >> word_of_line >> value;) {
    if (word_of_line == name) return value;
  }
  throw std::runtime_error("no counter " + name);
}

int shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool eventually(const std::function<bool()>& condition, int timeout_ms) {
  const std::int64_t until = now_ms() + timeout_ms;
  while (!condition()) {
    if (now_ms() > until) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
  return true;
}

std::int64_t now_ms() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

}  // namespace softnic_client
