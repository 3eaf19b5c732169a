#include "ports/ring/ring_port.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "ports/ring/socket.h"
#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr Nanoseconds kHelloDeadline = 5 * kSecond;
constexpr std::size_t kMaxCallers = 8;
constexpr Nanoseconds kRequestPause = 10 * kMillisecond;

struct Feature {
  std::uint32_t bit;
  bool OffloadCaps::*cap;
};
constexpr std::array<Feature, 5> kFeatures{{{VSWITCH_FEATURE_CSUM, &OffloadCaps::checksum},
                                            {VSWITCH_FEATURE_TSO4, &OffloadCaps::tso4},
                                            {VSWITCH_FEATURE_TSO6, &OffloadCaps::tso6},
                                            {VSWITCH_FEATURE_ECN, &OffloadCaps::ecn},
                                            {VSWITCH_FEATURE_USO, &OffloadCaps::uso}}};

constexpr OffloadCaps caps_of(std::uint32_t features) noexcept {
  OffloadCaps caps;
  for (const Feature& feature : kFeatures) caps.*feature.cap = (features & feature.bit) != 0;
  return caps;
}

constexpr std::uint32_t features_of(OffloadCaps caps) noexcept {
  std::uint32_t features = 0;
  for (const Feature& feature : kFeatures) features |= caps.*feature.cap ? feature.bit : 0;
  return features;
}

/// Compares without telling by its duration where the difference is.
bool same_token(const std::string& expected, const char (&given)[VSWITCH_RING_TOKEN_BYTES]) noexcept {
  std::array<char, VSWITCH_RING_TOKEN_BYTES> padded{};
  std::memcpy(padded.data(), expected.data(), std::min(expected.size(), padded.size()));
  unsigned difference = 0;
  for (std::size_t i = 0; i < padded.size(); ++i) difference |= static_cast<unsigned>(padded[i] ^ given[i]);
  return difference == 0;
}

template <std::size_t N>
void copy_text(char (&to)[N], const std::string& text) noexcept {
  std::memcpy(to, text.data(), std::min(text.size(), N - 1));
}

/// Whatever was said before and is still unread.
bool hung_up(int socket) noexcept {
  pollfd end{socket, POLLRDHUP, 0};
  return ::poll(&end, 1, 0) > 0;
}

}  // namespace

RingPort::RingPort(const PortSpec& spec, PortContext& context)
    : spec_(spec),
      attach_spec_(std::get<RingAttachSpec>(spec_.attach)),
      context_(context),
      counters_(std::make_unique<PortCounters[]>(context.workers)),
      permitted_(spec.offloads) {}

RingPort::~RingPort() { stop(); }

void RingPort::start() {
  listener_ = listen_for_tenant(attach_spec_);
  try {
    for (std::size_t w = 0; w < context_.workers; ++w) {
      queues_.push_back(std::make_unique<RingQueue>(w, spec_.vlan, counters_[w]));
    }
    listen_now();
  } catch (...) {
    stop();
    throw;
  }
  first_worker_ = context_.next_worker;
  context_.next_worker = (context_.next_worker + attach_spec_.queues) % context_.workers;
}

void RingPort::stop() noexcept {
  while (!callers_.empty()) end_call(callers_.begin()->first);
  if (client_.valid()) detach();
  context_.reactor.cancel(listener_watch_);
  if (listener_.valid()) ::unlink(attach_spec_.socket.c_str());
  listener_.reset();
  queues_.clear();
}

PortStatus RingPort::status() const {
  PortStatus status{.link_up = client_.valid(), .mtu = spec_.mtu, .detail = "ring at " + attach_spec_.socket};
  status.offloads_requested = permitted_;
  const OffloadCaps missing = permitted_.without(granted_);
  if (client_.valid()) {
    status.detail += ", attached by pid " + std::to_string(peer_.pid) + " uid " + std::to_string(peer_.uid);
    if (const std::string how = context_.arenas.how(arena_); !how.empty()) status.detail += ", " + how;
    if (missing != OffloadCaps{}) status.offloads_why_not = "the tenant does not ask for " + to_string(missing);
  } else {
    status.detail += ", nobody attached";
    if (missing != OffloadCaps{}) status.offloads_why_not = "nobody is attached";
  }
  return status;
}

void RingPort::on_connect() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) {
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) listen_later();
    return;
  }
  if (callers_.size() >= kMaxCallers) return;  // closes it: somebody knocks without ever saying hello
  const int fd = socket.get();
  Caller& caller = callers_[fd];
  caller.socket = std::move(socket);
  caller.watch = context_.reactor.watch(fd, [this, fd] { on_hello(fd); });
  caller.deadline = context_.reactor.after(kHelloDeadline, [this, fd] { end_call(fd); });
}

