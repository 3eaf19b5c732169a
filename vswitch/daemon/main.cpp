#include <signal.h>
#include <spdlog/spdlog.h>

#include <exception>
#include <filesystem>
#include <iostream>

#include "config/check_system.h"
#include "config/load.h"
#include "ports/registry.h"
#include "vswitch/base/error.h"
#include "vswitch/daemon/control_api.h"
#include "vswitch/daemon/control_server.h"
#include "vswitch/daemon/lock_file.h"
#include "vswitch/daemon/options.h"
#include "vswitch/daemon/process.h"
#include "vswitch/daemon/reactor.h"
#include "vswitch/daemon/reconcile.h"
#include "vswitch/daemon/version.h"

// The parts of the daemon and how they hang together; each member of run() dies in reverse order, which is the order of
// a clean stop.

namespace vswitch {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

std::filesystem::path runtime_directory(const Options& options) {
  return std::filesystem::path(options.control).parent_path();
}

int check(const Options& options) {
  const SwitchSpec spec = load_file(options.config);
  const std::vector<std::string> problems = check_system(spec, runtime_directory(options));
  for (const std::string& problem : problems) std::cerr << problem << "\n";
  if (problems.empty()) std::cout << options.config << ": good\n";
  return problems.empty() ? 0 : kExitFailed;
}

SwitchSpec load_checked(const Options& options) {
  SwitchSpec spec = load_file(options.config);
  std::string all;
  for (const std::string& problem : check_system(spec, runtime_directory(options)))
    all.append(all.empty() ? "" : "\n").append(problem);
  if (!all.empty()) throw Error(0, all, "");
  return spec;
}

void log_report(const ApplyReport& report) {
  spdlog::info("configuration in use: {} added, {} removed, {} reopened, {} changed in place, {} untouched",
               report.added.size(), report.removed.size(), report.reopened.size(), report.changed.size(),
               report.untouched);
}

/// A callback that throws must not end the switch for everybody: say it and carry on.
void serve(UringReactor& reactor, const bool& stopping) {
  while (!stopping) {
    try {
      reactor.run();
    } catch (const Error& error) {
      spdlog::error("{}", error.what());
    }
  }
}

void run(const Options& options) {
  require_capabilities();
  raise_open_files_limit();
  const RuntimeDirectory directory(runtime_directory(options));
  const LockFile lock(options.lock);
  const PidFile pid_file(options.pid_file);

  UringReactor reactor;
  bool stopping = false;
  std::function<void()> on_reload;
  const auto stop = [&] {
    stopping = true;
    reactor.stop();
  };
  const SignalWatch signals(reactor,
                            {{SIGTERM, stop}, {SIGINT, stop}, {SIGHUP, [&] { on_reload(); }}, {SIGPIPE, [] {}}});

  const SwitchSpec spec = load_checked(options);
  Switch running(spec.workers, reactor, {make_port, make_uplink});
  log_report(running.apply(spec));

  ServiceManager manager(reactor);
  const auto reload = [&] {
    manager.reloading();
    try {
      ApplyReport report = running.apply(load_file(options.config));
      log_report(report);
      manager.ready();
      return report;
    } catch (const std::exception& error) {
      spdlog::error("reload changed nothing: {}", error.what());
      manager.ready();
      throw;
    }
  };
  on_reload = [&] {
    try {
      reload();
    } catch (const std::exception&) {  // logged; a signal has nobody to answer to
    }
  };
  RpcDispatcher dispatcher;
  add_control_methods(dispatcher, running, reload);
  const ControlServer control(reactor, dispatcher, options.control);

  spdlog::info("vswitchd {} is ready, control socket {}", version(), options.control);
  manager.ready();
  serve(reactor, stopping);
  spdlog::info("stopping");
  manager.stopping();
}

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
  try {
    const std::optional<vswitch::Options> options = vswitch::parse_options(argc, argv);
    if (!options) return 0;
    vswitch::set_up_log(options->log_level);
    if (options->check) return vswitch::check(*options);
    vswitch::run(*options);
    return 0;
  } catch (const vswitch::UsageError& error) {
    std::cerr << "vswitchd: " << error.what() << "; see vswitchd --help\n";
    return vswitch::kExitUsage;
  } catch (const std::exception& error) {
    std::cerr << "vswitchd: " << error.what() << "\n";
    return vswitch::kExitFailed;
  }
}
