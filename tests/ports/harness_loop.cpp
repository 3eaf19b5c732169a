#include "ports/loop/loop_port.h"
#include "tests/ports/harness.h"

namespace vswitch::test {
namespace {

/// The far end is this very program.
class LoopHarness final : public Harness {
 public:
  explicit LoopHarness(OffloadCaps takes) : takes_(takes) {}
  Traits traits() const override {
    Traits traits;
    traits.vlan_beside = true;
    traits.sends_any_length = true;
    traits.sends_bad_offloads = true;
    return traits;
  }
  std::unique_ptr<Port> make_port(PortContext& context) override {
    workers_ = context.workers;
    return std::make_unique<LoopPort>(context.workers);
  }
  void connect(Port& port, TestReactor& /*reactor*/) override {
    port_ = dynamic_cast<LoopPort*>(&port);
    for (std::size_t w = 0; w < workers_; ++w) port_->queue(w).set_offloads(takes_);
  }
  bool send(const TestFrame& frame) override {
    const std::size_t w =
        workers_ == 1 || frame.bytes.size() < 36 ? 0 : std::to_integer<std::size_t>(frame.bytes[35]) % workers_;
    return port_->queue(w).inject(frame.bytes, frame.vlan, frame.offload);
  }
  std::vector<TestFrame> read(int /*timeout_ms*/) override {
    std::vector<TestFrame> frames;
    for (std::size_t w = 0; w < workers_; ++w) {
      LoopQueue& queue = port_->queue(w);
      const std::size_t count = queue.sent_count();
      for (std::size_t i = 0; i < count; ++i) {
        const LoopFrame sent = queue.sent(i);
        frames.push_back({{sent.bytes.begin(), sent.bytes.end()}, sent.vlan, sent.offload});
      }
      queue.drop_sent(count);
    }
    return frames;
  }
  void set_narrow(bool narrow) override {
    for (std::size_t w = 0; w < workers_; ++w) {
      if (narrow) {
        port_->queue(w).limit(100);
      } else {
        port_->queue(w).unlimit();
      }
    }
  }
  void close_far_end(TestReactor& /*reactor*/) override { port_->set_link(false); }

 private:
  OffloadCaps takes_;
  LoopPort* port_ = nullptr;
  std::size_t workers_ = 0;
};

}  // namespace

std::unique_ptr<Harness> make_loop_harness(OffloadCaps takes) { return std::make_unique<LoopHarness>(takes); }

}  // namespace vswitch::test
