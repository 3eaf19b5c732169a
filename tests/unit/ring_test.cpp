// Traffic over ring ports: bytes, order, tags, offloads, sleep, and peers that come and go.
//
//   tenant a -- RingPort --+
//   tenant b -- RingPort --+-- worker(s) -- LoopPort (the wire)
//   ...

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <utility>

#include "tests/unit/offload_frames.h"
#include "tests/unit/ring_support.h"

namespace vswitch::test {
namespace {

using namespace std::chrono_literals;

const Mac kA = mac(0x0a);
const Mac kB = mac(0x0b);
const Mac kC = mac(0x0c);
const Mac kD = mac(0x0d);
const Mac kPeer = mac(0xee);

RingAttachSpec& ring_of(PortSpec& spec) { return std::get<RingAttachSpec>(spec.attach); }

TEST(RingTraffic, EveryByteInOrderOverMillionsOfFrames) {
  RingSwitch net(2, [](std::size_t, PortSpec& spec) {
    spec.mtu = 60'000;
    ring_of(spec).ring_frames = 64;
  });
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const NumberedFrames frames;
  Flow flow(frames, kSlow ? 200'000 : 2'000'000, 60'014);
  std::thread sender([&] { EXPECT_TRUE(flow.send(a, kB, kA)); });
  EXPECT_EQ(flow.receive(b), 0U);
  sender.join();
  EXPECT_EQ(net.drops(0, Drop::bad_descriptor) + net.drops(1, Drop::dest_full), 0U);
}

TEST(RingTraffic, BothWaysAtOnce) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const NumberedFrames frames;
  const std::uint64_t count = kSlow ? 30'000 : 300'000;
  Flow there(frames, count, 1514, 1);
  Flow back(frames, count, 1514, 2);
  const auto run = [](tenant::Port& port, Flow& out, Flow& in, const Mac& to, const Mac& from) {
    std::array<tenant::Frame, 64> batch;
    std::uint64_t wrong = 0;
    for (Nanoseconds last = monotonic_now(); !out.sent() || !in.complete();) {
      const std::size_t sent = out.send_some(port, to, from);
      const auto got = port.peek(batch);
      for (const tenant::Frame& frame : got) wrong += in.take(tenant::bytes(frame)) ? 0 : 1;
      port.release(got.size());
      in.released();
      if (sent + got.size() != 0) last = monotonic_now();
      if (monotonic_now() - last > 20 * kSecond) return std::uint64_t{1} << 32;
    }
    return wrong;
  };
  std::uint64_t wrong_at_b = 0;
  std::thread other([&] { wrong_at_b = run(b, back, there, kA, kB); });
  EXPECT_EQ(run(a, there, back, kB, kA), 0U);
  other.join();
  EXPECT_EQ(wrong_at_b, 0U);
}

/// Two workers, two queue pairs on each side: each flow keeps its order and its queue.
TEST(RingTraffic, FlowsKeepOrderOverQueuesAndWorkers) {
  const auto two_queues = [](std::size_t, PortSpec& spec) {
    ring_of(spec).queues = 2;
    spec.trusted = true;  // each flow has a source of its own
  };
  RingSwitch net(2, two_queues, 2, Idle::adaptive);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const NumberedFrames frames;
  const std::uint64_t count = kSlow ? 10'000 : 100'000;
  constexpr std::size_t kFlows = 4;
  std::vector<std::unique_ptr<Flow>> flows;
  for (std::uint8_t id = 0; id < kFlows; ++id) flows.push_back(std::make_unique<Flow>(frames, count, 1514, id));
  const auto all = [&](auto predicate) { return std::all_of(flows.begin(), flows.end(), predicate); };
  std::vector<std::thread> threads;
  for (std::uint32_t queue = 0; queue < 2; ++queue) {
    threads.emplace_back([&, queue] {  // flows 0 and 2 from queue 0, 1 and 3 from queue 1
      const Nanoseconds end = monotonic_now() + 60 * kSecond;
      while (monotonic_now() < end && !(flows[queue]->sent() && flows[queue + 2]->sent())) {
        const auto other = static_cast<std::uint8_t>(queue + 2);
        const std::size_t sent = flows[queue]->send_some(a, kB, mac(static_cast<std::uint8_t>(0x40 + queue)), queue) +
                                 flows[other]->send_some(a, kB, mac(static_cast<std::uint8_t>(0x40 + other)), queue);
        if (sent == 0) {
          std::this_thread::yield();
        }
      }
    });
  }
  std::atomic<std::uint64_t> wrong{0};
  std::array<std::set<std::uint8_t>, 2> seen;
  for (std::uint32_t queue = 0; queue < 2; ++queue) {
    threads.emplace_back([&, queue] {
      std::array<tenant::Frame, 64> batch;
      const Nanoseconds end = monotonic_now() + 60 * kSecond;
      while (monotonic_now() < end && !all([](const auto& flow) { return flow->complete(); })) {
        b.wait(200ms, queue);
        const auto got = b.peek(batch, queue);
        for (const tenant::Frame& frame : got) {
          const std::uint8_t flow = NumberedFrames::flow(tenant::bytes(frame)) % kFlows;
          seen[queue].insert(flow);
          if (!flows[flow]->take(tenant::bytes(frame))) wrong.fetch_add(1);
        }
        // In two portions: both belong to the ring that was shown.
        b.release(got.size() / 2, queue);
        b.release(got.size() - got.size() / 2, queue);
        for (const std::uint8_t flow : seen[queue]) flows[flow]->released();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0U);
  EXPECT_TRUE(all([](const auto& flow) { return flow->complete(); }));
  for (const std::uint8_t flow : seen[0]) EXPECT_FALSE(seen[1].contains(flow)) << "flow " << int{flow};
  EXPECT_EQ(seen[0].size() + seen[1].size(), kFlows);
}

TEST(RingTraffic, TcpConnectionStaysInItsQueue) {
  RingSwitch net(2, [](std::size_t, PortSpec& spec) { ring_of(spec).queues = 4; });
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const auto queue_of_next = [&]() -> std::uint32_t {
    std::array<tenant::Frame, 1> place{};
    std::uint32_t found = 99;
    static_cast<void>(eventually([&] {
      for (std::uint32_t queue = 0; queue < 4; ++queue) {
        if (b.peek(place, queue).empty()) continue;
        b.release(1, queue);
        found = queue;
        return true;
      }
      return false;
    }));
    return found;
  };
  for (const bool ipv6 : {false, true}) {
    std::set<std::uint32_t> used;
    for (std::size_t port = 5000; port < 5032; ++port) {
      std::set<std::uint32_t> queues;
      for (std::size_t i = 0; i < 5; ++i) {
        BuiltFrame frame = build({.ipv6 = ipv6, .sequence = i * 1000, .id = i, .payload = 10 + i, .gso_size = 0});
        std::memcpy(frame.bytes.data(), kB.bytes.data(), 6);
        std::memcpy(frame.bytes.data() + 6, kA.bytes.data(), 6);
        set16(frame.bytes, frame.l4, port);
        ASSERT_TRUE(send(a, frame.bytes));
        queues.insert(queue_of_next());
      }
      EXPECT_EQ(queues.size(), 1U) << "port " << port;
      used.merge(queues);
    }
    EXPECT_EQ(used, (std::set<std::uint32_t>{0, 1, 2, 3})) << "connections spread";
  }
}

TEST(RingTraffic, AccessPortsAreUntaggedInside) {
  RingSwitch net(3, [](std::size_t i, PortSpec& spec) { spec.vlan = i < 2 ? 100 : 0; });
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const auto to_b = plain(kB, kA, 1);
  ASSERT_TRUE(send(a, to_b));
  EXPECT_EQ(receive(b).bytes, to_b);

  const auto to_wire = plain(kPeer, kA, 2);
  ASSERT_TRUE(send(a, to_wire));
  ASSERT_TRUE(eventually([&] { return net.wire().sent_count() == 1; }));
  const LoopFrame out = net.wire().sent(0);
  EXPECT_EQ(out.vlan, 100);
  EXPECT_TRUE(std::equal(out.bytes.begin(), out.bytes.end(), to_wire.begin(), to_wire.end()));

  const auto from_wire = plain(kA, kPeer, 3);
  ASSERT_TRUE(net.wire().inject(from_wire, 0x6064));  // priority 3, VLAN 100
  EXPECT_EQ(receive(a).bytes, from_wire) << "the tag does not reach the tenant";
}

TEST(RingTraffic, TransparentPortsSeeTags) {
  RingSwitch net(1);
  tenant::Port a(net.socket(0), {.features = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4 | VSWITCH_FEATURE_ECN});
  for (const std::size_t length : {60U, 61U, 64U, 123U, 124U, 128U, 129U, 1500U}) {
    const auto untagged = plain(kA, kPeer, length, length);
    ASSERT_TRUE(net.wire().inject(untagged, 0x6007));
    std::vector<std::byte> tagged = untagged;
    const std::array<std::byte, 4> tag{std::byte{0x81}, std::byte{0}, std::byte{0x60}, std::byte{7}};
    tagged.insert(tagged.begin() + 12, tag.begin(), tag.end());
    EXPECT_EQ(receive(a).bytes, tagged) << length;
  }
  BuiltFrame unfinished = build({});
  std::memcpy(unfinished.bytes.data(), kA.bytes.data(), 6);
  ASSERT_TRUE(net.wire().inject(unfinished.bytes, 7, unfinished.offload));
  const Received got = receive(a);
  EXPECT_EQ(got.bytes.size(), unfinished.bytes.size() + 4);
  EXPECT_EQ(got.offload.csum_start, unfinished.offload.csum_start + 4) << "offsets move with the tag";
  EXPECT_EQ(got.offload.gso_size, unfinished.offload.gso_size);
}

TEST(RingTraffic, UnfinishedFramesGoOnlyToWhoAskedForThem) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  BuiltFrame frame = build({.flags = 0x010});
  std::memcpy(frame.bytes.data(), kB.bytes.data(), 6);
  std::memcpy(frame.bytes.data() + 6, kA.bytes.data(), 6);
  {
    tenant::Port b(net.socket(1), {.features = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4});
    ASSERT_TRUE(send(a, frame.bytes, frame.offload));
    const Received whole = receive(b);
    EXPECT_EQ(whole.bytes, frame.bytes);
    EXPECT_EQ(whole.offload, frame.offload);
  }
  ASSERT_TRUE(eventually([&] { return !net.attached(1); }));
  tenant::Port b(net.socket(1));
  ASSERT_TRUE(send(a, frame.bytes, frame.offload));
  std::size_t payload = 0;
  for (int segment = 0; segment < 3; ++segment) {
    const Received cut = receive(b);
    ASSERT_GT(cut.bytes.size(), frame.header_length);
    EXPECT_EQ(cut.offload, Offload{});
    EXPECT_TRUE(is_finished(cut.bytes, frame, false, true)) << "segment " << segment;
    payload += cut.bytes.size() - frame.header_length;
  }
  EXPECT_EQ(payload, 3500U);
}

/// Each round puts everybody to sleep: both tenants and the worker. A lost wake-up stops it.
TEST(RingWaking, PingPongOfSleepers) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const std::uint64_t rounds = kSlow ? 2000 : 10'000;
  std::thread echo([&] {
    for (std::uint64_t i = 0; i < rounds; ++i) {
      const Received got = receive(b);
      ASSERT_EQ(got.bytes, plain(kB, kA, i)) << i;
      ASSERT_TRUE(send(b, plain(kA, kB, i)));
    }
  });
  std::minstd_rand random(1);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    if (random() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
    ASSERT_TRUE(send(a, plain(kB, kA, i)));
    ASSERT_EQ(receive(a).bytes, plain(kA, kB, i)) << i;
  }
  echo.join();
  EXPECT_GT(net.port(1).counters(0).wakeups.read(), 0U);
}

TEST(RingWaking, EventLoopIsToldByItsDescriptor) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const auto readable = [&](int timeout_ms) {
    pollfd event{b.fd(), POLLIN, 0};
    return ::poll(&event, 1, timeout_ms) == 1;
  };
  ASSERT_EQ(b.arm(), 0);
  EXPECT_FALSE(readable(50)) << "nothing came";
  for (std::uint64_t i = 0; i < (kSlow ? 300 : 2000); ++i) {
    ASSERT_TRUE(send(a, plain(kB, kA, i)));
    ASSERT_TRUE(readable(10'000)) << i;
    ASSERT_EQ(receive(b).bytes, plain(kB, kA, i));
    ASSERT_EQ(b.arm(), 0);
  }
  ASSERT_TRUE(send(a, plain(kB, kA, 1)));
  ASSERT_TRUE(eventually([&] { return b.arm() == 1; })) << "armed while frames are there";
  EXPECT_FALSE(receive(b).bytes.empty());
  net.stop_port(1);
  EXPECT_TRUE(readable(10'000)) << "the end of the switch wakes too";
  EXPECT_EQ(b.arm(), -ENOTCONN);
  EXPECT_EQ(b.fd(), -ENOTCONN);
}

TEST(RingWaking, WaitEndsInTime) {
  RingSwitch net(1);
  tenant::Port a(net.socket(0));
  const Nanoseconds start = monotonic_now();
  EXPECT_FALSE(a.wait(120ms));
  EXPECT_GE(monotonic_now() - start, 119 * kMillisecond);
  net.stop_port(0);
  EXPECT_FALSE(a.wait(120ms)) << "with the switch away too";
  EXPECT_EQ(vswitch_wait(a.get(), 99, 0), -EINVAL);
}

/// A tenant is killed in the middle of its traffic; its neighbours lose nothing and its place is free at once.
/// A process that attaches to the port it is told and floods it until it is killed. To be made before there is any
/// other thread: what a lock of the allocator guards at the moment of fork() is locked in the child for good.
class Flooder {
 public:
  Flooder() {
    if (::pipe(pipe_.data()) != 0) throw_errno("make", "a pipe");
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::array<char, 108> path{};
    if (::read(pipe_[0], path.data(), path.size() - 1) <= 0) ::_exit(1);
    tenant::Port a(path.data());
    const auto frame = plain(kB, kA, 1);
    for (;;) send(a, frame);
  }
  ~Flooder() {
    end();
    for (const int fd : pipe_) ::close(fd);
  }
  Flooder(const Flooder&) = delete;
  Flooder& operator=(const Flooder&) = delete;

  void start(const std::string& socket) {
    ASSERT_EQ(::write(pipe_[1], socket.data(), socket.size()), static_cast<ssize_t>(socket.size()));
  }
  void kill() const { ::kill(pid_, SIGKILL); }
  void end() {
    if (pid_ <= 0) return;
    kill();
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }

 private:
  std::array<int, 2> pipe_{};
  pid_t pid_ = 0;
};

TEST(RingLife, KilledTenantIsReplacedWithinASecond) {
  std::array<Flooder, 3> flooders;
  RingSwitch net(4);
  tenant::Port b(net.socket(1));
  tenant::Port c(net.socket(2));
  tenant::Port d(net.socket(3));
  const NumberedFrames frames;
  Flow neighbours(frames, kSlow ? 50'000 : 500'000, 1514);
  std::thread sender([&] { EXPECT_TRUE(neighbours.send(c, kD, kC)); });
  std::uint64_t wrong = 0;
  std::thread receiver([&] { wrong = neighbours.receive(d); });
  for (Flooder& flooder : flooders) {
    flooder.start(net.socket(0));
    for (int i = 0; i < 2000; ++i) EXPECT_FALSE(receive(b).bytes.empty());
    flooder.kill();
    const Nanoseconds killed = monotonic_now();
    EXPECT_TRUE(eventually([&] { return attach_error(net.socket(0)) == 0; }));
    EXPECT_LT(monotonic_now() - killed, kSecond);
    flooder.end();
    while (!receive(b, 50ms).bytes.empty()) continue;
  }
  sender.join();
  receiver.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(RingLife, TenantAttachesAgainByItself) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  for (std::uint64_t round = 1; round < 6; ++round) {
    ASSERT_TRUE(send(a, plain(kB, kA, round)));
    ASSERT_EQ(receive(b).bytes, plain(kB, kA, round));
    EXPECT_EQ(b.info().attachments, round);
    std::thread waiting([&] { EXPECT_TRUE(b.wait(20s)) << "asleep across the restart"; });
    net.stop_port(1);
    std::this_thread::sleep_for(30ms);
    net.start_port(1);
    ASSERT_TRUE(eventually([&] { return net.attached(1); }));
    ASSERT_TRUE(send(a, plain(kB, kA, 100 + round)));
    waiting.join();
    ASSERT_EQ(receive(b).bytes, plain(kB, kA, 100 + round));
  }
}

TEST(RingLife, PolledTenantAttachesAgainToo) {
  RingSwitch net(1);
  tenant::Port a(net.socket(0));
  std::array<tenant::Frame, 1> place{};
  net.stop_port(0);
  net.start_port(0);
  EXPECT_TRUE(eventually([&] {
    for (int i = 0; i < 1000; ++i) static_cast<void>(a.peek(place));
    return a.info().attachments == 2;
  }));
  place[0].length = 64;
  net.stop_port(0);
  net.start_port(0);
  EXPECT_TRUE(eventually([&] {  // one that only sends finds out when nobody makes room any more
    for (int i = 0; i < 1000; ++i) a.commit(a.reserve(place));
    return a.info().attachments == 3;
  }));
}

/// What a thread was shown or given stays mapped until it moves on, whatever becomes of the switch.
TEST(RingLife, FramesInHandOutliveTheirAttachment) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  const auto frame = plain(kB, kA, 7);
  ASSERT_TRUE(send(a, frame));
  ASSERT_TRUE(b.wait(10s));
  std::array<tenant::Frame, 1> shown{};
  ASSERT_EQ(b.peek(shown).size(), 1U);
  std::array<tenant::Frame, 2> held{};
  held[0].length = held[1].length = 100;
  ASSERT_EQ(b.reserve(held).size(), 2U);
  net.stop_port(1);
  net.start_port(1);
  EXPECT_EQ(b.arm(), -ENOTCONN) << "a frame in hand keeps the old attachment";
  EXPECT_TRUE(b.wait(0ms)) << "it is still there";
  EXPECT_TRUE(std::ranges::equal(tenant::bytes(shown[0]), frame));
  b.release(1);
  ASSERT_TRUE(eventually([&] { return b.arm() == 0; })) << "now it attaches again";
  std::memset(held[0].data, 0xff, 100);  // still mapped
  b.commit(held);                        // and lost
  EXPECT_EQ(b.info().attachments, 2U);
  ASSERT_TRUE(send(b, plain(kA, kB, 8)));
  EXPECT_EQ(receive(a).bytes, plain(kA, kB, 8)) << "the first that arrives is the first of the new attachment";
}

TEST(RingLife, FullRingOfAReaderThatIsGone) {
  RingSwitch net(2, [](std::size_t, PortSpec& spec) { ring_of(spec).ring_frames = 64; });
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1));
  for (std::uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(send(a, plain(kB, kA, i)));
  ASSERT_TRUE(eventually([&] { return net.drops(1, Drop::dest_full) == 36; })) << net.drops(1, Drop::dest_full);
  for (std::uint64_t i = 0; i < 64; ++i) ASSERT_EQ(receive(b).bytes, plain(kB, kA, i));
  ASSERT_TRUE(send(a, plain(kB, kA, 200)));
  EXPECT_EQ(receive(b).bytes, plain(kB, kA, 200));
}

}  // namespace
}  // namespace vswitch::test
