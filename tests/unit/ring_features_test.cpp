// Changing features of an attachment that lives on: what arrives before and after, and what a client may not do with
// it. Real sockets, memory and workers; run as root.

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/unit/offload_frames.h"
#include "tests/unit/ring_support.h"

namespace vswitch::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kTso = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4 | VSWITCH_FEATURE_ECN;
constexpr std::uint32_t kAll = kTso | VSWITCH_FEATURE_TSO6 | VSWITCH_FEATURE_USO;

/// A frame from port a to port b.
BuiltFrame a_to_b(const FrameSpec& spec = {}) {
  BuiltFrame frame = build(spec);
  frame.bytes[5] = std::byte{0x0b};
  frame.bytes[11] = std::byte{0x0a};
  return frame;
}

Nanoseconds cpu_time() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<Nanoseconds>(used.tv_sec) * kSecond + static_cast<Nanoseconds>(used.tv_nsec);
}

/// Keeps a RingSwitch's control thread from doing anything until released.
class Pause {
 public:
  explicit Pause(RingSwitch& net)
      : held_(std::async(std::launch::async, [this, &net] {
          net.on_control([this] {
            begun_.set_value();
            go_.get_future().wait();
          });
        })) {
    begun_.get_future().wait();
  }
  void release() {
    go_.set_value();
    held_.get();
  }

 private:
  std::promise<void> begun_;
  std::promise<void> go_;
  std::future<void> held_;
};

TEST(RingFeatures, TheSameFrameWholeThenInSegmentsThenWhole) {
  RingSwitch net(2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1), {.features = kTso});
  const BuiltFrame frame = a_to_b();
  const auto comes_whole = [&] {
    if (!send(a, frame.bytes, frame.offload)) return false;
    const Received got = receive(b);
    return got.bytes == frame.bytes && got.offload == frame.offload;
  };
  EXPECT_TRUE(comes_whole());
  ASSERT_EQ(b.set_features(0), 0);
  EXPECT_EQ(b.info().features, 0U);
  ASSERT_TRUE(send(a, frame.bytes, frame.offload));
  for (const std::size_t payload : {1448UL, 1448UL, 604UL}) {
    const Received got = receive(b);
    EXPECT_EQ(got.bytes.size(), frame.header_length + payload);
    EXPECT_EQ(got.offload, Offload{});
    EXPECT_TRUE(is_finished(got.bytes, frame, false, true));
  }
  ASSERT_EQ(b.set_features(VSWITCH_FEATURE_CSUM), 0);
  ASSERT_TRUE(send(a, frame.bytes, frame.offload));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(receive(b).offload.flags, Offload::kNeedsChecksum) << "cut, and not finished";
  ASSERT_EQ(b.set_features(kTso), 0);
  EXPECT_EQ(b.info().features, kTso);
  EXPECT_TRUE(comes_whole());
  EXPECT_EQ(b.info().attachments, 1U);
  EXPECT_EQ(a.info().attachments, 1U);
}

TEST(RingFeatures, GrantsWhatItKnowsAndMakesSense) {
  RingSwitch net(1);
  tenant::Port port(net.socket(0), {.features = kAll});
  EXPECT_EQ(port.info().features, kAll);
  ASSERT_EQ(port.set_features(~0U), 0);
  EXPECT_EQ(port.info().features, kAll);
  ASSERT_EQ(port.set_features(kAll & ~VSWITCH_FEATURE_CSUM), 0);
  EXPECT_EQ(port.info().features, 0U);
  EXPECT_EQ(net.port(0).queue(0).offloads(), OffloadCaps{});
}

TEST(RingFeatures, GrantsWhatIsPermittedAndTellsWhenThatChanges) {
  RingSwitch net(1, [](std::size_t, PortSpec& spec) { spec.offloads = {.checksum = true, .tso4 = true}; });
  tenant::Port port(net.socket(0), {.features = kAll});
  constexpr std::uint32_t kTso4 = VSWITCH_FEATURE_CSUM | VSWITCH_FEATURE_TSO4;
  EXPECT_EQ(port.info().features, kTso4);
  const auto permit = [&](OffloadCaps caps) { net.on_control([&, caps] { net.port(0).permit(caps); }); };
  permit(OffloadCaps::all());
  EXPECT_EQ(port.info().features, kAll) << "what it asked for is not forgotten";
  permit({});
  EXPECT_EQ(port.info().features, 0U);
  EXPECT_EQ(net.port(0).queue(0).offloads(), OffloadCaps{});
  ASSERT_EQ(port.set_features(kTso), 0);
  EXPECT_EQ(port.info().features, 0U);
  permit({.checksum = true, .tso4 = true, .tso6 = true, .ecn = true});
  EXPECT_EQ(port.info().features, kTso);
  EXPECT_EQ(port.info().attachments, 1U);
  PortStatus status;
  net.on_control([&] { status = net.port(0).status(); });
  EXPECT_EQ(status.offloads_requested, (OffloadCaps{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true}));
  EXPECT_EQ(status.offloads_why_not, "the tenant does not ask for tso6");
}

