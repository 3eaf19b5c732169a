// Attaching to ring ports: who may, what is refused, what is left behind. Real sockets and memory; run as root.

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ports/ring/socket.h"
#include "tests/unit/ring_support.h"

namespace vswitch::test {
namespace {

using namespace std::chrono_literals;

const Mac kA = mac(0x0a);

/// Runs `work` in a process of its own. @return its result, 0..255; -1 if it died
int in_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void become(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  if (::setgroups(groups.size(), groups.data()) != 0 || ::setresgid(gid, gid, gid) != 0 ||
      ::setresuid(uid, uid, uid) != 0) {
    ::_exit(255);
  }
}

TEST(RingAttach, TellsThePort) {
  RingSwitch net(1, [](std::size_t, PortSpec& spec) {
    spec.vlan = 100;
    spec.mtu = 1400;
    spec.ips = {*IpPrefix::parse("198.18.0.11/24"), *IpPrefix::parse("fd00::11/64")};
    auto& ring = std::get<RingAttachSpec>(spec.attach);
    ring.queues = 3;
    ring.ring_frames = 128;
  });
  const tenant::Port port(net.socket(0), {.features = VSWITCH_FEATURE_CSUM | 0x8000U});
  const tenant::Info info = port.info();
  EXPECT_STREQ(info.name, "t/a");
  EXPECT_EQ(std::memcmp(info.mac, kA.bytes.data(), 6), 0);
  EXPECT_EQ(info.vlan, 100);
  EXPECT_EQ(info.mtu, 1400U);
  EXPECT_EQ(info.queues, 3U);
  EXPECT_EQ(info.ring_frames, 128U);
  EXPECT_EQ(info.arena_bytes, 256U << 10);
  EXPECT_EQ(info.features, VSWITCH_FEATURE_CSUM) << "what the switch does not know is not granted";
  EXPECT_EQ(info.attached, 1U);
  EXPECT_EQ(info.attachments, 1U);
  ASSERT_EQ(info.address_count, 2U);
  EXPECT_EQ(info.addresses[0].length, 4);
  EXPECT_EQ(info.addresses[0].prefix_length, 24);
  EXPECT_EQ(info.addresses[0].bytes[3], 11);
  EXPECT_EQ(info.addresses[1].length, 16);
  EXPECT_EQ(info.addresses[1].bytes[15], 0x11);
}

TEST(RingAttach, GrantsNothingWithoutChecksums) {
  RingSwitch net(1);
  const tenant::Port port(net.socket(0), {.features = VSWITCH_FEATURE_TSO4 | VSWITCH_FEATURE_USO});
  EXPECT_EQ(port.info().features, 0U);
  EXPECT_EQ(net.port(0).queue(0).offloads(), OffloadCaps{});
}

TEST(RingAttach, RefusesOtherUsers) {
  RingSwitch net(1);
  ASSERT_EQ(::geteuid(), 0U) << "run as root";
  ASSERT_EQ(::chmod(net.folder().c_str(), 0755), 0);
  const auto as_nobody = [&] {
    return in_child([&] {
      become(65534, 65534, {});
      return attach_error(net.socket(0));
    });
  };
  EXPECT_EQ(as_nobody(), EACCES) << "the socket file lets nobody else in";
  ASSERT_EQ(::chmod(net.socket(0).c_str(), 0666), 0);
  EXPECT_EQ(as_nobody(), EACCES) << "nor do the credentials of whoever got past it";
  EXPECT_EQ(in_child([&] {
              become(65534, 65534, {});
              static_cast<void>(attach_error(net.socket(0)));
              return std::strstr(vswitch_attach_error(), "is not for uid 65534") != nullptr ? 0 : 1;
            }),
            0);
  EXPECT_EQ(attach_error(net.socket(0)), 0);
}

TEST(RingAttach, AllowsUserAndGroupOfTheSpec) {
  RingSwitch net(2, [](std::size_t i, PortSpec& spec) {
    auto& ring = std::get<RingAttachSpec>(spec.attach);
    ring.uid = i == 0 ? std::optional<uid_t>(4321) : std::nullopt;
    if (i == 1) ring.gid = 4242;
  });
  ASSERT_EQ(::chmod(net.folder().c_str(), 0755), 0);
  const auto attach_as = [&](std::size_t port, uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
    return in_child([&] {
      become(uid, gid, groups);
      return attach_error(net.socket(port));
    });
  };
  EXPECT_EQ(attach_as(0, 4321, 65534, {}), 0);
  EXPECT_EQ(attach_as(0, 4322, 65534, {}), EACCES);
  EXPECT_EQ(attach_as(1, 4321, 4242, {}), 0);
  EXPECT_EQ(attach_as(1, 4321, 65534, {1, 4242}), 0) << "a supplementary group";
  EXPECT_EQ(attach_as(1, 4321, 65534, {1, 4243}), EACCES);
}

TEST(RingAttach, WantsTheToken) {
  RingSwitch net(1, [](std::size_t, PortSpec& spec) { std::get<RingAttachSpec>(spec.attach).token = "sesame"; });
  for (const char* wrong : {"", "sesam", "sesame2", "Sesame"}) {
    EXPECT_EQ(attach_error(net.socket(0), {.token = wrong}), EACCES) << wrong;
  }
  EXPECT_EQ(attach_error(net.socket(0), {.token = std::string(64, 'x')}), EINVAL) << "longer than a token can be";
  EXPECT_EQ(attach_error(net.socket(0), {.token = "sesame"}), 0);
}

TEST(RingAttach, OneAtATimeAndAgainAtOnce) {
  RingSwitch net(1);
  for (int i = 0; i < 50; ++i) {
    const tenant::Port port(net.socket(0));
    ASSERT_EQ(attach_error(net.socket(0)), EBUSY);
  }
  EXPECT_EQ(attach_error(net.socket(0)), 0) << "who has left is not in the way";
}

TEST(RingAttach, SaysWhatIsWrongWithAPath) {
  const TempFolder folder;
  EXPECT_EQ(attach_error(folder.path() + "/none"), ENOENT);
  EXPECT_EQ(attach_error(std::string(200, 'x')), ENAMETOOLONG);
  EXPECT_NE(std::string(vswitch_attach_error()).find("longer than a socket path"), std::string::npos);
  vswitch_options options{};
  vswitch_port* port = nullptr;
  EXPECT_EQ(vswitch_attach("/none", &options, &port), -EINVAL) << "options.size is not set";
  EXPECT_EQ(vswitch_attach(nullptr, nullptr, &port), -EINVAL);
}

/// The error in the answer to those bytes as the first message; -1: hung up without an answer.
int answer_to(const std::string& socket, std::span<const std::byte> message) {
  const Fd fd = RawTenant::connect(socket);
  EXPECT_EQ(::send(fd.get(), message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
  vswitch_welcome welcome;
  if (::recv(fd.get(), &welcome, sizeof(welcome), 0) != sizeof(welcome)) return -1;
  return welcome.error;
}

TEST(RingAttach, RefusesBadHellos) {
  RingSwitch net(1);
  const auto answer_to_hello = [&](const std::function<void(vswitch_hello&)>& change) {
    vswitch_hello hello = RawTenant::hello();
    change(hello);
    return answer_to(net.socket(0), std::as_bytes(std::span(&hello, 1)));
  };
  EXPECT_EQ(answer_to_hello([](vswitch_hello& h) { h.magic ^= 1; }), EPROTO);
  EXPECT_EQ(answer_to_hello([](vswitch_hello& h) { h.version_min = h.version_max = VSWITCH_RING_VERSION + 1; }),
            EPROTONOSUPPORT);
  EXPECT_EQ(answer_to_hello([](vswitch_hello& h) { h.version_min = h.version_max = 0; }), EPROTONOSUPPORT);
  EXPECT_EQ(answer_to_hello([](vswitch_hello& h) { h.version_max = 9; }), 0) << "a common version is enough";
  std::mt19937_64 random(3);
  for (int i = 0; i < 300; ++i) {
    std::vector<std::byte> garbage(1 + random() % (i % 3 == 0 ? 4000 : 200));
    for (auto& byte : garbage) byte = static_cast<std::byte>(random());
    const int answer = answer_to(net.socket(0), garbage);
    EXPECT_EQ(answer, garbage.size() == sizeof(vswitch_hello) ? EPROTO : -1) << garbage.size();
  }
  EXPECT_EQ(attach_error(net.socket(0)), 0);
}

TEST(RingAttach, SilentCallersAreFewAndHungUpOn) {
  RingSwitch net(1);
  const auto hung_up = [](const Fd& fd, int timeout_ms) {
    pollfd end{fd.get(), POLLIN, 0};
    return ::poll(&end, 1, timeout_ms) == 1;
  };
  const Nanoseconds start = monotonic_now();
  std::vector<Fd> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(RawTenant::connect(net.socket(0)));
  EXPECT_FALSE(hung_up(silent.back(), 100));
  const Fd one_more = RawTenant::connect(net.socket(0));
  EXPECT_TRUE(hung_up(one_more, 2000)) << "the ninth is turned away at once";
  silent.pop_back();
  EXPECT_TRUE(eventually([&] { return attach_error(net.socket(0)) == 0; })) << "there is room again";
  for (const Fd& fd : silent) EXPECT_TRUE(hung_up(fd, 20'000));
  EXPECT_GT(monotonic_now() - start, 4 * kSecond) << "not before their time";
}

TEST(RingAttach, OutOfDescriptorsTheCallerWaitsAndNobodySpins) {
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  const TempFolder folder;
  const std::string path = folder.path() + "/a.sock";
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    char byte;
    if (::read(go[0], &byte, 1) != 1) ::_exit(2);
    ::_exit(attach_error(path, {.timeout = 10s}));
  }
  RingSwitch net(1, [&](std::size_t, PortSpec& spec) { spec.attach = attach_at(path); });
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit tight{256, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  std::vector<Fd> taken;
  for (int fd = ::dup(go[0]); fd >= 0; fd = ::dup(go[0])) taken.emplace_back(fd);
  const auto cpu_time = [] {
    timespec used{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<Nanoseconds>(used.tv_sec) * kSecond + static_cast<Nanoseconds>(used.tv_nsec);
  };
  const Nanoseconds start = cpu_time();
  ASSERT_EQ(::write(go[1], "g", 1), 1);
  std::this_thread::sleep_for(600ms);
  EXPECT_LT(cpu_time() - start, 200 * kMillisecond);
  taken.clear();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(tenant, &status, 0), tenant);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  ::close(go[0]);
  ::close(go[1]);
}

TEST(RingAttach, TheSwitchThatDoesNotAnswerTimesOut) {
  const TempFolder folder;
  const std::string path = folder.path() + "/mute.sock";
  const Fd mute = listen_for_tenant(attach_at(path));
  const Nanoseconds start = monotonic_now();
  EXPECT_EQ(attach_error(path, {.timeout = 200ms}), ETIMEDOUT);
  std::vector<Fd> queue;
  for (int i = 0; i < 9; ++i) {  // fill its backlog: then even connecting has to wait
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    static_cast<void>(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
    queue.push_back(std::move(fd));
  }
  EXPECT_EQ(attach_error(path, {.timeout = 200ms}), ETIMEDOUT);
  EXPECT_GE(monotonic_now() - start, 400 * kMillisecond);
  EXPECT_LT(monotonic_now() - start, 5 * kSecond);
}

TEST(RingAttach, SocketFileIsTakenOnlyFromTheDead) {
  const TempFolder folder;
  const RingAttachSpec spec = attach_at(folder.path() + "/port.sock");
  Fd first = listen_for_tenant(spec);
  const auto why_not = [&]() -> std::string {
    try {
      const Fd second = listen_for_tenant(spec);
      return {};
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_NE(why_not().find("another process serves this socket"), std::string::npos) << why_not();
  first.reset();  // the file stays, as after kill -9
  EXPECT_EQ(why_not(), "");
  std::filesystem::remove(spec.socket);
  Fd(::open(spec.socket.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).reset();
  EXPECT_NE(why_not().find("a file that is no socket is there"), std::string::npos) << why_not();
  EXPECT_TRUE(std::filesystem::exists(spec.socket)) << "what is not ours is left alone";
}

TEST(RingAttach, TenantCannotChangeTheSwitchsMemoryNorAnySize) {
  RingSwitch net(1);
  RawTenant raw(net.socket(0));
  const int switch_fd = raw.fds[0].get();
  const int tenant_fd = raw.fds[1].get();
  const std::size_t size = raw.switch_memory.size();
  EXPECT_EQ(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, switch_fd, 0), MAP_FAILED);
  EXPECT_EQ(::mprotect(raw.switch_memory.data(), size, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(::pwrite(switch_fd, "x", 1, 0), -1);
  EXPECT_EQ(::fallocate(switch_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
  const Fd again(::open(("/proc/self/fd/" + std::to_string(switch_fd)).c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_TRUE(!again.valid() ||
              ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0) == MAP_FAILED);
  for (const int fd : {switch_fd, tenant_fd}) {
    EXPECT_EQ(::ftruncate(fd, 0), -1);
    EXPECT_EQ(::ftruncate(fd, 64 << 20), -1);
  }
  EXPECT_EQ(::fcntl(switch_fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
}

TEST(RingAttach, LeavesNoDescriptorBehind) {
  const std::size_t before = open_descriptors();
  {
    RingSwitch net(2, [](std::size_t i, PortSpec& spec) {
      auto& ring = std::get<RingAttachSpec>(spec.attach);
      ring.queues = 4;
      if (i == 1) ring.token = "sesame";
    });
    const std::size_t idle = open_descriptors();
    for (int i = 0; i < 60; ++i) {
      ASSERT_EQ(attach_error(net.socket(0)), 0);
      ASSERT_EQ(attach_error(net.socket(1)), EACCES);
      ASSERT_EQ(answer_to(net.socket(0), std::vector<std::byte>(10)), -1);
    }
    EXPECT_TRUE(eventually([&] { return open_descriptors() == idle; })) << open_descriptors() << " of " << idle;
    net.stop_port(0);
    EXPECT_FALSE(std::filesystem::exists(net.socket(0))) << "the socket file goes with its port";
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(RingAttach, MoreWordsAfterTheHelloEndIt) {
  RingSwitch net(1);
  RawTenant raw(net.socket(0));
  ASSERT_TRUE(net.attached(0));
  ASSERT_EQ(::send(raw.control.get(), "x", 1, 0), 1);
  EXPECT_TRUE(eventually([&] { return !net.attached(0); }));
}

}  // namespace
}  // namespace vswitch::test
