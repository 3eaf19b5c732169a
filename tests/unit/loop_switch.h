#pragma once
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ports/loop/loop_port.h"
#include "vswitch/base/error.h"
#include "vswitch/daemon/reactor.h"
#include "vswitch/daemon/reconcile.h"

// A whole switch, workers included, over in-memory ports.

namespace vswitch::test {

/// A loop port that holds something which exists once, as a netdev name or a socket path does: two of them cannot run
/// at the same time.
class ExclusivePort final : public Port {
 public:
  struct World {
    std::set<std::string> held;         ///< by running ports
    std::set<std::string> unavailable;  ///< cannot be taken by anyone
    std::vector<std::string> history;   ///< "+name" started, "-name" stopped
  };
  ExclusivePort(World& world, std::string resource, std::string name, std::size_t workers, std::uint32_t mtu)
      : world_(world), resource_(std::move(resource)), name_(std::move(name)), loop_(workers, {}, mtu) {}

  void start() override {
    if (world_.unavailable.contains(resource_)) throw Error(EIO, "open", resource_, "it is not available");
    if (world_.held.contains(resource_)) throw Error(EEXIST, "open", resource_, "another port has it");
    loop_.start();
    world_.held.insert(resource_);
    world_.history.push_back("+" + name_);
  }
  void stop() noexcept override {
    loop_.stop();
    world_.held.erase(resource_);
    world_.history.push_back("-" + name_);
  }
  void permit(OffloadCaps offloads) override {
    if (world_.unavailable.contains(resource_))
      throw Error(EIO, "set the offloads of", resource_, "it is not available");
    loop_.permit(offloads);
    world_.history.push_back("=" + name_);
  }
  [[nodiscard]] LoopQueue& queue(std::size_t w) override { return loop_.queue(w); }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return loop_.counters(w); }
  [[nodiscard]] PortStatus status() const override { return loop_.status(); }

 private:
  World& world_;
  std::string resource_;
  std::string name_;
  LoopPort loop_;
};

/// Makes the ports; what they hold is the attachment's netdev name or socket path.
struct LoopWorld {
  ExclusivePort::World world;
  Mac host_mac = *Mac::parse("02:ff:00:00:00:01");
  std::map<std::string, std::uint32_t> uplink_mtus;  ///< by netdev; 1500 if not named

  PortFactory factory() {
    return {[this](const PortSpec& spec, PortContext& context) {
              const auto* tap = std::get_if<TapAttachSpec>(&spec.attach);
              const std::string resource = tap != nullptr ? tap->name : std::get<RingAttachSpec>(spec.attach).socket;
              return std::make_unique<ExclusivePort>(world, resource, spec.full_name(), context.workers, spec.mtu);
            },
            [this](const UplinkSpec& spec, PortContext& context) {
              const auto mtu = uplink_mtus.find(spec.netdev);
              return std::make_unique<LoopPort>(context.workers, host_mac,
                                                mtu != uplink_mtus.end() ? mtu->second : 1500);
            }};
  }
};

inline Mac mac(unsigned last) {
  return {{0x02, 0, 0, 0, static_cast<std::uint8_t>(last >> 8), static_cast<std::uint8_t>(last)}};
}

/// A port of tenant "t", mode bridge, on a tap of its own.
inline PortSpec port(const std::string& name, unsigned last_mac) {
  PortSpec spec;
  spec.tenant = "t";
  spec.name = name;
  spec.uplink = "lan";
  spec.mac = mac(last_mac);
  spec.attach = TapAttachSpec{.netns = "", .name = "tap-" + name, .routes = {}};
  return spec;
}

/// Those ports on the uplink "lan".
inline SwitchSpec on_lan(std::vector<PortSpec> ports) {
  SwitchSpec spec;
  spec.workers.idle = Idle::sleep;
  spec.uplinks = {{"lan", "eth9", UplinkDriver::automatic}};
  spec.ports = std::move(ports);
  return spec;
}

/// The far side of a running port.
inline LoopQueue& far_side(const Switch& running, const std::string& name, std::size_t worker = 0) {
  const auto uplink = running.state().uplinks.find(name);
  if (uplink != running.state().uplinks.end()) return static_cast<LoopPort&>(*uplink->second.port).queue(worker);
  return static_cast<ExclusivePort&>(*running.state().ports.at(name).port).queue(worker);
}

using NumberedFrame = std::array<std::byte, 64>;
inline constexpr std::size_t kNumberOffset = 14;

/// A frame of the local experimental ethertype with a number behind the header.
inline NumberedFrame frame(const Mac& dst, const Mac& src, std::uint64_t number) {
  NumberedFrame bytes{};
  std::memcpy(bytes.data(), dst.bytes.data(), 6);
  std::memcpy(bytes.data() + 6, src.bytes.data(), 6);
  bytes[12] = std::byte{0x88};
  bytes[13] = std::byte{0xb5};
  std::memcpy(bytes.data() + kNumberOffset, &number, sizeof(number));
  return bytes;
}

inline std::uint64_t number_in(const LoopFrame& from) {
  std::uint64_t number = 0;
  std::memcpy(&number, from.bytes.data() + kNumberOffset, sizeof(number));
  return number;
}

/// Waits until `queue` has sent something; false after 5 s.
inline bool wait_for_frame(const LoopQueue& queue) {
  const Nanoseconds deadline = monotonic_now() + 5 * kSecond;
  while (queue.sent_count() == 0) {
    if (monotonic_now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace vswitch::test
