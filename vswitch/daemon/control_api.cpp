#include "vswitch/daemon/control_api.h"

#include <unistd.h>

#include "vswitch/daemon/describe.h"
#include "vswitch/daemon/trace.h"
#include "vswitch/daemon/version.h"

namespace vswitch {
namespace {

void refuse_params(const Json& params, const char* method) {
  if (!params.empty()) throw InvalidParams(std::string("the method ") + method + " takes no parameters");
}

Json drops() {
  Json list = Json::array();
  for (std::size_t reason = 1; reason < kDropReasons; ++reason) {
    const DropText& text = kDropTexts[reason];
    list.push_back({{"name", text.name},
                    {"counted_at", text.at_egress ? "destination" : "source"},
                    {"explanation", text.explanation}});
  }
  return {{"drops", std::move(list)}};
}

std::string stats_port(const Json& params) {
  if (params.empty()) return {};
  const auto port = params.find("port");
  if (params.size() != 1 || port == params.end() || !port->is_string()) {
    throw InvalidParams("the only parameter of stats is \"port\", the name of a port or uplink");
  }
  return *port;
}

}  // namespace

void add_control_methods(RpcDispatcher& dispatcher, const Switch& running, std::function<ApplyReport()> reload) {
  dispatcher.add("show", [&running](const Json& params) {
    refuse_params(params, "show");
    return describe(running);
  });
  dispatcher.add("stats", [&running](const Json& params) { return count(running, stats_port(params)); });
  dispatcher.add("trace", [&running](const Json& params) { return trace(running, parse_trace(params)); });
  dispatcher.add("drops", [](const Json& params) {
    refuse_params(params, "drops");
    return drops();
  });
  dispatcher.add("reload", [reload = std::move(reload)](const Json& params) {
    refuse_params(params, "reload");
    return describe(reload());
  });
  dispatcher.add("version", [](const Json& params) {
    refuse_params(params, "version");
    return Json{{"name", "vswitchd"}, {"version", version()}, {"pid", ::getpid()}};
  });
}

}  // namespace vswitch
