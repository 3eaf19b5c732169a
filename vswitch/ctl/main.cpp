#include <unistd.h>

#include <chrono>
#include <exception>
#include <iostream>
#include <thread>

#include "vswitch/ctl/command_line.h"
#include "vswitch/ctl/render.h"
#include "vswitch/daemon/control_client.h"
#include "vswitch/daemon/version.h"

namespace vswitch {
namespace {

enum Exit : int { kExitGood = 0, kExitRefused = 1, kExitUsage = 2, kExitUnreachable = 3 };

using nlohmann::json;

void print_json(const json& answer, int indent) {
  std::cout << answer.dump(indent, ' ', false, json::error_handler_t::replace) << std::endl;
}

void render(const std::string& command, const json& answer) {
  if (command == "show") render_show(answer, std::cout);
  if (command == "stats") render_stats(answer, std::cout);
  if (command == "reload") render_reload(answer, std::cout);
  if (command == "trace") render_trace(answer, std::cout);
  if (command == "drops") render_drops(answer, std::cout);
}

/// Prints one report each period until interrupted.
void watch(ControlClient& client, const CommandLine& line) {
  const std::chrono::duration<double> period(*line.watch_s);
  const bool on_terminal = ::isatty(STDOUT_FILENO) == 1;
  json before = client.call("stats", line.params);
  while (std::cout) {
    std::this_thread::sleep_for(period);
    json now = client.call("stats", line.params);
    if (line.json) {
      print_json(now, -1);
    } else {
      if (on_terminal) std::cout << "\x1b[H\x1b[2J";  // home, clear
      render_rates(before, now, std::cout);
      std::cout << std::endl;
    }
    before = std::move(now);
  }
}

/// The one command that says something without a daemon, too.
Exit print_version(const CommandLine& line) {
  json answer = {{"vswitchctl", version()}, {"vswitchd", nullptr}};
  Exit exit = kExitGood;
  try {
    answer["vswitchd"] = ControlClient(line.control).call("version");
  } catch (const Error& error) {
    std::cerr << "vswitchctl: " << error.what() << "\n";
    exit = kExitUnreachable;
  }
  if (line.json) {
    print_json(answer, 2);
    return exit;
  }
  std::cout << "vswitchctl " << version() << "\n";
  if (answer["vswitchd"].is_object()) {
    std::cout << "vswitchd " << answer["vswitchd"].value("version", "?") << ", process "
              << answer["vswitchd"].value("pid", 0) << "\n";
  }
  return exit;
}

Exit run(const CommandLine& line) {
  if (line.command == "version") return print_version(line);
  ControlClient client(line.control);
  if (line.watch_s) {
    watch(client, line);
    return kExitGood;
  }
  const json answer = client.call(line.command, line.params);
  if (line.json) {
    print_json(answer, 2);
  } else {
    render(line.command, answer);
  }
  return kExitGood;
}

int guarded(int argc, char** argv) {
  try {
    const std::optional<CommandLine> line = parse_command_line({argv + 1, argv + argc});
    return line ? run(*line) : kExitGood;
  } catch (const UsageError& error) {
    std::cerr << "vswitchctl: " << error.what() << "; see vswitchctl --help\n";
    return kExitUsage;
  } catch (const Error& error) {
    std::cerr << "vswitchctl: " << error.what() << "\n";
    return kExitUnreachable;
  } catch (const std::exception& error) {
    std::cerr << "vswitchctl: " << error.what() << "\n";
    return kExitRefused;
  }
}

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) { return vswitch::guarded(argc, argv); }
