/// softnic: makes a software RDMA NIC, runs programs on it, shows its counters, and breaks it on request.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "tests/softnic/core/board.h"
#include "tests/softnic/core/device.h"
#include "tests/softnic/daemon/fault.h"
#include "tests/softnic/daemon/server.h"
#include "tests/softnic/daemon/sysfs.h"

namespace softnic {
namespace {

namespace options = boost::program_options;

constexpr char kUsage[] =
    R"(usage: softnic serve DIR --port wire=NETDEV[,kernel=NETDEV] [options]
                                 makes a NIC and serves it until SIGTERM; DIR holds its files
       softnic run DIR -- PROGRAM [ARGUMENT...]
                                 runs a program that sees this NIC and no other
       softnic run --neutral DIR -- PROGRAM [ARGUMENT...]
                                 the same with a libibverbs of ours that knows no mlx5
       softnic counters DIR      prints every counter
       softnic link DIR PORT up|down
       softnic fault DIR fail COMMAND ERRNO [TIMES]   the next set-up commands of a kind fail: reg_mr ENOMEM
       softnic fault DIR break QUEUE [SYNDROME]       queue pair in error: at once, or with an error completion of the
                                                      next send
       softnic fault DIR lose-interrupts COUNT        events of completion channels that do not come
       softnic fault DIR fatal                        the device reports that it is dead

options of serve:
)";

/// What to say and the exit status 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct PortOptions {
  std::string wire;
  std::string kernel;
};

PortOptions parse_port(const std::string& text) {
  PortOptions port;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto equals = part.find('=');
    const std::string key = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (key == "wire" && !value.empty()) {
      port.wire = value;
    } else if (key == "kernel" && !value.empty()) {
      port.kernel = value;
    } else {
      throw UsageError("--port " + text + ": expected wire=NETDEV[@NETNS][,kernel=NETDEV], found '" + part + "'");
    }
  }
  if (port.wire.empty()) throw UsageError("--port " + text + ": wire=NETDEV is missing");
  return port;
}

/// Opens NETDEV or NETDEV@NETNS (a name as of ip-netns(8), or a path); the socket stays in that namespace.
std::unique_ptr<FrameEnd> open_wire_at(const std::string& place) {
  const auto at = place.find('@');
  if (at == std::string::npos) return open_wire(place);
  const std::string netns = place.substr(at + 1);
  const std::string path = netns.find('/') == std::string::npos ? "/run/netns/" + netns : netns;
  const int here = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  const int there = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (there < 0 || here < 0 || setns(there, CLONE_NEWNET) != 0) {
    throw std::system_error(errno, std::generic_category(), path + ": enter");
  }
  std::unique_ptr<FrameEnd> wire = open_wire(place.substr(0, at));
  if (setns(here, CLONE_NEWNET) != 0) throw std::system_error(errno, std::generic_category(), "leave " + path);
  ::close(there);
  ::close(here);
  return wire;
}

std::array<std::uint8_t, 6> parse_mac(const std::string& text) {
  std::array<unsigned, 6> parts{};
  char rest = 0;
  if (std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%c", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
                  &parts[5], &rest) != 6) {
    throw UsageError("--mac " + text + ": expected six bytes such as 02:00:00:00:00:01");
  }
  std::array<std::uint8_t, 6> mac{};
  std::copy(parts.begin(), parts.end(), mac.begin());
  return mac;
}

const std::string kFeatures = "checksum,tso,vlan-strip,rss,pacing,raw-packet,flow,extended-cq";

std::uint32_t parse_features(const std::string& without) {
  static const std::pair<const char*, std::uint32_t> names[] = {{"checksum", Feature::kChecksum},
                                                                {"tso", Feature::kTso},
                                                                {"vlan-strip", Feature::kVlanStrip},
                                                                {"rss", Feature::kRss},
                                                                {"pacing", Feature::kPacing},
                                                                {"raw-packet", Feature::kRawPacket},
                                                                {"flow", Feature::kFlow},
                                                                {"extended-cq", Feature::kExtendedCq}};
  std::uint32_t features = Feature::kAll;
  std::istringstream parts(without);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto found =
        std::find_if(std::begin(names), std::end(names), [&](const auto& name) { return part == name.first; });
    if (found == std::end(names)) {
      throw UsageError("--without " + part + ": expected some of " + kFeatures);
    }
    features &= ~found->second;
  }
  return features;
}

