// A client's hello over a real socket to a real ring port, and what it says while it is attached.
//
// Input: 1 byte, bit 0: to the port that wants a token, bit 1: the hello's head is made right, bit 2: so is that of the
// second message; then the first message (as long as a hello, if there is so much), then what is left as a second one.

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vswitch/ring.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ports/ring/ring_port.h"
#include "tests/ports/test_reactor.h"

namespace {

using namespace vswitch;

void require(bool condition) {
  if (!condition) std::abort();
}

class Ports {
 public:
  Ports() {
    std::string path = "/tmp/vswitch-fuzz-XXXXXX";
    require(::mkdtemp(path.data()) != nullptr);
    folder_ = path;
    for (std::size_t i = 0; i < 2; ++i) {
      PortSpec spec;
      spec.tenant = "fuzz";
      spec.name = std::to_string(i);
      spec.mtu = 1500;
      RingAttachSpec attach;
      attach.socket = socket(i);
      attach.ring_frames = 64;
      if (i == 1) attach.token = "sesame";
      spec.attach = attach;
      ports_[i] = std::make_unique<RingPort>(spec, context_);
      ports_[i]->start();
    }
  }
  Ports(const Ports&) = delete;
  Ports& operator=(const Ports&) = delete;
  ~Ports() {
    for (const auto& port : ports_) port->stop();
    ::rmdir(folder_.c_str());
  }

  [[nodiscard]] Fd connect(std::size_t i) const {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = socket(i);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    require(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
  }
  void turn() { reactor_.run_once(0); }
  [[nodiscard]] bool attached(std::size_t i) const { return ports_[i]->status().link_up; }
  [[nodiscard]] std::size_t watches() const { return reactor_.watches(); }

 private:
  [[nodiscard]] std::string socket(std::size_t i) const { return folder_ + "/" + std::to_string(i); }
  std::string folder_;
  test::TestReactor reactor_;
  Quiescence quiescence_{1};
  PortContext context_{reactor_, quiescence_, 1, {}, 0, [] {}};
  std::array<std::unique_ptr<RingPort>, 2> ports_;
};

/// Takes the answer, if one came. @return descriptors in it; -1: no answer
int take_answer(int fd, vswitch_welcome& welcome) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(40 * sizeof(int))> space{};
  iovec place{&welcome, sizeof(welcome)};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  if (::recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != sizeof(welcome)) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr) return 0;
  const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; ++i) {
    int received;
    std::memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof(received));
    ::close(received);
  }
  return static_cast<int>(count);
}

/// Says `message` on an attachment: either it is a request and gets its answer, or it is the end.
void talk_on(Ports& ports, std::size_t port, int fd, std::span<const std::uint8_t> message) {
  const bool was_attached = ports.attached(port);
  static_cast<void>(::send(fd, message.data(), message.size(), MSG_NOSIGNAL));
  ports.turn();
  vswitch_features_request request{};
  const bool whole = message.size() == sizeof(request);
  if (whole) std::memcpy(&request, message.data(), sizeof(request));
  require(ports.attached(port) == (was_attached && whole && request.magic == VSWITCH_RING_FEATURES_MAGIC));
  vswitch_features_answer answer{};
  const bool answered = ::recv(fd, &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer);
  require(answered == ports.attached(port));
  if (!answered) return;
  require(answer.magic == VSWITCH_RING_FEATURES_MAGIC && answer.serial == request.serial);
  require((answer.features & ~request.features) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Ports ports;
  if (size < 2) return 0;
  const std::size_t port = data[0] & 1U;
  std::vector<std::uint8_t> first(data + 1, data + std::min(size, 1 + sizeof(vswitch_hello)));
  if ((data[0] & 2U) != 0 && first.size() == sizeof(vswitch_hello)) {
    vswitch_hello right{};
    right.magic = VSWITCH_RING_MAGIC;
    right.version_min = right.version_max = VSWITCH_RING_VERSION;
    std::memcpy(first.data(), &right, offsetof(vswitch_hello, features));
  }
  const std::size_t watches = ports.watches();
  {
    const Fd fd = ports.connect(port);
    static_cast<void>(::send(fd.get(), first.data(), first.size(), MSG_NOSIGNAL));
    ports.turn();  // accepts
    ports.turn();  // reads
    vswitch_welcome welcome{};
    const int descriptors = take_answer(fd.get(), welcome);
    const bool whole = first.size() == sizeof(vswitch_hello);
    require(whole == (descriptors >= 0));
    require(ports.attached(port) == (descriptors > 0));
    if (whole) {
      vswitch_hello hello;
      std::memcpy(&hello, first.data(), sizeof(hello));
      const bool good = hello.magic == VSWITCH_RING_MAGIC && hello.version_min <= VSWITCH_RING_VERSION &&
                        hello.version_max >= VSWITCH_RING_VERSION;
      static constexpr std::array<char, VSWITCH_RING_TOKEN_BYTES> kToken = {'s', 'e', 's', 'a', 'm', 'e'};
      const bool knows = port == 0 || std::memcmp(hello.token, kToken.data(), kToken.size()) == 0;
      require((welcome.error == 0) == (good && knows));
      require(descriptors == (welcome.error == 0 ? 4 : 0));
      require((welcome.features & ~hello.features) == 0);
    }
    if (size > 1 + sizeof(vswitch_hello)) {
      std::vector<std::uint8_t> second(data + 1 + sizeof(vswitch_hello), data + size);
      const std::uint32_t magic = VSWITCH_RING_FEATURES_MAGIC;
      if ((data[0] & 4U) != 0 && second.size() >= sizeof(magic)) std::memcpy(second.data(), &magic, sizeof(magic));
      talk_on(ports, port, fd.get(), second);
    }
  }
  ports.turn();
  require(!ports.attached(port) && ports.watches() == watches);
  return 0;
}
