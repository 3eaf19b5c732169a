#include "vswitch/daemon/options.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <boost/program_options.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "vswitch/daemon/control_client.h"
#include "vswitch/daemon/version.h"

namespace vswitch {
namespace {

namespace po = boost::program_options;

/// Writes the level as "<N>", syslog's number in the form that the journal takes from stderr (sd-daemon(3)).
class JournalLevel final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/, spdlog::memory_buf_t& out) override {
    static constexpr std::array<char, spdlog::level::n_levels> kNumbers{'7', '7', '6', '4', '3', '2', '7'};
    const char number = kNumbers[static_cast<std::size_t>(message.level)];
    out.push_back('<');
    out.push_back(number);
    out.push_back('>');
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JournalLevel>();
  }
};

}  // namespace

std::optional<Options> parse_options(int argc, const char* const* argv) {
  Options options;
  po::options_description known("vswitchd --config FILE [options]\n\nOptions");
  known.add_options()                                                                                        //
      ("config", po::value(&options.config)->value_name("FILE"), "the configuration, see tenants.json(5)")   //
      ("check", po::bool_switch(&options.check), "only say whether the configuration is good; exit 0 or 1")  //
      ("control", po::value(&options.control)->default_value(kDefaultControlPath)->value_name("PATH"),
       "control socket, for vswitchctl")                                                                           //
      ("lock", po::value(&options.lock)->value_name("PATH"), "lock file; beside the control socket if not given")  //
      ("pid-file", po::value(&options.pid_file)->value_name("PATH"), "write the process id there")                 //
      ("log-level", po::value(&options.log_level)->default_value("info")->value_name("LEVEL"),
       "trace, debug, info, warning, error or critical")  //
      ("help", "print this and exit")                     //
      ("version", "print the version and exit");
  po::variables_map given;
  try {
    const po::positional_options_description none;
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(known).positional(none).style(style).run(), given);
    po::notify(given);
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
  if (given.count("help") != 0) {
    std::cout << known;
    return std::nullopt;
  }
  if (given.count("version") != 0) {
    std::cout << "vswitchd " << version() << "\n";
    return std::nullopt;
  }
  if (options.config.empty()) throw UsageError("--config FILE is required");
  if (options.control.empty()) throw UsageError("--control needs a path");
  if (options.lock.empty()) options.lock = options.control + ".lock";
  return options;
}

void set_up_log(const std::string& level) {
  const auto wanted = spdlog::level::from_str(level);
  if (wanted == spdlog::level::off) {
    throw UsageError("--log-level is one of trace, debug, info, warning, error, critical; not \"" + level + "\"");
  }
  auto logger = std::make_shared<spdlog::logger>("vswitchd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (std::getenv("JOURNAL_STREAM") != nullptr) {
    formatter->add_flag<JournalLevel>('N').set_pattern("%N%v");
  } else {
    formatter->set_pattern("%Y-%m-%d %H:%M:%S.%e %l: %v");
  }
  logger->set_formatter(std::move(formatter));
  logger->set_level(wanted);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace vswitch