std::uint32_t parse_poison(const std::string& word) {
  if (word == "all") return Poison::kRequests | Poison::kBuffers;
  if (word == "requests") return Poison::kRequests;
  if (word == "none") return 0;
  throw UsageError("--poison " + word + ": expected all, requests or none");
}

options::options_description serve_options() {
  options::options_description all;
  auto add = all.add_options();
  add("port", options::value<std::vector<std::string>>()->required(),
      "a physical port: wire = netdev that is the cable, best in a named network namespace of its own (the kernel "
      "where "
      "it lies sees its frames too), kernel = TAP to create, the kernel's own netdev; up to twice");
  add("name", options::value<std::string>()->default_value("mlx5_0"), "RDMA device");
  add("uverbs", options::value<unsigned>()->default_value(0), "N of /dev/infiniband/uverbsN");
  add("mac", options::value<std::string>()->default_value("02:50:00:00:00:01"),
      "of the first kernel netdev; others count up");
  add("mtu", options::value<std::uint32_t>()->default_value(1500), "of the kernel netdevs");
  add("min-inline", options::value<std::uint32_t>()->default_value(0), "header bytes each send must inline: 0 or 18");
  add("without", options::value<std::string>()->default_value(""),
      ("features to leave out: " + kFeatures + " (the last one of --neutral alone)").c_str());
  add("max-cqe", options::value<std::uint32_t>()->default_value(kMostEntries), "entries of a completion queue");
  add("seed", options::value<std::uint32_t>()->default_value(1), "of random completion batches; 0: no batches");
  add("dma-delay-us", options::value<std::uint32_t>()->default_value(0),
      "between doorbell and reading of work requests");
  add("poison", options::value<std::string>()->default_value("all"),
      "overwrite what is the NIC's: all; requests = sent work requests only, for clients that read a buffer after they "
      "posted it again; none, for benchmarks");
  return all;
}

void make_device(const std::string& directory, const options::variables_map& given, Board& board, Device& device) {
  const auto texts = given["port"].as<std::vector<std::string>>();
  if (texts.size() > kMostPorts) throw UsageError("--port: at most 2 ports");
  const std::uint32_t min_inline = given["min-inline"].as<std::uint32_t>();
  if (min_inline != 0 && min_inline != 18) throw UsageError("--min-inline: 0 or 18");
  board.seed = given["seed"].as<std::uint32_t>();
  board.poison = parse_poison(given["poison"].as<std::string>());
  board.features = parse_features(given["without"].as<std::string>());
  board.ports = static_cast<std::uint32_t>(texts.size());
  board.min_inline = min_inline;
  board.mtu = given["mtu"].as<std::uint32_t>();
  board.max_cqe = given["max-cqe"].as<std::uint32_t>();
  if (board.max_cqe == 0 || board.max_cqe > kMostEntries)
    throw UsageError("--max-cqe: 1 to " + std::to_string(kMostEntries));
  board.dma_delay_ns = given["dma-delay-us"].as<std::uint32_t>() * 1000;
  auto mac = parse_mac(given["mac"].as<std::string>());
  SysfsDevice sysfs{directory, given["name"].as<std::string>(), given["uverbs"].as<unsigned>(), true, {}};
  for (const std::string& text : texts) {
    const PortOptions port = parse_port(text);
    device.add_port(open_wire_at(port.wire),
                    port.kernel.empty() ? nullptr : open_kernel_netdev(port.kernel, mac, board.mtu));
    sysfs.netdevs.push_back(port.kernel);
    ++mac[5];
  }
  write_sysfs(sysfs);
}

