// Whatever a client of the control socket may send, line by line, through the parser, the dispatcher and all methods
// over a running switch. Every answer must be one line of JSON.

#include <spdlog/spdlog.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tests/unit/loop_switch.h"
#include "vswitch/daemon/control_api.h"

namespace {

using namespace vswitch;

SwitchSpec example() {
  PortSpec tagged = test::port("tagged", 2);
  tagged.vlan = 100;
  PortSpec source = test::port("source", 3);
  source.mode = Mode::source;
  source.source_macs = {test::mac(9)};
  PortSpec vepa = test::port("vepa", 4);
  vepa.mode = Mode::vepa;
  return test::on_lan({test::port("bridge", 1), source, tagged, vepa});
}

class Target {
 public:
  Target() : spec_(example()), running_(spec_.workers, reactor_, world_.factory()) {
    spdlog::set_level(spdlog::level::off);
    running_.apply(spec_);
    add_control_methods(dispatcher_, running_, [this] { return running_.apply(spec_); });
  }
  void take(std::string_view line) const {
    const std::string answer = dispatcher_.handle(line);
    if (answer.find('\n') != std::string::npos) std::abort();
    if (!answer.empty() && !Json::accept(answer)) std::abort();
  }

 private:
  UringReactor reactor_;
  test::LoopWorld world_;
  SwitchSpec spec_;
  Switch running_;
  RpcDispatcher dispatcher_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Target target;
  std::string_view input(reinterpret_cast<const char*>(data), size);
  while (!input.empty()) {
    const std::size_t end = input.find('\n');
    target.take(input.substr(0, end));
    input = end == std::string_view::npos ? std::string_view() : input.substr(end + 1);
  }
  return 0;
}
