#include "vswitch/ctl/command_line.h"

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <charconv>
#include <iostream>
#include <limits>
#include <string_view>

#include "vswitch/daemon/control_client.h"

namespace vswitch {
namespace {

namespace po = boost::program_options;

constexpr const char* kUsage =
    "vswitchctl [--control PATH] [--json] COMMAND\n"
    "\n"
    "Commands\n"
    "  show                                  uplinks, ports and workers\n"
    "  stats [PORT] [--watch [SECONDS]]      counters; or their rates, again and again\n"
    "  trace PORT --dst MAC [--src MAC] [--vlan ID] [--ethertype N] [--length BYTES]\n"
    "        [--checksum unfinished] [--gso-size BYTES]\n"
    "                                        what would become of a frame, and why\n"
    "  reload                                read the configuration again\n"
    "  drops                                 all reasons for which frames are dropped\n"
    "  version                               of this program and of the daemon\n"
    "\n"
    "PORT is TENANT/PORT or the name of an uplink.\n";

constexpr double kLeastWatch = 0.1;
constexpr double kMostWatch = 86'400;

/// "17" or "0x11".
std::optional<std::uint32_t> parse_number(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_seconds(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Options with an optional value take it only after '='; "--watch 2" reads better.
void join_watch(std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] != "--watch" || !parse_seconds(arguments[i + 1])) continue;
    arguments[i] += "=" + arguments[i + 1];
    arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1);
  }
}

/// Which options belong to which command.
bool belongs(const std::string& option, const std::string& command) {
  static constexpr std::array<std::string_view, 7> kOfTrace{"dst",    "src",      "vlan",    "ethertype",
                                                            "length", "checksum", "gso-size"};
  if (option == "watch") return command == "stats";
  if (std::find(kOfTrace.begin(), kOfTrace.end(), option) != kOfTrace.end()) return command == "trace";
  return true;
}

void fill_trace(const po::variables_map& given, nlohmann::json& params) {
  if (given.count("dst") == 0) throw UsageError("trace needs --dst MAC");
  for (const char* name : {"dst", "src", "checksum"}) {
    if (given.count(name) != 0) params[name] = given[name].as<std::string>();
  }
  for (const char* name : {"vlan", "ethertype", "length", "gso-size"}) {
    if (given.count(name) == 0) continue;
    const std::optional<std::uint32_t> number = parse_number(given[name].as<std::string>());
    if (!number)
      throw UsageError("--" + std::string(name) + " needs a number, not \"" + given[name].as<std::string>() + "\"");
    std::string key = name;
    std::replace(key.begin(), key.end(), '-', '_');
    params[key] = *number;
  }
}

po::options_description known_options(CommandLine& line) {
  po::options_description known;
  const auto text = [] { return po::value<std::string>(); };
  known.add_options()("help,h", "")("json", po::bool_switch(&line.json), "")(
      "control", po::value(&line.control)->default_value(kDefaultControlPath), "")(
      "watch", text()->implicit_value("1"), "")("dst", text(), "")("src", text(), "")("vlan", text(), "")(
      "ethertype", text(), "")("length", text(), "")("checksum", text(), "")("gso-size", text(), "")(
      "words", po::value<std::vector<std::string>>(), "");
  return known;
}

void fill_words(const std::vector<std::string>& words, CommandLine& line) {
  static constexpr std::array<std::string_view, 6> kCommands{"show", "stats", "trace", "reload", "drops", "version"};
  if (words.empty()) throw UsageError("a command is missing");
  line.command = words[0];
  if (std::find(kCommands.begin(), kCommands.end(), line.command) == kCommands.end()) {
    throw UsageError("there is no command \"" + line.command + "\"");
  }
  const bool takes_port = line.command == "stats" || line.command == "trace";
  if (words.size() > (takes_port ? 2U : 1U)) throw UsageError("\"" + words.back() + "\" is one word too many");
  if (words.size() == 2) line.params["port"] = words[1];
  if (line.command == "trace" && words.size() < 2) throw UsageError("trace needs the PORT that the frame comes from");
}

}  // namespace

std::optional<CommandLine> parse_command_line(std::vector<std::string> arguments) {
  join_watch(arguments);
  CommandLine line;
  po::variables_map given;
  try {
    po::positional_options_description words;
    words.add("words", -1);
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(arguments).options(known_options(line)).positional(words).style(style).run(),
              given);
    po::notify(given);
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
  if (given.count("help") != 0) {
    std::cout << kUsage;
    return std::nullopt;
  }
  fill_words(given.count("words") != 0 ? given["words"].as<std::vector<std::string>>() : std::vector<std::string>(),
             line);
  for (const auto& [name, value] : given) {
    if (!belongs(name, line.command)) throw UsageError("--" + name + " does not belong to " + line.command);
  }
  if (line.command == "trace") fill_trace(given, line.params);
  if (given.count("watch") != 0) {
    line.watch_s = parse_seconds(given["watch"].as<std::string>());
    if (!line.watch_s || !(*line.watch_s >= kLeastWatch && *line.watch_s <= kMostWatch)) {
      throw UsageError("--watch needs seconds between 0.1 and 86400, not \"" + given["watch"].as<std::string>() + "\"");
    }
  }
  return line;
}

}  // namespace vswitch
