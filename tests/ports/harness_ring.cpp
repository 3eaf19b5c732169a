#include <unistd.h>
#include <vswitch/vswitch.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "ports/ring/ring_port.h"
#include "tests/ports/harness.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

struct Detach {
  void operator()(vswitch_port* port) const noexcept { vswitch_detach(port); }
};

std::uint32_t features_of(OffloadCaps takes) {
  return (takes.checksum ? VSWITCH_FEATURE_CSUM : 0) | (takes.tso4 ? VSWITCH_FEATURE_TSO4 : 0) |
         (takes.tso6 ? VSWITCH_FEATURE_TSO6 : 0) | (takes.ecn ? VSWITCH_FEATURE_ECN : 0) |
         (takes.uso ? VSWITCH_FEATURE_USO : 0);
}

/// The far end is a tenant in this process: libvswitch over the port's real socket and memory.
class RingHarness final : public Harness {
 public:
  explicit RingHarness(OffloadCaps takes) : features_(features_of(takes)) {
    std::string path = "/tmp/vswitch-contract-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) throw_errno("make", "a folder for the port's socket");
    folder_ = path;
  }
  ~RingHarness() override {
    tenant_.reset();
    ::unlink(socket().c_str());
    ::rmdir(folder_.c_str());
  }

  Traits traits() const override {
    Traits traits;
    traits.sends_any_length = true;
    traits.sends_bad_offloads = true;
    return traits;
  }
  std::unique_ptr<Port> make_port(PortContext& context) override {
    queues_ = static_cast<std::uint32_t>(context.workers);
    RingAttachSpec attach;
    attach.socket = socket();
    attach.uid = ::geteuid();
    attach.queues = queues_;
    PortSpec spec;
    spec.tenant = "red";
    spec.name = "web";
    spec.uplink = "wire";
    spec.mac = Mac{{0x02, 0, 0, 0, 0, 0x11}};
    spec.mtu = 1500;
    spec.attach = attach;
    return std::make_unique<RingPort>(spec, context);
  }
  void connect(Port& port, TestReactor& reactor) override {
    port_ = &port;
    vswitch_port* tenant = nullptr;
    int result = 1;
    std::string reason;
    std::thread attaching([&] {
      vswitch_options options{};
      options.size = sizeof(options);
      options.features = features_;
      options.timeout_ms = 5000;
      result = vswitch_attach(socket().c_str(), &options, &tenant);
      if (result != 0) reason = vswitch_attach_error();
    });
    reactor.run_until([&port] { return port.status().link_up; });
    attaching.join();
    if (result != 0) throw Error(-result, "attach", socket(), reason);
    tenant_.reset(tenant);
  }
  bool send(const TestFrame& frame) override {
    const std::uint32_t queue =
        queues_ == 1 || frame.bytes.size() < 36 ? 0 : std::to_integer<std::uint32_t>(frame.bytes[35]) % queues_;
    vswitch_frame out{};
    out.length = std::max<std::uint32_t>(static_cast<std::uint32_t>(frame.bytes.size()), 14);
    if (vswitch_tx_reserve(tenant_.get(), queue, &out, 1) != 1) return false;
    std::memcpy(out.data, frame.bytes.data(), frame.bytes.size());
    out.length = static_cast<std::uint32_t>(frame.bytes.size());
    out.offload = std::bit_cast<vswitch_offload>(frame.offload);
    vswitch_tx_commit(tenant_.get(), queue, &out, 1);
    return true;
  }
  std::vector<TestFrame> read(int timeout_ms) override {
    std::vector<TestFrame> frames;
    const Nanoseconds end = monotonic_now() + static_cast<Nanoseconds>(timeout_ms) * kMillisecond;
    do {
      for (std::uint32_t queue = 0; queue < queues_; ++queue) read_queue(queue, frames);
    } while (frames.empty() && monotonic_now() < end);
    return frames;
  }
  void set_narrow(bool /*narrow*/) override {}  // as long as nobody reads, there is only the ring
  void close_far_end(TestReactor& reactor) override {
    tenant_.reset();
    reactor.run_until([this] { return !port_->status().link_up; });
  }

 private:
  [[nodiscard]] std::string socket() const { return folder_ + "/port.sock"; }
  void read_queue(std::uint32_t queue, std::vector<TestFrame>& frames) {
    vswitch_frame in[64];
    while (const std::uint32_t count = vswitch_rx_peek(tenant_.get(), queue, in, 64)) {
      for (std::uint32_t i = 0; i < count; ++i) {
        TestFrame frame;
        const auto* data = static_cast<const std::byte*>(in[i].data);
        frame.bytes.assign(data, data + in[i].length);
        frame.offload = std::bit_cast<Offload>(in[i].offload);
        frames.push_back(std::move(frame));
      }
      vswitch_rx_release(tenant_.get(), queue, count);
    }
  }

  const std::uint32_t features_;
  std::string folder_;
  std::uint32_t queues_ = 1;
  Port* port_ = nullptr;
  std::unique_ptr<vswitch_port, Detach> tenant_;
};

}  // namespace

std::unique_ptr<Harness> make_ring_harness(OffloadCaps takes) { return std::make_unique<RingHarness>(takes); }

}  // namespace vswitch::test