TEST(RingFeatures, WhoReadsNoAnswersIsToldInVain) {
  RingSwitch net(1);
  const tenant::Port port(net.socket(0), {.features = kAll});
  for (int i = 0; i < 2000; ++i) {  // more than a socket's buffer holds
    net.on_control([&] { net.port(0).permit(i % 2 == 0 ? OffloadCaps{} : OffloadCaps::all()); });
  }
  EXPECT_TRUE(net.attached(0));
  EXPECT_EQ(net.port(0).queue(0).offloads(), OffloadCaps::all());
}

TEST(RingFeatures, TakingBackWaitsForTheWorkersAddingDoesNot) {
  const TempFolder folder;
  TestReactor reactor;
  Quiescence quiescence(1);
  PortContext context{reactor, quiescence, 1, {}, 0, [] {}};
  PortSpec spec;
  spec.attach = attach_at(folder.path() + "/port.sock");
  RingPort ring(spec, context);
  ring.start();
  {
    const std::jthread control([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) reactor.run_once(2);
    });
    tenant::Port port(folder.path() + "/port.sock", {.features = VSWITCH_FEATURE_CSUM, .timeout = 10s});
    quiescence.online(0);  // a worker begins a step, and may have looked at the features
    EXPECT_EQ(port.set_features(kAll), 0);
    auto answer = std::async(std::launch::async, [&] { return port.set_features(VSWITCH_FEATURE_CSUM); });
    EXPECT_EQ(answer.wait_for(200ms), std::future_status::timeout) << "the step is not over";
    quiescence.online(0);
    EXPECT_EQ(answer.get(), 0);
    quiescence.offline(0);
  }
  ring.stop();
}

TEST(RingFeatures, NothingUnfinishedComesAfterItWasTakenBack) {
  RingSwitch net(2, {}, 2);
  tenant::Port a(net.socket(0));
  tenant::Port b(net.socket(1), {.features = VSWITCH_FEATURE_CSUM});
  const std::jthread sender([&](const std::stop_token& stop) {
    const BuiltFrame frame = a_to_b({.payload = 20, .gso_size = 0});
    std::array<tenant::Frame, 16> batch{};
    while (!stop.stop_requested()) {
      for (tenant::Frame& place : batch) place.length = static_cast<std::uint32_t>(frame.bytes.size());
      const auto reserved = a.reserve(batch);
      for (tenant::Frame& place : reserved) {
        std::memcpy(place.data, frame.bytes.data(), frame.bytes.size());
        place.offload = std::bit_cast<vswitch_offload>(frame.offload);
      }
      a.commit(reserved);
      std::this_thread::yield();
    }
  });
  struct Taken {
    std::size_t frames = 0;
    std::size_t unfinished = 0;
    std::size_t last_burst = 1;
  };
  const auto take_until = [&](const std::function<bool(const Taken&)>& done) {
    Taken taken;
    while (!done(taken)) {
      std::array<tenant::Frame, 64> frames;
      const auto got = b.peek(frames);
      for (const tenant::Frame& frame : got) taken.unfinished += tenant::checksum(frame) == tenant::Checksum::partial;
      b.release(got.size());
      taken.last_burst = got.size();
      taken.frames += got.size();
    }
    return taken;
  };
  for (int round = 0; round < (kSlow ? 20 : 60); ++round) {
    ASSERT_EQ(b.set_features(0), 0);
    take_until([](const Taken& taken) { return taken.last_burst == 0; });
    EXPECT_EQ(take_until([](const Taken& taken) { return taken.frames > 100; }).unfinished, 0U) << round;
    ASSERT_EQ(b.set_features(VSWITCH_FEATURE_CSUM), 0);
    // Finished ones still lie in the ring, as many as fit.
    constexpr std::size_t kPatience = 100'000;
    const Taken after =
        take_until([](const Taken& taken) { return taken.unfinished != 0 || taken.frames > kPatience; });
    EXPECT_GT(after.unfinished, 0U) << round;
  }
}

