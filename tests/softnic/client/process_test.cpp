/// Several processes on one NIC, and the kernel's netdev beside them.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

/// A process that runs `work`, which says by its argument when it is ready. To be made before this process opens the
/// device: a thread of the NIC does not survive a fork.
class Child {
 public:
  explicit Child(const std::function<void(const std::function<void()>&)>& work) {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error("pipe");
    pid_ = fork();
    if (pid_ == 0) {
      try {
        work([&] { static_cast<void>(!write(ends[1], "r", 1)); });
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
      _exit(0);
    }
    ::close(ends[1]);
    char byte = 0;
    ready_ = ::read(ends[0], &byte, 1) == 1;
    ::close(ends[0]);
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] bool ready() const { return ready_; }
  void kill() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

/// Sends every frame for mac(1) back to mac(2).
void echo(const std::function<void()>& ready) {
  const Handle<ibv_context> context = open_device();
  RawQueue queue(context.get());
  if (queue.start() != 0) return;
  queue.take(mac(1));
  ready();
  while (true) {
    const int fill = queue.receive_fill();
    if (fill >= 0) static_cast<void>(queue.send(plain(mac(2), static_cast<std::uint8_t>(fill + 1))));
  }
}

/// Bytes that a TCP connection from the kernel's netdev to the far end carried.
std::size_t tcp_transfer(std::size_t bytes) {
  int listener = -1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(4000);
  std::memcpy(&address.sin_addr, kWireIp.data(), kWireIp.size());
  at_wire([&] { listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); });
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const int sender = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::size_t received = 0;
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      ::listen(listener, 1) == 0 &&
      ::connect(sender, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    std::thread reader([&] {
      std::array<char, 65536> buffer{};
      for (ssize_t got = 1; got > 0; received += static_cast<std::size_t>(std::max<ssize_t>(got, 0))) {
        got = ::recv(accepted, buffer.data(), buffer.size(), 0);
      }
    });
    const std::vector<char> data(bytes);
    for (std::size_t sent = 0; sent < bytes;) {
      const ssize_t more = ::send(sender, &data[sent], bytes - sent, MSG_NOSIGNAL);
      if (more <= 0) break;
      sent += static_cast<std::size_t>(more);
    }
    ::shutdown(sender, SHUT_WR);
    reader.join();
    ::close(accepted);
  }
  ::close(sender);
  ::close(listener);
  return received;
}

TEST(Processes, FramesBetweenTwoStayInside) {
  const Child other(echo);
  ASSERT_TRUE(other.ready());
  const Link wire(Link::Where::wire);
  const Handle<ibv_context> context = open_device();
  RawQueue queue(context.get());
  ASSERT_EQ(queue.start(), 0);
  queue.take(mac(2));
  for (std::uint8_t i = 0; i < 100; ++i) {
    ASSERT_EQ(queue.send(plain(mac(1), i)), IBV_WC_SUCCESS);
    ASSERT_EQ(queue.receive_fill(), i + 1);
  }
  ASSERT_EQ(queue.send(plain(mac(3))), IBV_WC_SUCCESS);
  EXPECT_FALSE(wire.came_before(mac(1), mac(3)));
}

TEST(Processes, RulesOfAKilledProcessAreGone) {
  Child other(echo);
  ASSERT_TRUE(other.ready());
  const Link wire(Link::Where::wire);
  const Link kernel(Link::Where::kernel);
  const auto kernel_gets = [&] {
    wire.send(plain(mac(1)));
    wire.send(plain(mac(9)));
    return kernel.came_before(mac(1), mac(9));
  };
  EXPECT_FALSE(kernel_gets());
  EXPECT_TRUE(wire.receive(mac(2)));
  std::atomic<int> ping{-1};
  std::thread pings([&] { ping = shell("ping -n -q -c 30 -i 0.01 198.18.0.2 | grep -q ' 0% packet loss'"); });
  std::thread load([&] {
    for (int i = 0; i < 2000; ++i) wire.send(plain(mac(1)));
  });
  std::thread killer([&] { other.kill(); });
  EXPECT_EQ(tcp_transfer(4 << 20), std::size_t{4} << 20);
  killer.join();
  load.join();
  pings.join();
  EXPECT_EQ(ping, 0);
  EXPECT_TRUE(eventually([&] { return kernel_gets(); }));
}

TEST(Processes, ManyComeAndGo) {
  const Link wire(Link::Where::wire);
  for (int i = 0; i < 10; ++i) {
    Child other(echo);
    ASSERT_TRUE(other.ready());
    wire.send(plain(mac(1), static_cast<std::uint8_t>(i)));
    const auto answer = wire.receive(mac(2));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->back(), i + 1);
    other.kill();
  }
}

}  // namespace
}  // namespace softnic_client
