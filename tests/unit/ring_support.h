#pragma once
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vswitch/vswitch.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ports/loop/loop_port.h"
#include "ports/ring/ring_port.h"
#include "tests/ports/test_reactor.h"
#include "vswitch/base/error.h"
#include "vswitch/core/datapath.h"
#include "vswitch/core/table.h"

// A whole switch of ring ports with real workers, and the tenants that attach to it: through libvswitch, or by hand.

namespace vswitch::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSlow = true;
#elif defined(__has_feature)
inline constexpr bool kSlow = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSlow = false;
#endif

inline Mac mac(std::uint8_t last) { return {{0x02, 0, 0, 0, 0, last}}; }

/// A folder that goes with its contents.
class TempFolder {
 public:
  TempFolder() {
    if (::mkdtemp(path_.data()) == nullptr) throw_errno("make", "a folder for sockets");
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/vswitch-ring-XXXXXX";
};

/// CPUs this process may use, the first `count` of them (over again if there are fewer).
inline std::vector<int> cpus(std::size_t count) {
  cpu_set_t allowed;
  ::sched_getaffinity(0, sizeof(allowed), &allowed);
  std::vector<int> all;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) all.push_back(cpu);
  }
  std::vector<int> some;
  for (std::size_t i = 0; i < count; ++i) some.push_back(all[i % all.size()]);
  return some;
}

/// A ring port's attachment for this user.
inline RingAttachSpec attach_at(std::string socket) {
  RingAttachSpec attach;
  attach.socket = std::move(socket);
  attach.uid = ::geteuid();
  return attach;
}

/// Ring ports "a", "b", ... with mac(0x0a), mac(0x0b), ...; a loop uplink; real workers; a control thread.
class RingSwitch {
 public:
  /// @param adjust called with each port's number and its PortSpec, before it is made
  explicit RingSwitch(std::size_t ports, const std::function<void(std::size_t, PortSpec&)>& adjust = {},
                      std::size_t workers = 1, Idle idle = Idle::sleep)
      : quiescence_(workers),
        context_{reactor_, quiescence_, workers, {}, 0, [] {}},
        datapath_({workers == 1 ? std::vector<int>{} : cpus(workers), idle}, quiescence_),
        wire_(workers) {
    wire_.start();
    for (std::size_t i = 0; i < ports; ++i) {
      PortSpec& spec = specs_.emplace_back();
      spec.tenant = "t";
      spec.name = std::string(1, static_cast<char>('a' + i));
      spec.uplink = "lan";
      spec.mac = mac(static_cast<std::uint8_t>(0x0a + i));
      spec.mtu = 1500;
      spec.attach = attach_at(folder_.path() + "/" + spec.name + ".sock");
      if (adjust) adjust(i, spec);
      ports_.push_back(std::make_unique<RingPort>(spec, context_));
    }
    datapath_.add_port(0, wire_);
    for (std::size_t i = 0; i < ports; ++i) start_here(i);
    publish();
    datapath_.start();
    control_ = std::thread([this] { control(); });
  }
  ~RingSwitch() {
    stop_.store(true);
    control_.join();
    datapath_.stop();
    for (const auto& port : ports_) port->stop();
  }
  RingSwitch(const RingSwitch&) = delete;
  RingSwitch& operator=(const RingSwitch&) = delete;