/// Out of descriptors or memory: the caller waits in the backlog, and the control thread must not spin on it.
void RingPort::listen_later() {
  context_.reactor.cancel(listener_watch_);
  listener_watch_ = context_.reactor.after(kSecond, [this] { listen_now(); });
}

void RingPort::listen_now() {
  listener_watch_ = context_.reactor.watch(listener_.get(), [this] { on_connect(); });
}

void RingPort::end_call(int fd) noexcept {
  const auto caller = callers_.find(fd);
  if (caller == callers_.end()) return;
  context_.reactor.cancel(caller->second.watch);
  context_.reactor.cancel(caller->second.deadline);
  callers_.erase(caller);
}

void RingPort::on_hello(int fd) {
  std::array<std::byte, sizeof(vswitch_hello) + 1> bytes{};
  const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  Fd socket = std::move(callers_.at(fd).socket);
  end_call(fd);
  if (got != static_cast<ssize_t>(sizeof(vswitch_hello))) return;
  vswitch_hello hello;
  std::memcpy(&hello, bytes.data(), sizeof(hello));
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  std::string why;
  if (const int error = judge(hello, peer, socket.get(), why); error != 0) {
    answer(socket.get(), welcome_with(error, why), {});
    return;
  }
  try {
    attach(socket, hello, peer);
  } catch (const Error& failure) {
    answer(socket.get(), welcome_with(failure.code() != 0 ? failure.code() : EIO, failure.what()), {});
  }
}

int RingPort::judge(const vswitch_hello& hello, const ucred& peer, int socket, std::string& why) {
  if (hello.magic != VSWITCH_RING_MAGIC) {
    why = "not a vswitch hello";
    return EPROTO;
  }
  if (hello.version_min > VSWITCH_RING_VERSION || hello.version_max < VSWITCH_RING_VERSION) {
    why = "this switch speaks version " + std::to_string(VSWITCH_RING_VERSION);
    return EPROTONOSUPPORT;
  }
  if (!tenant_is_allowed(attach_spec_, peer, socket)) {
    why = "port " + spec_.full_name() + " is not for uid " + std::to_string(peer.uid) +
          "; see uid and gid in tenants.json";
    return EACCES;
  }
  if (!attach_spec_.token.empty() && !same_token(attach_spec_.token, hello.token)) {
    why = "port " + spec_.full_name() + " wants another token";
    return EACCES;
  }
  if (client_.valid() && hung_up(client_.get())) detach();  // its end is there, only not yet seen
  if (client_.valid()) {
    why = "port " + spec_.full_name() + " is attached by pid " + std::to_string(peer_.pid);
    return EBUSY;
  }
  return 0;
}

vswitch_welcome RingPort::welcome_with(int error, const std::string& why) const {
  vswitch_welcome welcome{};
  welcome.magic = VSWITCH_RING_MAGIC;
  welcome.version = VSWITCH_RING_VERSION;
  welcome.error = error;
  welcome.queues = attach_spec_.queues;
  welcome.rx_rings = static_cast<std::uint32_t>(context_.workers);
  welcome.ring_frames = attach_spec_.ring_frames;
  welcome.arena_bytes = attach_spec_.arena_bytes;
  welcome.mtu = spec_.mtu;
  welcome.vlan = spec_.vlan;
  std::memcpy(welcome.mac, spec_.mac.bytes.data(), sizeof(welcome.mac));
  for (const IpPrefix& ip : spec_.ips) {
    if (welcome.address_count == VSWITCH_RING_ADDRESSES) break;
    vswitch_address& address = welcome.addresses[welcome.address_count++];
    address.length = ip.address.length;
    address.prefix_length = ip.prefix_length;
    std::memcpy(address.bytes, ip.address.bytes.data(), ip.address.length);
  }
  copy_text(welcome.name, spec_.full_name());
  copy_text(welcome.message, why);
  return welcome;
}

void RingPort::answer(int socket, const vswitch_welcome& welcome, const std::vector<int>& fds) {
  constexpr std::size_t kMaxFds = 2 + 2 * VSWITCH_RING_MAX_QUEUES;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  iovec place{const_cast<vswitch_welcome*>(&welcome), sizeof(welcome)};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  if (::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && !fds.empty())
    throw_errno("answer", "a tenant's hello");
}

