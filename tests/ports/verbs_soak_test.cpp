#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ports/ring/ring_port.h"
#include "ports/verbs/verbs_uplink.h"
#include "tests/ports/net_lab.h"
#include "tests/ports/test_reactor.h"
#include "tests/softnic/softnic.h"
#include "vswitch/base/error.h"
#include "vswitch/core/datapath.h"
#include "vswitch/core/table.h"
#include "vswitch/vswitch.h"

// Millions of frames through the verbs uplink, in both directions at once, while queue pairs break, the link flaps and
// interrupts get lost: each frame arrives as it was, in order, or is in exactly one counter.
//
//   cable (thread) == software NIC (thread) == VerbsUplink -- worker (thread) -- 3 RingPorts -- tenants (thread)
//                                                 control: the test's thread

namespace vswitch::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kFrames = 200'000;
#else
constexpr std::uint64_t kFrames = 10'000'000;
#endif

constexpr std::size_t kTenants = 3;
constexpr std::uint16_t kAccessVlan = 100;  // of tenant 0; the others see frames as they are
constexpr std::uint32_t kMtu = 1500;
constexpr std::uint32_t kShortest = 60;
constexpr std::uint32_t kLongest = 1514;
constexpr Mac kPeer{{0x02, 0, 0, 0, 0, 0xff}};
constexpr Mac kNobody{{0x02, 0, 0, 0, 0, 0x99}};

constexpr Mac mac_of(std::size_t tenant) { return {{0x02, 0, 0, 0, 1, static_cast<std::uint8_t>(tenant)}}; }

/// What a frame is: its bytes follow from these. Laid out behind the type: number, tenant, length of the frame.
struct Content {
  std::uint64_t number = 0;
  std::uint32_t length = 0;  ///< without a tag
};

constexpr std::size_t kTypeAt = 12;
constexpr std::size_t kNumberAt = 14;
constexpr std::size_t kLengthAt = 22;
constexpr std::size_t kPatternAt = 26;

std::byte pattern(const Content& content, std::size_t at) {
  return static_cast<std::byte>(content.number * 31 + at * 7 + content.length);
}

void write(std::byte* to, const Mac& dst, const Mac& src, const Content& content) {
  std::memcpy(to, dst.bytes.data(), 6);
  std::memcpy(to + 6, src.bytes.data(), 6);
  to[kTypeAt] = std::byte{0x88};
  to[kTypeAt + 1] = std::byte{0xb5};
  std::memcpy(to + kNumberAt, &content.number, sizeof(content.number));
  std::memcpy(to + kLengthAt, &content.length, sizeof(content.length));
  for (std::size_t at = kPatternAt; at < content.length; ++at) to[at] = pattern(content, at);
}

/// Bytes of a tag: tag_of() of a frame's number, on the wire and for tenants that see tags.
std::uint16_t vlan_of(std::size_t tenant, std::uint64_t number) {
  if (tenant == 0) return kAccessVlan;
  return number % 3 == 0 ? static_cast<std::uint16_t>(200 + number % 50) : std::uint16_t{0};
}

void insert_tag(std::byte* frame, std::uint32_t& length, std::uint16_t vlan) {
  std::memmove(frame + kTypeAt + 4, frame + kTypeAt, length - kTypeAt);
  frame[kTypeAt] = std::byte{0x81};
  frame[kTypeAt + 1] = std::byte{0};
  frame[kTypeAt + 2] = static_cast<std::byte>(vlan >> 8);
  frame[kTypeAt + 3] = static_cast<std::byte>(vlan);
  length += 4;
}

/// What arrived of one flow.
struct Arrived {
  std::uint64_t frames = 0;
  std::uint64_t wrong = 0;
  std::uint64_t reordered = 0;
  std::uint64_t next = 0;  ///< number expected at the earliest