  [[nodiscard]] std::string socket(std::size_t i) const { return std::get<RingAttachSpec>(specs_[i].attach).socket; }
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }
  [[nodiscard]] const PortSpec& spec(std::size_t i) const { return specs_[i]; }
  [[nodiscard]] RingPort& port(std::size_t i) { return *ports_[i]; }
  [[nodiscard]] LoopQueue& wire() { return wire_.queue(0); }
  [[nodiscard]] Quiescence& quiescence() { return quiescence_; }
  [[nodiscard]] std::uint64_t drops(std::size_t i, Drop reason) const {
    std::uint64_t sum = 0;
    for (std::size_t w = 0; w < context_.workers; ++w) {
      sum += ports_[i]->counters(w).drops[static_cast<std::size_t>(reason)].read();
    }
    return sum;
  }

  /// Runs `job` on the control thread and waits for it.
  void on_control(std::function<void()> job) {
    std::packaged_task<void()> task(std::move(job));
    std::future<void> done = task.get_future();
    {
      const std::scoped_lock lock(mutex_);
      jobs_.push_back(std::move(task));
    }
    done.get();
  }
  /// As a daemon that ends, then one that begins, for one port.
  void stop_port(std::size_t i) {
    on_control([this, i] {
      running_[i] = false;
      publish();
      datapath_.remove_port(*ports_[i]);
      ports_[i]->stop();
    });
  }
  void start_port(std::size_t i) {
    on_control([this, i] {
      start_here(i);
      publish();
    });
  }
  [[nodiscard]] bool attached(std::size_t i) {
    bool up = false;
    on_control([&] { up = ports_[i]->status().link_up; });
    return up;
  }

 private:
  void start_here(std::size_t i) {
    ports_[i]->start();
    datapath_.add_port(static_cast<PortId>(i + 1), *ports_[i]);
    running_.resize(ports_.size());
    running_[i] = true;
  }
  void publish() {
    TableBuilder builder(context_.workers);
    builder.add_uplink(0, "lan", wire_, 1500);
    for (std::size_t i = 0; i < ports_.size(); ++i) {
      if (running_[i]) builder.add_tenant(static_cast<PortId>(i + 1), specs_[i], 0, *ports_[i]);
    }
    datapath_.publish(builder.build());
  }
  void control() {
    while (!stop_.load()) {
      reactor_.run_once(2);
      std::vector<std::packaged_task<void()>> jobs;
      {
        const std::scoped_lock lock(mutex_);
        jobs.swap(jobs_);
      }
      for (auto& job : jobs) job();
    }
  }

  TempFolder folder_;
  TestReactor reactor_;
  Quiescence quiescence_;
  PortContext context_;
  Datapath datapath_;
  LoopPort wire_;
  std::vector<PortSpec> specs_;
  std::vector<std::unique_ptr<RingPort>> ports_;
  std::vector<bool> running_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<std::packaged_task<void()>> jobs_;
  std::thread control_;
};

