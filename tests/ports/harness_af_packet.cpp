#include <algorithm>
#include <optional>

#include "ports/af_packet/af_packet_uplink.h"
#include "tests/ports/harness.h"
#include "tests/ports/net_lab.h"
#include "tests/ports/test_frames.h"

namespace vswitch::test {
namespace {

//   this process's namespace          the peer's namespace
//   AfPacketUplink -- up0 ===veth=== far0 -- RawSocket
class AfPacketHarness final : public Harness {
 public:
  AfPacketHarness() {
    shell("ip link del up0 2>/dev/null; ip link add up0 type veth peer name far0 netns " + peer_.path() +
          " && ip link set up0 up");
  }
  ~AfPacketHarness() override { shell("ip link del up0 2>/dev/null; true"); }

  Traits traits() const override {
    Traits traits;
    traits.vlan_beside = true;
    return traits;
  }
  std::unique_ptr<Port> make_port(PortContext& context) override {
    return std::make_unique<AfPacketUplink>(UplinkSpec{"wire", "up0", UplinkDriver::automatic}, context);
  }
  void connect(Port& port, TestReactor& /*reactor*/) override {
    Steering wanted;
    wanted.unicast.push_back({0, kTo});
    dynamic_cast<Uplink&>(port).steer(wanted);
    peer_.run([this] {
      shell("ip link set far0 up");
      wait_for_link("far0");
      far_.emplace("far0");
    });
    wait_for_link("up0");
  }
  bool send(const TestFrame& frame) override { return far_->send(frame); }
  std::vector<TestFrame> read(int timeout_ms) override { return far_->read(timeout_ms); }
  void set_narrow(bool narrow) override {
    shell(narrow ? "tc qdisc replace dev up0 root tbf rate 8kbit burst 2000 limit 4000" : "tc qdisc del dev up0 root");
  }
  void close_far_end(TestReactor& /*reactor*/) override {
    far_.reset();
    peer_.run([] { shell("ip link set far0 down"); });
  }

 private:
  Namespace peer_;
  std::optional<RawSocket> far_;
};

}  // namespace

std::unique_ptr<Harness> make_af_packet_harness() { return std::make_unique<AfPacketHarness>(); }

}  // namespace vswitch::test