  void look(const std::byte* frame, std::uint32_t length, std::uint16_t expected_vlan) {
    ++frames;
    std::array<std::byte, kLongest + 4> plain;
    if (length < kShortest || length > plain.size()) {
      ++wrong;
      return;
    }
    std::memcpy(plain.data(), frame, length);
    std::uint16_t vlan = 0;
    if (plain[kTypeAt] == std::byte{0x81}) {
      vlan = static_cast<std::uint16_t>(std::to_integer<unsigned>(plain[kTypeAt + 2]) << 8 |
                                        std::to_integer<unsigned>(plain[kTypeAt + 3]));
      std::memmove(plain.data() + kTypeAt, plain.data() + kTypeAt + 4, length - kTypeAt - 4);
      length -= 4;
    }
    Content content;
    std::memcpy(&content.number, plain.data() + kNumberAt, sizeof(content.number));
    std::memcpy(&content.length, plain.data() + kLengthAt, sizeof(content.length));
    bool right = content.length == length && vlan == expected_vlan_of(content.number, expected_vlan);
    for (std::size_t at = kPatternAt; right && at < length; ++at) right = plain[at] == pattern(content, at);
    wrong += right ? 0 : 1;
    reordered += content.number < next ? 1 : 0;
    next = content.number + 1;
  }
  /// @param tenant kNoTag: it sees no tags
  static constexpr std::uint16_t kNoTag = 0xffff;
  static std::uint16_t expected_vlan_of(std::uint64_t number, std::uint16_t tenant) {
    return tenant == kNoTag ? std::uint16_t{0} : vlan_of(tenant, number);
  }
};

struct CloseWire {
  void operator()(softnic_memory_wire* wire) const noexcept { softnic_close_memory_wire(wire); }
};
struct Detach {
  void operator()(vswitch_port* port) const noexcept { vswitch_detach(port); }
};
using Tenant = std::unique_ptr<vswitch_port, Detach>;