/// Waits until `done`; false after `timeout`.
inline bool eventually(const std::function<bool()>& done, Nanoseconds timeout = 10 * kSecond) {
  const Nanoseconds end = monotonic_now() + timeout;
  while (!done()) {
    if (monotonic_now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// Frames whose every byte follows from their number. Bytes: addresses, type 0x88b5, number (8), flow (1), pattern.
class NumberedFrames {
 public:
  static constexpr std::uint32_t kShortest = 23;
  NumberedFrames() {
    std::mt19937_64 random(7);
    for (auto& byte : pattern_) byte = static_cast<std::byte>(random());
  }
  void write(std::span<std::byte> to, const Mac& dst, const Mac& src, std::uint64_t number, std::uint8_t flow) const {
    std::memcpy(to.data(), dst.bytes.data(), 6);
    std::memcpy(to.data() + 6, src.bytes.data(), 6);
    to[12] = std::byte{0x88};
    to[13] = std::byte{0xb5};
    std::memcpy(to.data() + 14, &number, sizeof(number));
    to[22] = std::byte{flow};
    std::memcpy(to.data() + kShortest, body(number, flow), to.size() - kShortest);
  }
  static std::uint64_t number(std::span<const std::byte> frame) {
    std::uint64_t number;
    std::memcpy(&number, frame.data() + 14, sizeof(number));
    return number;
  }
  static std::uint8_t flow(std::span<const std::byte> frame) { return std::to_integer<std::uint8_t>(frame[22]); }
  [[nodiscard]] bool intact(std::span<const std::byte> frame) const {
    return frame.size() >= kShortest && frame[12] == std::byte{0x88} && frame[13] == std::byte{0xb5} &&
           std::memcmp(frame.data() + kShortest, body(number(frame), flow(frame)), frame.size() - kShortest) == 0;
  }

 private:
  [[nodiscard]] const std::byte* body(std::uint64_t number, std::uint8_t flow) const {
    return pattern_.data() + (number * 8191 + flow * 101U) % (pattern_.size() - VSWITCH_RING_MAX_FRAME);
  }
  std::vector<std::byte> pattern_ = std::vector<std::byte>(2 * VSWITCH_RING_MAX_FRAME);
};

/// One flow from tenant to tenant that never sends more than the receiver has room for: what is missing was lost.
class Flow {
 public:
  Flow(const NumberedFrames& frames, std::uint64_t count, std::uint32_t longest, std::uint8_t id = 0)
      : frames_(frames), count_(count), longest_(longest), id_(id), random_(id + 1U) {}

  /// Sends a few frames from `port`. @return how many; 0: the receiver has no room, or all is sent
  std::size_t send_some(tenant::Port& port, const Mac& dst, const Mac& src, std::uint32_t queue = 0) {
    std::array<tenant::Frame, 16> batch{};
    const std::size_t most = std::min<std::uint64_t>({1 + random_() % batch.size(), count_ - sent_, room()});
    std::size_t wanted = 0;
    for (std::size_t bytes = 0; wanted < most && bytes < kBytesUnderWay; bytes += batch[wanted++].length) {
      batch[wanted].length = length();
    }
    if (wanted == 0) return 0;
    const auto reserved = port.reserve(std::span(batch).first(wanted), queue);
    for (tenant::Frame& frame : reserved) {
      bytes_sent_ += frame.length;
      frames_.write(tenant::room(frame), dst, src, sent_++, id_);
    }
    port.commit(reserved, queue);
    return reserved.size();
  }
  [[nodiscard]] bool sent() const { return sent_ == count_; }
  /// Sends from `port` until all is sent. @return false when the receiver makes no progress for 20 s
  bool send(tenant::Port& port, const Mac& dst, const Mac& src, std::uint32_t queue = 0) {
    for (Nanoseconds last = monotonic_now(); !sent();) {
      if (send_some(port, dst, src, queue) != 0) {
        last = monotonic_now();
      } else if (monotonic_now() - last > 20 * kSecond) {
        return false;
      } else {
        std::this_thread::yield();
      }
    }
    return true;
  }
  /// Receiver: takes one frame of this flow. False: it is not the next one, or not as it was sent.
  bool take(std::span<const std::byte> frame) {
    const bool good = frames_.intact(frame) && NumberedFrames::number(frame) == taken_;
    taken_ = NumberedFrames::number(frame) + 1;
    bytes_taken_ += frame.size();
    return good;
  }
  /// Receiver: what was taken has been released, so its room may be used again.
  void released() {
    bytes_received_.store(bytes_taken_);
    received_.store(taken_);
  }
  [[nodiscard]] bool complete() const { return received_.load() >= count_; }
  [[nodiscard]] std::uint64_t received() const { return received_.load(); }

  /// Receives on queue 0 of `port` until the flow is complete. @return frames that were wrong, or missing after 20 s
  std::uint64_t receive(tenant::Port& port) {
    std::uint64_t wrong = 0;
    std::array<tenant::Frame, 64> batch;
    while (!complete()) {
      if (!port.wait(std::chrono::seconds(20))) return wrong + count_ - received();
      const auto frames = port.peek(batch);
      for (const tenant::Frame& frame : frames) wrong += take(tenant::bytes(frame)) ? 0 : 1;
      port.release(frames.size());
      released();
    }
    return wrong;
  }

 private:
  static constexpr std::uint64_t kBytesUnderWay = 32 << 10;  ///< and a batch more; far less than the smallest arena
  /// Frames that may be sent now: 48 may be under way.
  [[nodiscard]] std::uint64_t room() const {
    const std::uint64_t under_way = sent_ - received_.load();
    return under_way >= 48 || bytes_sent_ - bytes_received_.load() > kBytesUnderWay ? 0 : 48 - under_way;
  }
  std::uint32_t length() {
    const std::uint32_t span = longest_ - NumberedFrames::kShortest;
    const std::uint32_t most = random_() % 32 == 0 ? span : std::min(span, 400U);
    return NumberedFrames::kShortest + static_cast<std::uint32_t>(random_() % (most + 1));
  }
  const NumberedFrames& frames_;
  const std::uint64_t count_;
  const std::uint32_t longest_;
  const std::uint8_t id_;
  std::minstd_rand random_;
  std::uint64_t sent_ = 0;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t bytes_taken_ = 0;
  std::atomic<std::uint64_t> received_{0};
  std::atomic<std::uint64_t> bytes_received_{0};
};

/// A tenant that attaches by hand: sees every byte it may see, writes every byte it may write.
class RawTenant {
 public:
  static Fd connect(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      throw_errno("connect to", path);
    }
    return fd;
  }
  static vswitch_hello hello() {
    vswitch_hello hello{};
    hello.magic = VSWITCH_RING_MAGIC;
    hello.version_min = hello.version_max = VSWITCH_RING_VERSION;
    return hello;
  }

  explicit RawTenant(const std::string& path) : control(connect(path)) {
    const vswitch_hello greeting = hello();
    if (::send(control.get(), &greeting, sizeof(greeting), 0) < 0) throw_errno("say hello to", path);
    receive_welcome();
    if (welcome.error != 0) throw Error(welcome.error, "attach to", path, welcome.message);
    geometry = {welcome.queues, welcome.rx_rings, welcome.ring_frames, welcome.arena_bytes, welcome.direct_bytes};
    switch_memory = Mapping::shared(fds[0].get(), vswitch_switch_memory_bytes(&geometry), false);
    tenant_memory = Mapping::shared(fds[1].get(), vswitch_tenant_memory_bytes(&geometry), true);
  }

  [[nodiscard]] std::atomic_ref<std::uint32_t> head() { return word(tx_block()); }
  [[nodiscard]] vswitch_descriptor& descriptor(std::uint32_t index) {
    auto* all = reinterpret_cast<vswitch_descriptor*>(tx_block() + vswitch_descriptors_offset());
    return all[index & (geometry.ring_frames - 1)];
  }
  [[nodiscard]] std::byte* arena() { return tx_block() + vswitch_arena_offset(&geometry); }
  /// How far the switch has come with our frames.
  [[nodiscard]] std::uint32_t switch_tail() const { return word(switch_memory.data()).load(); }
  [[nodiscard]] std::uint32_t switch_head() const { return word(rx_block()).load(); }
  [[nodiscard]] std::atomic_ref<std::uint32_t> tail() { return word(tenant_memory.data()); }
  [[nodiscard]] std::atomic_ref<std::uint32_t> need_wake() {
    return word(tenant_memory.data() + offsetof(vswitch_consumer_lines, need_wake));
  }
  [[nodiscard]] std::span<const std::byte> received(std::uint32_t index) const {
    vswitch_descriptor d;
    const std::byte* all = rx_block() + vswitch_descriptors_offset();
    std::memcpy(&d, all + (index & (geometry.ring_frames - 1)) * sizeof(d), sizeof(d));
    return {rx_block() + vswitch_arena_offset(&geometry) + d.offset, d.length};
  }
  /// Publishes descriptors up to `index` and rings the doorbell.
  void publish(std::uint32_t index) {
    head().store(index);
    const std::uint64_t one = 1;
    if (::write(fds[2].get(), &one, sizeof(one)) < 0) throw_errno("ring", "the doorbell");
  }

  Fd control;
  vswitch_welcome welcome{};
  vswitch_geometry geometry{};
  std::vector<Fd> fds;  ///< as in vswitch_welcome
  Mapping switch_memory;
  Mapping tenant_memory;

 private:
  static std::atomic_ref<std::uint32_t> word(std::byte* at) {
    return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(at));
  }
  [[nodiscard]] std::byte* tx_block() const { return tenant_memory.data() + vswitch_tx_producer_offset(&geometry, 0); }
  [[nodiscard]] std::byte* rx_block() const {
    return switch_memory.data() + vswitch_rx_producer_offset(&geometry, 0, 0);
  }
  void receive_welcome() {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(40 * sizeof(int))> space{};
    iovec place{&welcome, sizeof(welcome)};
    msghdr message{};
    message.msg_iov = &place;
    message.msg_iovlen = 1;
    message.msg_control = space.data();
    message.msg_controllen = space.size();
    if (::recvmsg(control.get(), &message, MSG_CMSG_CLOEXEC) != sizeof(welcome)) throw_errno("receive", "a welcome");
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr) return;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      fds.emplace_back(fd);
    }
  }
};