TEST(RingFeatures, OtherThreadsGoOn) {
  RingSwitch net(2, [](std::size_t, PortSpec& spec) { std::get<RingAttachSpec>(spec.attach).queues = 4; });
  tenant::Port port(net.socket(0));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::uint32_t queue = 0; queue < 4; ++queue) {
    threads.emplace_back([&, queue] {
      while (!stop.load()) {
        send(port, plain(mac(0x0b), mac(0x0a), 1), {}, queue);
        port.wait(1ms, queue);
        std::array<tenant::Frame, 8> frames;
        port.release(port.peek(frames, queue).size(), queue);
        static_cast<void>(port.info());
      }
    });
  }
  for (std::uint32_t i = 0; i < 20; ++i) EXPECT_EQ(port.set_features(i % 2 == 0 ? kAll : 0), 0);
  std::vector<std::thread> askers;
  for (int i = 0; i < 4; ++i) askers.emplace_back([&] { EXPECT_EQ(port.set_features(kTso), 0); });
  for (std::thread& asker : askers) asker.join();
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(port.info().features, kTso);
  EXPECT_EQ(port.info().attachments, 1U);
}

TEST(RingFeatures, TheNextAttachmentAsksForTheLastOnes) {
  RingSwitch net(1);
  tenant::Port port(net.socket(0), {.features = kAll});
  ASSERT_EQ(port.set_features(VSWITCH_FEATURE_CSUM), 0);
  net.stop_port(0);
  EXPECT_EQ(port.set_features(kTso), -ENOTCONN) << "nobody has noticed yet";
  port.wait(10ms);
  EXPECT_EQ(port.info().attached, 0U);
  EXPECT_EQ(port.set_features(kTso), -ENOTCONN);
  net.start_port(0);
  ASSERT_TRUE(eventually([&] {
    port.wait(10ms);
    return port.info().attached == 1;
  }));
  EXPECT_EQ(port.info().attachments, 2U);
  EXPECT_EQ(port.info().features, kTso);
}

TEST(RingFeatures, AnAnswerThatIsLateIsHeardAndDisturbsNobody) {
  RingSwitch net(1);
  tenant::Port port(net.socket(0), {.features = kAll, .timeout = 100ms});
  Pause pause(net);
  EXPECT_EQ(port.set_features(kTso), -ETIMEDOUT);
  EXPECT_EQ(port.set_features(VSWITCH_FEATURE_CSUM), -ETIMEDOUT);
  EXPECT_EQ(port.info().features, kAll);
  pause.release();
  ASSERT_TRUE(eventually([&] { return net.port(0).queue(0).offloads() == OffloadCaps{.checksum = true}; }));
  const Nanoseconds before = cpu_time();
  EXPECT_FALSE(port.wait(500ms)) << "an answer is no frame";
  EXPECT_LT(cpu_time() - before, 250 * kMillisecond) << "waiting spins on the answers that nobody took";
  EXPECT_EQ(port.info().features, VSWITCH_FEATURE_CSUM);
  EXPECT_EQ(port.set_features(0), 0);
  EXPECT_EQ(port.info().features, 0U);
}

TEST(RingFeatures, TheEndIsSeenBehindAnAnswerThatNobodyTook) {
  RingSwitch net(1);
  tenant::Port port(net.socket(0), {.timeout = 100ms});
  Pause pause(net);
  EXPECT_EQ(port.set_features(kAll), -ETIMEDOUT);
  pause.release();
  ASSERT_TRUE(eventually([&] { return net.port(0).queue(0).offloads() == OffloadCaps::all(); }));
  net.stop_port(0);
  port.wait(10ms);
  EXPECT_EQ(port.info().attached, 0U);
}

vswitch_features_request request(std::uint32_t features, std::uint32_t serial = 1) {
  return {VSWITCH_RING_FEATURES_MAGIC, serial, features};
}