int serve(const std::string& directory, const std::vector<std::string>& arguments) {
  options::variables_map given;
  options::store(options::command_line_parser(arguments).options(serve_options()).positional({}).run(), given);
  options::notify(given);
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, nullptr);
  std::filesystem::create_directories(directory);
  BoardFile board(directory + "/board", true);
  Device device(*board);
  make_device(directory, given, *board, device);
  Server server(device, *board, directory + "/socket");
  std::puts("ready");
  std::fflush(stdout);
  server.run();
  // A device that is gone is not in sysfs. The board stays: counters can be read after the end.
  std::filesystem::remove_all(directory + "/sysfs");
  std::filesystem::remove(directory + "/socket");
  return 0;
}

/// Puts `path` ahead of what environment variable `name` lists.
void prepend(const char* name, const std::filesystem::path& path) {
  const char* before = std::getenv(name);
  setenv(name, (before == nullptr ? path.string() : path.string() + ":" + before).c_str(), 1);
}

int run(const std::string& directory, std::vector<std::string> arguments, bool neutral) {
  if (!arguments.empty() && arguments[0] == "--") arguments.erase(arguments.begin());
  if (arguments.empty()) throw UsageError("run: which program?");
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  if (neutral) {
    prepend("LD_LIBRARY_PATH", self.parent_path() / "dropin");
  } else {
    prepend("LD_PRELOAD", self.parent_path() / "libsoftnic.so");
  }
  setenv("SYSFS_PATH", (std::filesystem::absolute(directory) / "sysfs").c_str(), 1);
  std::vector<char*> words;
  for (std::string& word : arguments) words.push_back(word.data());
  words.push_back(nullptr);
  execvp(words[0], words.data());
  throw std::system_error(errno, std::generic_category(), arguments[0]);
}

int counters(const std::string& directory) {
  const BoardFile board(directory + "/board", false);
  for (std::size_t i = 0; i < kCounters; ++i) {
    std::cout << kCounterNames[i] << ' ' << board->counters[i].load() << '\n';
  }
  return 0;
}

int link(const std::string& directory, const std::vector<std::string>& arguments) {
  const bool sound = arguments.size() == 2 && (arguments[1] == "up" || arguments[1] == "down");
  if (!sound || (arguments[0] != "1" && arguments[0] != "2")) throw UsageError("link: expected PORT up|down");
  const BoardFile board(directory + "/board", false);
  board->link_down[static_cast<std::size_t>(arguments[0][0] - '1')] = arguments[1] == "down" ? 1 : 0;
  return 0;
}

int command(std::vector<std::string> arguments) {
  if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::cout << kUsage << serve_options();
    return 0;
  }
  const bool neutral = arguments.size() > 1 && arguments[0] == "run" && arguments[1] == "--neutral";
  if (neutral) arguments.erase(arguments.begin() + 1);
  if (arguments.size() < 2) throw UsageError("expected a command and the directory of a device");
  const std::string verb = arguments[0];
  const std::string directory = arguments[1];
  arguments.erase(arguments.begin(), arguments.begin() + 2);
  if (verb == "serve") return serve(directory, arguments);
  if (verb == "run") return run(directory, std::move(arguments), neutral);
  if (verb == "counters") return counters(directory);
  if (verb == "link") return link(directory, arguments);
  if (verb == "fault") {
    const BoardFile board(directory + "/board", false);
    const std::string wrong = inject(*board, arguments);
    if (!wrong.empty()) throw UsageError("fault: " + wrong);
    return 0;
  }
  throw UsageError("'" + verb + "' is no command");
}

}  // namespace
}  // namespace softnic

int main(int count, char** words) {
  try {
    return softnic::command({words + 1, words + count});
  } catch (const softnic::UsageError& error) {
    std::cerr << "softnic: " << error.what() << "\n(softnic --help)\n";
    return 2;
  } catch (const boost::program_options::error& error) {
    std::cerr << "softnic: " << error.what() << "\n(softnic --help)\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "softnic: " << error.what() << '\n';
    return 1;
  }
}