void RingPort::attach(Fd& socket, const vswitch_hello& hello, const ucred& peer) {
  vswitch_welcome welcome = welcome_with(0, "");
  const ArenaUser* const user = context_.arenas.user_of(spec_.uplink);
  if (user != nullptr && welcome.queues == 1) welcome.direct_bytes = user->receive_bytes();
  const vswitch_geometry geometry{welcome.queues, welcome.rx_rings, welcome.ring_frames, welcome.arena_bytes,
                                  welcome.direct_bytes};
  attachment_ = std::make_unique<Attachment>(geometry, first_worker_, user != nullptr);
  arena_ = {spec_.uplink, spec_.vlan, spec_.mac, attachment_->tenant_memory(), attachment_->received_into(), ""};
  if (user == nullptr) arena_.sent_from = {};
  if (arena_.received_into.empty()) {
    arena_.why_no_slots =
        geometry.queues > 1 ? "it has several queue pairs" : "it attached before this uplink was there";
  }
  context_.arenas.add(arena_);
  std::vector<int> fds{attachment_->switch_fd(), attachment_->tenant_fd()};
  for (std::uint32_t q = 0; q < geometry.queues; ++q)
    fds.push_back(queues_[(first_worker_ + q) % queues_.size()]->wait_fd());
  for (std::uint32_t q = 0; q < geometry.queues; ++q) fds.push_back(attachment_->tenant_wake_fd(q));
  asked_ = caps_of(hello.features);
  apply_features();
  welcome.features = features_of(granted_);
  for (const auto& queue : queues_) queue->attach(attachment_.get());  // before the answer: who has it can be sent to
  client_ = std::move(socket);
  try {
    answer(client_.get(), welcome, fds);
    watch_client();
  } catch (...) {
    socket = std::move(client_);
    detach();
    throw;
  }
  attachment_->close_files();
  next_request_ = 0;
  peer_ = peer;
  context_.changed();
}

void RingPort::watch_client() {
  client_watch_ = context_.reactor.watch(client_.get(), [this] { on_client(); });
}

/// The client hung up, or asks for other features, which it may do now and then. Whatever else it says is the end.
void RingPort::on_client() {
  if (!hung_up(client_.get())) {
    const Nanoseconds now = monotonic_now();
    if (now < next_request_) {  // it keeps us busy: not more than so
      context_.reactor.cancel(client_watch_);
      client_watch_ = context_.reactor.after(next_request_ - now, [this] { watch_client(); });
      return;
    }
    next_request_ = now + kRequestPause;
    if (on_request()) return;
  }
  detach();
  context_.changed();
}

/// @return false: it is no request, or the client does not read its answers
bool RingPort::on_request() noexcept {
  std::array<std::byte, sizeof(vswitch_features_request) + 1> bytes;
  const ssize_t got = ::recv(client_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  vswitch_features_request request;
  if (got != static_cast<ssize_t>(sizeof(request))) return false;
  std::memcpy(&request, bytes.data(), sizeof(request));
  if (request.magic != VSWITCH_RING_FEATURES_MAGIC) return false;
  asked_ = caps_of(request.features);
  apply_features();
  return tell_features(request.serial);
}

/// @param serial of the request that is answered; 0: nobody asked
/// @return false: the client does not read, or is gone
bool RingPort::tell_features(std::uint32_t serial) noexcept {
  const vswitch_features_answer answer{VSWITCH_RING_FEATURES_MAGIC, serial, features_of(granted_)};
  return ::send(client_.get(), &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(sizeof(answer));
}

void RingPort::permit(OffloadCaps offloads) {
  permitted_ = offloads;
  const OffloadCaps before = granted_;
  apply_features();
  // A client that reads no answers is none the worse: it hears of it with the next one, or with the next attachment.
  if (client_.valid() && granted_ != before) static_cast<void>(tell_features(0));
}

/// Grants what is asked for and permitted. Returns when no worker will send the client what it is no longer ready for.
void RingPort::apply_features() noexcept {
  const OffloadCaps before = granted_;
  granted_ = (asked_ & permitted_).consistent();
  for (const auto& queue : queues_) queue->set_offloads(granted_);
  if (before.without(granted_) != OffloadCaps{}) context_.quiescence.wait();
}

void RingPort::detach() noexcept {
  for (const auto& queue : queues_) {
    queue->attach(nullptr);
    queue->set_offloads({});  // seen by every worker before the next client, who may not want unfinished frames
  }
  asked_ = granted_ = {};
  context_.quiescence.wait();
  context_.arenas.remove(arena_);
  attachment_.reset();
  context_.reactor.cancel(client_watch_);
  client_watch_ = 0;
  client_.reset();
}

}  // namespace vswitch