TEST(RingFeatures, AnswersEachRequest) {
  RingSwitch net(1);
  RawTenant raw(net.socket(0));
  for (std::uint32_t i = 0; i < 10; ++i) {
    const auto asked = request(i % 2 == 0 ? kTso : ~0U, i * 0x10001);
    ASSERT_EQ(::send(raw.control.get(), &asked, sizeof(asked), 0), ssize_t{sizeof(asked)});
  }
  for (std::uint32_t i = 0; i < 10; ++i) {
    vswitch_features_answer answer{};
    ASSERT_EQ(::recv(raw.control.get(), &answer, sizeof(answer), 0), ssize_t{sizeof(answer)});
    EXPECT_EQ(answer.magic, VSWITCH_RING_FEATURES_MAGIC);
    EXPECT_EQ(answer.serial, i * 0x10001);
    EXPECT_EQ(answer.features, i % 2 == 0 ? kTso : kAll);
  }
}

TEST(RingFeatures, GarbageIsTheEnd) {
  RingSwitch net(2);
  tenant::Port other(net.socket(1), {.features = kAll});
  std::mt19937_64 random(5);
  for (std::size_t size = 1; size < 60; ++size) {
    const RawTenant raw(net.socket(0));
    std::vector<std::byte> garbage(size == 59 ? 100'000 : size);
    for (auto& byte : garbage) byte = static_cast<std::byte>(random());
    if (size % 3 == 0 && size != sizeof(vswitch_features_request)) {  // right, but for its length
      const auto good = request(kAll);
      std::memcpy(garbage.data(), &good, std::min(size, sizeof(good)));
    }
    ASSERT_EQ(::send(raw.control.get(), garbage.data(), garbage.size(), 0), static_cast<ssize_t>(garbage.size()));
    EXPECT_TRUE(eventually([&] { return !net.attached(0); })) << size;
  }
  EXPECT_EQ(other.info().features, kAll);
  EXPECT_EQ(other.set_features(kTso), 0);
}

TEST(RingFeatures, DescriptorsSentAlongAreNotKept) {
  RingSwitch net(1);
  const RawTenant raw(net.socket(0));
  ASSERT_TRUE(net.attached(0));  // and has closed what it sent
  const std::size_t before = open_descriptors();
  const int sent[2] = {raw.fds[0].get(), raw.fds[1].get()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(sent))> control{};
  auto asked = request(kAll);
  iovec place{&asked, sizeof(asked)};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  *CMSG_FIRSTHDR(&message) = {.cmsg_len = CMSG_LEN(sizeof(sent)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), sent, sizeof(sent));
  ASSERT_GT(::sendmsg(raw.control.get(), &message, 0), 0);
  vswitch_features_answer answer{};
  ASSERT_EQ(::recv(raw.control.get(), &answer, sizeof(answer), 0), ssize_t{sizeof(answer)});
  EXPECT_EQ(open_descriptors(), before);
}

TEST(RingFeatures, AFloodOfRequestsCostsNobodyAnything) {
  RingSwitch net(2);
  RawTenant raw(net.socket(0));
  tenant::Port other(net.socket(1));
  const auto flood = [&] {
    for (std::uint32_t i = 0;; ++i) {
      const auto asked = request(i % 2 == 0 ? kAll : 0);
      if (::send(raw.control.get(), &asked, sizeof(asked), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return errno;
    }
  };
  EXPECT_EQ(flood(), EAGAIN) << "the switch does not hear as fast as we talk";
  const Nanoseconds before = cpu_time();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(other.set_features(i % 2 == 0 ? kAll : 0), 0);
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_LT(cpu_time() - before, 200 * kMillisecond) << "the control thread is kept busy";
  EXPECT_TRUE(eventually([&] { return flood() == EPIPE; }, 60 * kSecond)) << "who takes no answers is hung up on";
  EXPECT_FALSE(net.attached(0));
  EXPECT_EQ(other.info().attachments, 1U);
}

TEST(RingFeatures, WhoLeavesInTheMiddleOfAFloodIsNotInTheWay) {
  RingSwitch net(1);
  for (int round = 0; round < 20; ++round) {
    RawTenant raw(net.socket(0));
    const auto asked = request(kAll);
    for (int i = 0; i < 20; ++i) ASSERT_GT(::send(raw.control.get(), &asked, sizeof(asked), 0), 0);
    raw.control.reset();
    ASSERT_EQ(attach_error(net.socket(0)), 0) << round;
  }
}

}  // namespace
}  // namespace vswitch::test
