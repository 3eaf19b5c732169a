#pragma once
#include <optional>
#include <stdexcept>
#include <string>

namespace vswitch {

/// The command line of vswitchd.
struct Options {
  std::string config;
  std::string control;
  std::string lock;
  std::string pid_file;  ///< empty: none
  std::string log_level;
  bool check = false;
};

/// The command line makes no sense; what() says why.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// @return nullopt when --help or --version was asked for and has been printed. Throws UsageError.
std::optional<Options> parse_options(int argc, const char* const* argv);

/// Sends the log to stderr, in the form the journal wants when stderr leads there. Throws UsageError for an unknown
/// level.
void set_up_log(const std::string& level);

}  // namespace vswitch