/// Sends one frame; false: no room within 10 s.
inline bool send(tenant::Port& port, std::span<const std::byte> frame, const Offload& offload = {},
                 std::uint32_t queue = 0) {
  std::array<tenant::Frame, 1> place{};
  place[0].length = static_cast<std::uint32_t>(frame.size());
  if (!eventually([&] { return !port.reserve(place, queue).empty(); })) return false;
  std::memcpy(place[0].data, frame.data(), frame.size());
  place[0].offload = std::bit_cast<vswitch_offload>(offload);
  port.commit(place, queue);
  return true;
}

struct Received {
  std::vector<std::byte> bytes;
  Offload offload;
};
/// The next frame; an empty one when none comes within `limit`.
inline Received receive(tenant::Port& port, std::chrono::milliseconds limit = std::chrono::seconds(10),
                        std::uint32_t queue = 0) {
  const Nanoseconds end = monotonic_now() + static_cast<Nanoseconds>(limit.count()) * kMillisecond;
  std::array<tenant::Frame, 1> place{};
  do {
    port.wait(std::min(limit, std::chrono::milliseconds(1000)), queue);
    const auto got = port.peek(place, queue);
    if (got.empty()) continue;
    const auto data = tenant::bytes(got[0]);
    Received received{{data.begin(), data.end()}, std::bit_cast<Offload>(got[0].offload)};
    port.release(1, queue);
    return received;
  } while (monotonic_now() < end);
  return {};
}

/// A numbered frame of flow 0.
inline std::vector<std::byte> plain(const Mac& dst, const Mac& src, std::uint64_t number, std::size_t length = 100) {
  static const NumberedFrames frames;
  std::vector<std::byte> frame(length);
  frames.write(frame, dst, src, number, 0);
  return frame;
}

/// Descriptors this process has open.
inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

/// The errno an attempt to attach ends with; 0: it succeeded.
inline int attach_error(const std::string& socket, const tenant::Options& options = {}) {
  try {
    const tenant::Port port(socket, options);
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

}  // namespace vswitch::test
