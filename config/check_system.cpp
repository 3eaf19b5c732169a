#include "config/check_system.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>

#include "config/nearest.h"
#include "config/problems.h"
#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"

namespace vswitch {
namespace {

std::string reason(int err) { return std::generic_category().message(err); }

struct NamesDelete {
  void operator()(struct if_nameindex* names) const noexcept { if_freenameindex(names); }
};

std::vector<std::string> all_netdevs() {
  const std::unique_ptr<struct if_nameindex, NamesDelete> names(if_nameindex());
  if (!names) throw_errno("list", "network devices");
  std::vector<std::string> result;
  for (const struct if_nameindex* entry = names.get(); entry->if_index != 0; ++entry) {
    result.emplace_back(entry->if_name);
  }
  return result;
}

/// Says in a throw-away thread whether a worker could be pinned there: offline CPUs and those outside our cpuset are
/// refused by the kernel, and our own affinity stays as it is.
bool can_run_on(int cpu) {
  bool accepted = false;
  std::thread([&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    accepted = cpu < CPU_SETSIZE && sched_setaffinity(0, sizeof(set), &set) == 0;
  }).join();
  return accepted;
}

/// The pid in "/proc/PID/ns/net"; empty for other paths.
std::string pid_of(const std::string& netns) {
  constexpr std::string_view kBefore = "/proc/";
  constexpr std::string_view kBehind = "/ns/net";
  if (!netns.starts_with(kBefore) || !netns.ends_with(kBehind)) return {};
  const std::string pid = netns.substr(kBefore.size(), netns.size() - kBefore.size() - kBehind.size());
  return pid.find_first_not_of("0123456789") == std::string::npos ? pid : std::string();
}

class SystemCheck {
 public:
  explicit SystemCheck(const std::filesystem::path& runtime_directory)
      : runtime_directory_(runtime_directory), socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    if (!socket_.valid()) throw_errno("open", "a socket to ask for network devices");
  }

  void check_cpus(const WorkersSpec& workers) {
    for (std::size_t i = 0; i < workers.cpus.size(); ++i) {
      if (can_run_on(workers.cpus[i])) continue;
      add(child("/workers/cpus", i), "expected a CPU that is online and allowed to this process, found CPU " +
                                         std::to_string(workers.cpus[i]) + "; see lscpu(1)");
    }
  }

  void check_uplink(const UplinkSpec& uplink) {
    const std::string place = child(child("/uplinks", uplink.name), "netdev");
    ifreq request{};
    uplink.netdev.copy(request.ifr_name, IFNAMSIZ - 1);
    if (::ioctl(socket_.get(), SIOCGIFFLAGS, &request) != 0) return add_missing_netdev(uplink, place, errno);
    const bool loopback = (request.ifr_flags & IFF_LOOPBACK) != 0;
    if (::ioctl(socket_.get(), SIOCGIFHWADDR, &request) != 0) return add_missing_netdev(uplink, place, errno);
    if (loopback || request.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
      add(place, "expected an Ethernet device, found " + in_quotes(uplink.netdev) +
                     (loopback ? ", which is a loopback device" : ", which is of another type"));
    }
  }

  void check_ring(const RingAttachSpec& ring, const std::string& attach) {
    const std::string place = child(attach, "socket");
    const std::filesystem::path socket(ring.socket);
    const std::filesystem::path directory = socket.parent_path();
    struct stat status {};
    if (::stat(directory.c_str(), &status) != 0) {
      if (errno == ENOENT && directory == runtime_directory_) return;
      return add(place, "expected a directory at " + in_quotes(directory.native()) + ", found: " + reason(errno) +
                            "; create it");
    }
    if (!S_ISDIR(status.st_mode)) {
      return add(place, "expected a directory at " + in_quotes(directory.native()) + ", found another kind of file");
    }
    if (::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
      add(place, "expected a directory in which this process may create files, found " + in_quotes(directory.native()) +
                     ": " + reason(errno));
    } else if (::lstat(socket.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
      add(place, "expected a socket or nothing at " + in_quotes(ring.socket) + ", found another kind of file");
    }
  }

  void check_tap(const PortSpec& port, const TapAttachSpec& tap, const std::string& attach) {
    if (tap.netns.empty()) return;
    const std::string pid = pid_of(tap.netns);
    struct stat status {};
    if (!pid.empty() && ::stat(("/proc/" + pid).c_str(), &status) != 0) {
      return add(attach, "expected the network namespace of a running process, found no process " + pid);
    }
    const Fd fd(::open(tap.netns.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid()) {
      return add(attach, "expected a network namespace at " + in_quotes(tap.netns) + ", found: " + reason(errno) +
                             (errno == ENOENT ? "; create it with ip-netns(8)" : ""));
    }
    struct statfs system {};
    const bool is_namespace = ::fstatfs(fd.get(), &system) == 0 && system.f_type == NSFS_MAGIC;
    if (!is_namespace || ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
      return add(attach, "expected a network namespace at " + in_quotes(tap.netns) + ", found " +
                             (is_namespace ? "a namespace of another type" : "another kind of file"));
    }
    if (::fstat(fd.get(), &status) != 0) throw_errno("stat", tap.netns);
    const auto [first, fresh] = devices_.emplace(std::tuple(status.st_dev, status.st_ino, tap.name), port.full_name());
    if (!fresh) {
      add(attach, "expected a name that is new in " + in_quotes(tap.netns) + ", found " + in_quotes(tap.name) +
                      ", which port " + in_quotes(first->second) + " has: both paths are the same namespace");
    }
  }

  [[nodiscard]] std::vector<std::string> take() { return std::move(lines_); }

 private:
  void add(const std::string& pointer, const std::string& text) { lines_.push_back(escaped(pointer) + ": " + text); }

  void add_missing_netdev(const UplinkSpec& uplink, const std::string& place, int err) {
    std::string text = "expected a network device, found " + in_quotes(uplink.netdev) + ": " + reason(err);
    const std::vector<std::string> known = all_netdevs();
    const std::string_view meant = nearest(uplink.netdev, known);
    if (!meant.empty()) {
      text += "; did you mean " + in_quotes(meant) + "?";
    } else {
      text += "; see ip-link(8)";
    }
    add(place, text);
  }

  const std::filesystem::path& runtime_directory_;
  Fd socket_;
  std::map<std::tuple<dev_t, ino_t, std::string>, std::string> devices_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> check_system(const SwitchSpec& spec, const std::filesystem::path& runtime_directory) {
  SystemCheck check(runtime_directory);
  check.check_cpus(spec.workers);
  for (const UplinkSpec& uplink : spec.uplinks) check.check_uplink(uplink);
  for (const PortSpec& port : spec.ports) {
    const std::string attach = child(port_pointer(port.tenant, port.name), "attach");
    if (const auto* ring = std::get_if<RingAttachSpec>(&port.attach)) check.check_ring(*ring, attach);
    if (const auto* tap = std::get_if<TapAttachSpec>(&port.attach)) check.check_tap(port, *tap, attach);
  }
  return check.take();
}

}  // namespace vswitch