/// The whole of the drawing above, but for the traffic.
class Site {
 public:
  Site()
      : wire_(open_wire()),
        quiescence_(1),
        context_{reactor_, quiescence_, 1, {}, 0, [] {}},
        datapath_({}, quiescence_) {
    context_.report = [this](const std::string&) { ++reports_; };
    uplink_ = std::make_unique<VerbsUplink>(UplinkSpec{"lan", "lan0", UplinkDriver::verbs, true}, context_);
    uplink_->start();
    Steering steering;
    TableBuilder builder(1);
    builder.add_uplink(0, "lan", *uplink_, kMtu);
    datapath_.add_port(0, *uplink_);
    for (std::size_t i = 0; i < kTenants; ++i) {
      PortSpec& spec = specs_[i];
      spec.tenant = "t" + std::to_string(i);
      spec.name = "p";
      spec.uplink = "lan";
      spec.mac = mac_of(i);
      spec.vlan = i == 0 ? kAccessVlan : std::uint16_t{0};
      spec.mtu = kMtu;
      RingAttachSpec attach;
      attach.socket = folder_ + "/r" + std::to_string(i);
      attach.uid = ::geteuid();
      spec.attach = attach;
      rings_[i] = std::make_unique<RingPort>(spec, context_);
      rings_[i]->start();
      steering.unicast.push_back({spec.vlan, spec.mac});
      builder.add_tenant(static_cast<PortId>(i + 1), spec, 0, *rings_[i]);
      datapath_.add_port(static_cast<PortId>(i + 1), *rings_[i]);
    }
    uplink_->steer(steering);
    datapath_.publish(builder.build());
    datapath_.start();
    for (std::size_t i = 0; i < kTenants; ++i) attach(i);
  }
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;
  ~Site() {
    for (Tenant& tenant : tenants_) tenant.reset();
    datapath_.stop();
    uplink_->stop();
    for (const auto& ring : rings_) ring->stop();
    wire_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  [[nodiscard]] softnic_memory_wire* wire() const { return wire_.get(); }
  [[nodiscard]] vswitch_port* tenant(std::size_t i) const { return tenants_[i].get(); }
  [[nodiscard]] TestReactor& reactor() { return reactor_; }
  [[nodiscard]] std::uint64_t nic(const char* counter) const {
    return softnic_memory_wire_counter(wire_.get(), counter);
  }
  [[nodiscard]] const PortCounters& uplink() const { return uplink_->counters(0); }
  [[nodiscard]] const PortCounters& ring(std::size_t i) const { return rings_[i]->counters(0); }
  [[nodiscard]] std::string uplink_says() const { return uplink_->status().detail; }
  [[nodiscard]] std::string ring_says(std::size_t i) const { return rings_[i]->status().detail; }
  [[nodiscard]] std::uint64_t reports() const { return reports_; }
  /// The number before `what` in the uplink's line, 0 if it is not there.
  [[nodiscard]] std::uint64_t uplink_count(const std::string& what) const {
    const std::string text = uplink_says();
    const std::size_t at = text.find(" " + what);
    if (at == std::string::npos) return 0;
    return std::stoull(text.substr(text.rfind(' ', at - 1) + 1, at));
  }
  /// `softnic fault`, `softnic link`.
  void nic_command(const std::string& verb, const std::string& words) const {
    shell(std::string(SOFTNIC) + " " + verb + " " + folder_ + "/nic " + words + " >/dev/null 2>&1 || true");
  }

 private:
  static std::unique_ptr<softnic_memory_wire, CloseWire> open_wire() {
    const std::string directory = folder_ + "/nic";
    std::filesystem::create_directories(folder_);
    const softnic_memory_wire_options options{directory.c_str(), "mlx5_0", "lan0", {2, 0, 0, 0, 0, 0xee}, kMtu, 7, 1};
    softnic_memory_wire* const wire = softnic_open_memory_wire(&options);
    if (wire == nullptr) throw_errno("make a software NIC in", directory);
    return std::unique_ptr<softnic_memory_wire, CloseWire>(wire);
  }
  void attach(std::size_t i) {
    std::atomic<bool> done{false};
    vswitch_port* port = nullptr;
    std::thread caller([&] {
      vswitch_options options{};
      options.size = sizeof(options);
      options.timeout_ms = 5000;
      static_cast<void>(vswitch_attach(std::get<RingAttachSpec>(specs_[i].attach).socket.c_str(), &options, &port));
      done.store(true);
    });
    reactor_.run_until([&] { return done.load(); }, 10 * kSecond);
    caller.join();
    if (port == nullptr) throw Error(0, "attach to", specs_[i].full_name());
    tenants_[i].reset(port);
  }

  // libibverbs asks for SYSFS_PATH once: all devices of this process are there.
  static inline const std::string folder_ = "/tmp/vswitch-soak-" + std::to_string(::getpid());
  std::unique_ptr<softnic_memory_wire, CloseWire> wire_;
  TestReactor reactor_;
  Quiescence quiescence_;
  PortContext context_;
  Datapath datapath_;
  std::unique_ptr<VerbsUplink> uplink_;
  std::array<PortSpec, kTenants> specs_;
  std::array<std::unique_ptr<RingPort>, kTenants> rings_;
  std::array<Tenant, kTenants> tenants_;
  std::uint64_t reports_ = 0;
};

std::uint32_t random_length(std::mt19937_64& random) {
  const std::uint64_t chance = random();
  const std::uint32_t most = chance % 8 == 0 ? kLongest : 200;
  return kShortest + static_cast<std::uint32_t>((chance >> 8) % (most - kShortest + 1));
}

/// Does not run ahead of the other end by more than a window, unless frames are lost.
class Window {
 public:
  /// @return true: send on
  bool open(std::uint64_t sent, std::uint64_t arrived) {
    constexpr std::uint64_t kMost = 512;
    constexpr Nanoseconds kPatience = 20 * kMillisecond;
    if (sent - arrived - lost_ < kMost) {
      waiting_since_ = 0;
      return true;
    }
    std::this_thread::yield();
    const Nanoseconds now = monotonic_now();
    if (waiting_since_ == 0) waiting_since_ = now;
    if (now - waiting_since_ > kPatience) {  // so many did not come: they are lost
      lost_ = sent - arrived;
      waiting_since_ = 0;
    }
    return false;
  }

 private:
  std::uint64_t lost_ = 0;
  Nanoseconds waiting_since_ = 0;
};

/// Both ends of the traffic. Each end is used by one thread.
struct Traffic {
  std::atomic<std::uint64_t> wire_sent{0}, wire_got{0}, tenants_sent{0}, tenants_got{0};
  std::atomic<bool> stop{false};
  std::uint64_t to_nobody = 0;
  std::array<Arrived, kTenants> at_tenant, at_wire;
  std::uint64_t strangers = 0;  ///< frames on the wire from no tenant's address

