#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace vswitch {

/// What vswitchctl was asked to do.
struct CommandLine {
  std::string control;
  bool json = false;
  std::string command;                               ///< show, stats, reload, trace, drops or version
  nlohmann::json params = nlohmann::json::object();  ///< of the call
  std::optional<double> watch_s;                     ///< stats: again and again, that many seconds apart
};

/// The command line makes no sense; what() says why.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// @param arguments without the program's name
/// @return nullopt when --help was asked for and has been printed. Throws UsageError.
std::optional<CommandLine> parse_command_line(std::vector<std::string> arguments);

}  // namespace vswitch
