#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "ports/verbs/verbs_uplink.h"
#include "tests/ports/harness.h"
#include "tests/ports/net_lab.h"
#include "tests/ports/test_frames.h"
#include "vswitch/base/error.h"

namespace vswitch::test {
namespace {

/// Where the NIC's files are: the same in every test of this process, for libibverbs asks for SYSFS_PATH once.
const std::string& nic_folder() {
  static const std::string folder = "/tmp/vsw-nic-" + std::to_string(::getpid());
  return folder;
}

/// `softnic serve` (tests/softnic), as long as this lives.
class SoftNic {
 public:
  /// @param options of `softnic serve`
  explicit SoftNic(const std::string& options) {
    ::setenv("SYSFS_PATH", (nic_folder() + "/sysfs").c_str(), 1);
    const std::string command = std::string("exec ") + SOFTNIC + " serve " + nic_folder() + " " + options;
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_errno("make", "a pipe");
    const Fd output(ends[0]);
    process_ = ::fork();
    if (process_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // a test that crashes leaves no NIC behind
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    std::array<char, 6> said{};
    if (::read(output.get(), said.data(), said.size()) != 6) throw Error(0, "start", command);
  }
  SoftNic(const SoftNic&) = delete;
  SoftNic& operator=(const SoftNic&) = delete;
  ~SoftNic() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
    std::error_code ignored;
    std::filesystem::remove_all(nic_folder(), ignored);
  }

 private:
  pid_t process_ = -1;
};

//   this process's namespace          the cable's          the peer's namespace
//   VerbsUplink -- nic0 == software NIC == cable0 ===veth=== far0 -- RawSocket
class VerbsHarness final : public Harness {
 public:
  VerbsHarness() {
    cable_.run([this] {
      shell("ip link add cable0 type veth peer name far0 netns " + peer_.path() + " && ip link set cable0 up");
    });
    peer_.run([] { shell("ip link set far0 up"); });
    nic_.emplace("--port wire=cable0@" + cable_.path() + ",kernel=nic0");
  }

  Traits traits() const override {
    Traits traits;
    traits.vlan_beside = true;
    traits.behind_nic = true;
    traits.never_full = true;  // the NIC drops what the wire does not take
    traits.finishes = true;
    traits.one_worker = true;
    return traits;
  }
  std::unique_ptr<Port> make_port(PortContext& context) override {
    return std::make_unique<VerbsUplink>(UplinkSpec{"wire", "nic0", UplinkDriver::verbs}, context);
  }
  void connect(Port& port, TestReactor& reactor) override {
    Steering wanted;
    wanted.unicast.push_back({0, kTo});
    dynamic_cast<Uplink&>(port).steer(wanted);
    peer_.run([this] {
      shell("ip link set far0 up");
      wait_for_link("far0");
      far_.emplace("far0");
    });
    if (!reactor.run_until([&port] { return port.status().link_up; })) throw Error(0, "wait for", "the NIC's link");
  }
  bool send(const TestFrame& frame) override { return far_->send(frame); }
  std::vector<TestFrame> read(int timeout_ms) override { return far_->read(timeout_ms); }
  void set_narrow(bool /*narrow*/) override {}
  void close_far_end(TestReactor& /*reactor*/) override {
    far_.reset();
    peer_.run([] { shell("ip link set far0 down"); });
  }

 private:
  Namespace peer_;
  Namespace cable_;
  std::optional<SoftNic> nic_;
  std::optional<RawSocket> far_;
};

}  // namespace

std::unique_ptr<Harness> make_verbs_harness() { return std::make_unique<VerbsHarness>(); }

}  // namespace vswitch::test