  void wire_end(softnic_memory_wire* wire) {
    std::mt19937_64 random(1);
    std::array<std::byte, kLongest + 4> frame;
    std::array<std::uint64_t, kTenants> numbers{};
    Window window;
    while (!stop.load()) {
      read_wire(wire);
      const std::uint64_t sent = wire_sent.load();
      if (sent == kFrames / 2 || !window.open(sent, tenants_got.load() + to_nobody)) continue;
      std::uint32_t length = random_length(random);
      const std::size_t to = random() % (kTenants * 32 + 1);
      const bool nobody = to == kTenants * 32;
      const std::size_t tenant = to % kTenants;
      const std::uint64_t number = numbers[tenant];
      write(frame.data(), nobody ? kNobody : mac_of(tenant), kPeer, {number, length});
      if (const std::uint16_t vlan = vlan_of(tenant, number); vlan != 0) insert_tag(frame.data(), length, vlan);
      if (softnic_memory_wire_send(wire, frame.data(), length) == 0) continue;
      ++(nobody ? to_nobody : numbers[tenant]);
      wire_sent.store(sent + 1);
    }
    read_wire(wire);
  }
  void read_wire(softnic_memory_wire* wire) {
    const void* bytes = nullptr;
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t length = softnic_memory_wire_peek(wire, &bytes);
      if (length == 0) return;
      const auto* frame = static_cast<const std::byte*>(bytes);
      Mac source;
      std::memcpy(source.bytes.data(), frame + 6, 6);
      const std::size_t tenant = source.bytes[5];
      if (tenant < kTenants && source == mac_of(tenant)) {
        at_wire[tenant].look(frame, length, static_cast<std::uint16_t>(tenant));
      } else {
        ++strangers;
      }
      softnic_memory_wire_drop(wire);
      wire_got.fetch_add(1);
    }
  }

  void tenants_end(const Site& site) {
    std::mt19937_64 random(2);
    std::array<std::uint64_t, kTenants> numbers{};
    std::array<Window, kTenants> windows;
    while (!stop.load()) {
      for (std::size_t i = 0; i < kTenants; ++i) {
        read_tenant(site.tenant(i), i);
        const std::uint64_t sent = tenants_sent.load();
        if (sent == kFrames / 2 || !windows[i].open(sent, wire_got.load())) continue;
        send(site.tenant(i), i, numbers[i], random);
      }
    }
    for (std::size_t i = 0; i < kTenants; ++i) read_tenant(site.tenant(i), i);
  }
  void send(vswitch_port* port, std::size_t tenant, std::uint64_t& number, std::mt19937_64& random) {
    constexpr std::uint32_t kBurst = 16;
    std::array<vswitch_frame, kBurst> frames{};
    std::array<std::uint32_t, kBurst> lengths;
    const std::uint64_t left = kFrames / 2 - tenants_sent.load();
    const auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, 1 + random() % kBurst));
    for (std::uint32_t i = 0; i < wanted; ++i) {
      lengths[i] = random_length(random);
      frames[i].length = lengths[i] + 4;
    }
    const std::uint32_t count = vswitch_tx_reserve(port, 0, frames.data(), wanted);
    for (std::uint32_t i = 0; i < count; ++i) {
      auto* const bytes = static_cast<std::byte*>(frames[i].data);
      write(bytes, kPeer, mac_of(tenant), {number, lengths[i]});
      frames[i].length = lengths[i];
      const std::uint16_t vlan = vlan_of(tenant, number);
      if (tenant != 0 && vlan != 0) insert_tag(bytes, frames[i].length, vlan);
      ++number;
    }
    vswitch_tx_commit(port, 0, frames.data(), count);
    tenants_sent.fetch_add(count);
  }
  void read_tenant(vswitch_port* port, std::size_t tenant) {
    std::array<vswitch_frame, 64> frames;
    const std::uint32_t count = vswitch_rx_peek(port, 0, frames.data(), 64);
    for (std::uint32_t i = 0; i < count; ++i) {
      at_tenant[tenant].look(static_cast<const std::byte*>(frames[i].data), frames[i].length,
                             tenant == 0 ? Arrived::kNoTag : static_cast<std::uint16_t>(tenant));
    }
    vswitch_rx_release(port, 0, count);
    tenants_got.fetch_add(count);
  }
};

