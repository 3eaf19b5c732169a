#include <optional>

#include "ports/tap/tap_port.h"
#include "tests/ports/harness.h"
#include "tests/ports/net_lab.h"

namespace vswitch::test {
namespace {

//   this process              the tenant's namespace
//   TapPort === /dev/net/tun === tap0 -- RawSocket
class TapHarness final : public Harness {
 public:
  explicit TapHarness(bool offloads) : offloads_(offloads) {}
  Traits traits() const override {
    Traits traits;
    traits.never_full = true;
    return traits;
  }
  std::unique_ptr<Port> make_port(PortContext& context) override {
    TapAttachSpec attach;
    attach.netns = tenant_.path();
    attach.name = "tap0";
    PortSpec spec;
    spec.tenant = "red";
    spec.name = "db";
    spec.uplink = "wire";
    spec.mac = Mac{{0x02, 0, 0, 0, 0, 0x12}};
    spec.mtu = 1500;
    spec.attach = attach;
    spec.offloads = offloads_ ? OffloadCaps::all() : OffloadCaps{};
    return std::make_unique<TapPort>(spec, context);
  }
  void connect(Port& /*port*/, TestReactor& /*reactor*/) override {
    tenant_.run([this] { far_.emplace("tap0"); });
  }
  bool send(const TestFrame& frame) override { return far_->send(frame); }
  std::vector<TestFrame> read(int timeout_ms) override { return far_->read(timeout_ms); }
  void set_narrow(bool /*narrow*/) override {}
  void close_far_end(TestReactor& /*reactor*/) override {
    far_.reset();
    tenant_.run([] { shell("ip link set tap0 down"); });
  }

 private:
  const bool offloads_;
  Namespace tenant_;
  std::optional<RawSocket> far_;
};

}  // namespace

std::unique_ptr<Harness> make_tap_harness(bool offloads) { return std::make_unique<TapHarness>(offloads); }

}  // namespace vswitch::test
