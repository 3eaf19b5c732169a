#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "ports/ring/attachment.h"
#include "ports/ring/socket.h"
#include "tests/bench/process.h"
#include "tests/bench/tenant.h"
#include "vswitch/base/error.h"
#include "vswitch/core/port.h"

// The rings with no switch between them: what comes out of port 0's ring is copied into port 1's (or, with --discard,
// dropped on the spot), by the switch's own ring code and nothing else. Tenants attach as they do to vswitchd.

namespace vswitch::bench {
namespace {

constexpr std::uint32_t kIdleLoops = 1 << 14;  // between two looks at whether the tenant is still there
constexpr int kPatienceMs = 30'000;
constexpr std::uint32_t kMtu = 2000;  // payload bytes; above all sizes measured

/// One port and its tenant: an attachment without a daemon around it.
class BarePort {
 public:
  /// Listens. Throws Error.
  BarePort(const std::string& folder, std::uint32_t index) : kick_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!kick_.valid()) throw_errno("create", "an eventfd");
    spec_.socket = socket_path(folder, index);
    listener_ = listen_for_tenant(spec_);
  }
  ~BarePort() {
    if (listener_.valid()) ::unlink(spec_.socket.c_str());
  }
  BarePort(const BarePort&) = delete;
  BarePort& operator=(const BarePort&) = delete;

  /// Waits for the tenant and gives it its rings. Throws Error.
  void serve() {
    wait_for(listener_.get(), "wait for the tenant of");
    tenant_ = Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!tenant_.valid()) throw_errno("accept the tenant of", spec_.socket);
    wait_for(tenant_.get(), "wait for the hello at");
    vswitch_hello hello{};
    if (::recv(tenant_.get(), &hello, sizeof(hello), 0) != static_cast<ssize_t>(sizeof(hello)) ||
        hello.magic != VSWITCH_RING_MAGIC)
      throw Error(EPROTO, "read the hello at", spec_.socket);
    const vswitch_geometry geometry{1, 1, spec_.ring_frames, spec_.arena_bytes, 0};
    attachment_ = std::make_unique<Attachment>(geometry, 0, false);
    welcome();
    attachment_->close_files();
  }

  [[nodiscard]] WorkerRings& rings() noexcept { return attachment_->worker(0); }
  [[nodiscard]] bool is_over() const noexcept {
    char byte;
    return ::recv(tenant_.get(), &byte, sizeof(byte), MSG_DONTWAIT | MSG_PEEK) >= 0 || errno != EAGAIN;
  }

 private:
  void wait_for(int fd, const char* what) const {
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0) throw Error(ETIMEDOUT, what, spec_.socket);
  }

  void welcome() {
    vswitch_welcome answer{};
    answer.magic = VSWITCH_RING_MAGIC;
    answer.version = VSWITCH_RING_VERSION;
    answer.queues = 1;
    answer.rx_rings = 1;
    answer.ring_frames = spec_.ring_frames;
    answer.arena_bytes = spec_.arena_bytes;
    answer.mtu = kMtu;
    const std::array<int, 4> fds{attachment_->switch_fd(), attachment_->tenant_fd(), kick_.get(),
                                 attachment_->tenant_wake_fd(0)};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
    iovec place{&answer, sizeof(answer)};
    msghdr message{};
    message.msg_iov = &place;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fds));
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(fds));
    if (::sendmsg(tenant_.get(), &message, MSG_NOSIGNAL) < 0) throw_errno("welcome the tenant of", spec_.socket);
  }

  RingAttachSpec spec_;  ///< the daemon's defaults
  Fd kick_;
  Fd listener_;
  Fd tenant_;
  std::unique_ptr<Attachment> attachment_;
};

/// Frames taken out of the ring of `from` until its tenant has gone and the ring is empty.
class BareLoop {
 public:
  explicit BareLoop(BarePort& from) : from_(from), out_(from.rings().tx.front()) {
    for (std::size_t i = 0; i < kBurstFrames; ++i) frames_[i] = burst_.begin() + i;
  }

  std::uint64_t discard() {
    std::uint64_t taken = 0;
    while (const std::size_t count = next()) {
      out_.release();
      taken += count;
    }
    return taken;
  }

  /// A full ring is waited for: nothing is lost here.
  std::uint64_t copy_to(RxRing& in) {
    std::uint64_t taken = 0;
    while (const std::size_t count = next()) {
      std::size_t done = 0;
      for (std::uint32_t idle = 1; done < count; ++idle) {
        done += in.put(std::span(frames_).subspan(done, count - done), false);
        in.publish();
        if (idle % kIdleLoops == 0 && from_.is_over()) return taken + done;
      }
      out_.release();
      taken += count;
    }
    return taken;
  }

 private:
  /// @return frames in burst_; 0: the tenant has gone
  std::size_t next() {
    for (std::uint32_t idle = 1;; ++idle) {
      burst_.clear();
      if (out_.receive(burst_, 0, counters_) != 0) return burst_.size();
      if (idle % kIdleLoops == 0 && from_.is_over()) return 0;
    }
  }

  BarePort& from_;
  TxRing& out_;
  Burst burst_;
  std::array<const Frame*, kBurstFrames> frames_{};
  PortCounters counters_;
};

int body(int argc, char** argv) {
  Placement placement;
  std::string folder;
  bool discard = false;
  po::options_description options("ring_bare: the rings of ports 0 and 1 with no switch between them; options");
  add_placement_options(options, placement);
  options.add_options()("folder", po::value(&folder)->required(), "where to make the sockets r0 and r1")(
      "discard", po::bool_switch(&discard), "only take the frames out");
  if (!parse(argc, argv, options)) return 0;
  apply(placement);
  BarePort from(folder, 0);
  BarePort to(folder, 1);
  std::cout << R"({"ready": true})" << std::endl;  // flushed: who started this waits for it
  from.serve();
  to.serve();
  BareLoop loop(from);
  const std::uint64_t frames = discard ? loop.discard() : loop.copy_to(to.rings().rx.front());
  std::cout << nlohmann::json{{"frames", frames}} << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("ring_bare", vswitch::bench::body, argc, argv); }