std::uint64_t drops(const PortCounters& counters) {
  std::uint64_t sum = 0;
  for (const Counter& counter : counters.drops) sum += counter.read();
  return sum;
}

/// One trouble of the NIC's. Queue pairs that are replaced get new numbers.
void make_trouble(const Site& site, std::mt19937_64& random, unsigned newest_pair) {
  switch (random() % 6) {
    case 0:
      return site.nic_command("fault", "lose-interrupts 1");
    case 1:
    case 2:
      site.nic_command("link", "1 down");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return site.nic_command("link", "1 up");
    case 3:
      return site.nic_command("fault", "break " + std::to_string(newest_pair - random() % 6));
    default:
      return site.nic_command("fault", "break " + std::to_string(newest_pair - random() % 6) + " 0x4");
  }
}

TEST(VerbsSoak, EveryFrameArrivesOrIsCounted) {
  Site site;
  Traffic traffic;
  std::thread cable([&] { traffic.wire_end(site.wire()); });
  std::thread tenants([&] { traffic.tenants_end(site); });
  const auto sent_all = [&] {
    return traffic.wire_sent.load() == kFrames / 2 && traffic.tenants_sent.load() == kFrames / 2;
  };
  std::mt19937_64 random(3);
  constexpr unsigned kFirstPairs = 64 + kTenants + 2;  // sender, shared, and one a tenant
  while (!sent_all()) {
    make_trouble(site, random, kFirstPairs + static_cast<unsigned>(site.uplink_count("queue pairs replaced")));
    site.reactor().run_until(sent_all, 300 * kMillisecond);
  }
  site.nic_command("link", "1 up");
  std::uint64_t before = 0;
  for (int still = 0; still < 5;) {  // what is on its way arrives
    site.reactor().run_until([] { return false; }, 100 * kMillisecond);
    const std::uint64_t now = traffic.wire_got.load() + traffic.tenants_got.load() + drops(site.uplink());
    still = now == before ? still + 1 : 0;
    before = now;
  }
  traffic.stop.store(true);
  cable.join();
  tenants.join();
  std::printf("%s\n", site.uplink_says().c_str());

  // wire -> NIC -> switch -> tenants
  EXPECT_EQ(site.nic("wire_rx"), traffic.wire_sent.load());
  const std::uint64_t lost_to_wire = site.nic("tx_frames") - site.nic("wire_tx") - site.nic("drop_wire_full");
  EXPECT_EQ(site.nic("wire_rx") + site.nic("copies"), site.nic("delivered") + site.nic("kernel_rx") +
                                                          site.nic("drop_kernel_full") +
                                                          (site.nic("drop_wire_down") - lost_to_wire));
  EXPECT_EQ(site.nic("delivered"), site.nic("rx_frames") + site.nic("drop_no_buffer") + site.nic("drop_queue_state"));
  EXPECT_EQ(site.uplink().rx_frames.read(), site.nic("rx_frames"));
  std::uint64_t given = 0;
  std::uint64_t refused = 0;
  std::uint64_t taken = 0;
  for (std::size_t i = 0; i < kTenants; ++i) {
    SCOPED_TRACE(i);
    given += site.ring(i).tx_frames.read();
    refused += drops(site.ring(i));
    taken += site.ring(i).rx_frames.read();
    EXPECT_EQ(site.ring(i).tx_frames.read(), traffic.at_tenant[i].frames);
    EXPECT_EQ(traffic.at_tenant[i].wrong, 0U);
    EXPECT_EQ(traffic.at_tenant[i].reordered, 0U);
    EXPECT_EQ(traffic.at_wire[i].wrong, 0U);
    EXPECT_EQ(traffic.at_wire[i].reordered, 0U);
    EXPECT_GT(traffic.at_tenant[i].frames, kFrames / 2 / kTenants / 4);  // the NIC may be faster than the switch
    EXPECT_GT(traffic.at_wire[i].frames, kFrames / 2 / kTenants / 4);
    EXPECT_NE(site.ring_says(i).find(", direct"), std::string::npos) << site.ring_says(i);
  }
  EXPECT_EQ(site.uplink().rx_frames.read(), given + refused);
  // tenants -> switch -> NIC -> wire
  EXPECT_EQ(taken, traffic.tenants_sent.load());
  EXPECT_EQ(taken, site.uplink().tx_frames.read() + drops(site.uplink()));
  EXPECT_EQ(site.uplink().tx_frames.read(),
            site.nic("tx_frames") + site.uplink_count("frames lost with queue pairs that broke"));
  EXPECT_EQ(traffic.wire_got.load(), site.nic("wire_tx"));
  EXPECT_EQ(traffic.strangers, 0U);
  EXPECT_EQ(site.nic("violations"), 0U);
  EXPECT_GT(site.uplink_count("queue pairs replaced"), 0U);
  EXPECT_GT(site.nic("dma_read_shared_bytes"), 0U);
  EXPECT_GT(site.nic("dma_write_shared_bytes"), 0U);
}

