#pragma once
#include <sys/socket.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <vector>

#include "ports/ring/attachment.h"
#include "ports/ring/ring_queue.h"
#include "vswitch/base/fd.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// A tenant's port over shared memory. Listens on a SOCK_SEQPACKET Unix socket; one client at a time may attach, after
/// its credentials and token were checked. The client's connection is the attachment's life.
class RingPort final : public Port {
 public:
  /// @param spec attach must be a RingAttachSpec, mtu filled in
  RingPort(const PortSpec& spec, PortContext& context);
  ~RingPort() override;

  void start() override;
  void stop() noexcept override;
  void permit(OffloadCaps offloads) override;
  [[nodiscard]] Queue& queue(std::size_t w) override { return *queues_[w]; }
  [[nodiscard]] const PortCounters& counters(std::size_t w) const override { return counters_[w]; }
  [[nodiscard]] PortStatus status() const override;

 private:
  /// A connection that has not said hello yet.
  struct Caller {
    Fd socket;
    Reactor::Handle watch = 0;
    Reactor::Handle deadline = 0;
  };

  void on_connect();
  void listen_later();
  void listen_now();
  void on_hello(int fd);
  void end_call(int fd) noexcept;
  void watch_client();
  void on_client();
  [[nodiscard]] bool on_request() noexcept;
  void apply_features() noexcept;
  [[nodiscard]] bool tell_features(std::uint32_t serial) noexcept;
  void detach() noexcept;
  [[nodiscard]] int judge(const vswitch_hello& hello, const ucred& peer, int socket, std::string& why);
  void answer(int socket, const vswitch_welcome& welcome, const std::vector<int>& fds);
  void attach(Fd& socket, const vswitch_hello& hello, const ucred& peer);
  [[nodiscard]] vswitch_welcome welcome_with(int error, const std::string& why) const;

  const PortSpec spec_;
  const RingAttachSpec& attach_spec_;
  PortContext& context_;
  std::unique_ptr<PortCounters[]> counters_;
  std::vector<std::unique_ptr<RingQueue>> queues_;
  std::size_t first_worker_ = 0;
  Fd listener_;
  Reactor::Handle listener_watch_ = 0;  ///< or the timer after which it is watched again
  std::map<int, Caller> callers_;
  std::unique_ptr<Attachment> attachment_;
  Arena arena_;  ///< the tenant memory of `attachment_`
  Fd client_;
  Reactor::Handle client_watch_ = 0;  ///< or the timer after which it is watched again
  Nanoseconds next_request_ = 0;      ///< the client is not heard before
  ucred peer_{};
  OffloadCaps asked_;      ///< what the client is ready to receive
  OffloadCaps permitted_;  ///< and may receive
  OffloadCaps granted_;    ///< what the queues give it
};

}  // namespace vswitch