/// A tenant that shows the switch its own address and, while the frame is on its way, puts another one in its place,
/// and back, and forth. @return frames sent
std::uint64_t send_two_faced(vswitch_port* port, std::mt19937_64& random) {
  constexpr std::uint32_t kBurst = 8;
  constexpr int kRewrites = 3;
  std::array<vswitch_frame, kBurst> frames{};
  for (vswitch_frame& frame : frames) frame.length = 200 + static_cast<std::uint32_t>(random() % 400);
  const std::uint32_t count = vswitch_tx_reserve(port, 0, frames.data(), kBurst);
  if (count == 0) std::this_thread::yield();
  const auto put_source = [&](const Mac& source) {
    for (std::uint32_t i = 0; i < count; ++i) {
      std::memcpy(static_cast<std::byte*>(frames[i].data) + 6, source.bytes.data(), 6);
      std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler must not leave a write out
    }
  };
  for (std::uint32_t i = 0; i < count; ++i)
    write(static_cast<std::byte*>(frames[i].data), kPeer, mac_of(1), {0, frames[i].length});
  vswitch_tx_commit(port, 0, frames.data(), count);
  for (int i = 0; i < kRewrites; ++i) {
    put_source(kNobody);
    put_source(mac_of(1));
  }
  if (random() % 4 == 0) put_source(kNobody);
  return count;
}

TEST(VerbsSoak, HeadersThatLeaveAreTheOnesThatWereJudged) {
  constexpr std::uint64_t kTries = kFrames / 10;
  Site site;
  Traffic traffic;
  std::thread cable([&] {
    while (!traffic.stop.load()) traffic.read_wire(site.wire());
  });
  std::thread tenant([&] {
    std::mt19937_64 random(4);
    for (std::uint64_t sent = 0; sent < kTries;) sent += send_two_faced(site.tenant(1), random);
    traffic.tenants_sent.store(kTries);
  });
  site.reactor().run_until([&] { return traffic.tenants_sent.load() == kTries; }, 120 * kSecond);
  site.reactor().run_until([] { return false; }, 500 * kMillisecond);
  tenant.join();
  traffic.stop.store(true);
  cable.join();
  const std::uint64_t caught = site.ring(1).drops[static_cast<std::size_t>(Drop::spoofed_mac)].read();
  std::printf("%llu on the wire, %llu caught with the wrong address\n",
              static_cast<unsigned long long>(traffic.wire_got.load()), static_cast<unsigned long long>(caught));
  EXPECT_EQ(traffic.strangers, 0U);
  EXPECT_GT(traffic.at_wire[1].frames, 0U);
  EXPECT_GT(caught, 0U);
  EXPECT_GT(site.nic("dma_read_shared_bytes"), 0U);
  EXPECT_GE(site.ring(1).rx_frames.read(), kTries);
}

}  // namespace
}  // namespace vswitch::test
