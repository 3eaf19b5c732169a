#include "tests/softnic/dropin/engine.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <system_error>
#include <utility>

#include "tests/softnic/core/rss.h"

namespace softnic::dropin {
namespace {

constexpr std::size_t kFramesPerPump = 64;
constexpr std::uint64_t kTickNs = 20'000'000;

// `softnic fault DIR break` names an error by its code in mlx5 completions ("Completion with Error", programmer's
// manual); here that is the vendor's code, and this the status.
constexpr std::pair<std::uint32_t, ibv_wc_status> kStatus[] = {
    {0x01, IBV_WC_LOC_LEN_ERR},    {0x02, IBV_WC_LOC_QP_OP_ERR},   {0x04, IBV_WC_LOC_PROT_ERR},
    {0x05, IBV_WC_WR_FLUSH_ERR},   {0x06, IBV_WC_MW_BIND_ERR},     {0x10, IBV_WC_BAD_RESP_ERR},
    {0x11, IBV_WC_LOC_ACCESS_ERR}, {0x12, IBV_WC_REM_INV_REQ_ERR}, {0x13, IBV_WC_REM_ACCESS_ERR},
    {0x14, IBV_WC_REM_OP_ERR},     {0x15, IBV_WC_RETRY_EXC_ERR},   {0x16, IBV_WC_RNR_RETRY_EXC_ERR},
    {0x22, IBV_WC_REM_ABORT_ERR}};

ibv_wc_status status_of(std::uint32_t syndrome) noexcept {
  const auto found =
      std::find_if(std::begin(kStatus), std::end(kStatus), [&](const auto& one) { return one.first == syndrome; });
  return found == std::end(kStatus) ? IBV_WC_GENERAL_ERR : found->second;
}

}  // namespace

Engine::Engine(Fabric& fabric, Board& board, int frames, AsyncEvent event)
    : fabric_(fabric), board_(board), event_(std::move(event)), frames_fd_(frames), fatal_seen_(board.fatal.load()) {
  kick_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (kick_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  for (std::size_t port = 0; port < kMostPorts; ++port) {
    port_up_[port] = board.carrier[port] != 0 && board.link_down[port] == 0;
  }
  // The application's signals are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Engine::~Engine() {
  if (thread_.joinable()) quiesce();
  ::close(kick_fd_);
}

void Engine::kick() const noexcept {
  const std::uint64_t one = 1;
  if (::write(kick_fd_, &one, sizeof one) < 0) return;  // it is set already
}

void Engine::quiesce() {
  stop_ = true;
  kick();
  if (thread_.joinable()) thread_.join();
  const auto held = lock();
  // The daemon answers after all that it delivered before, so nothing of these queue pairs comes later.
  for (const auto& [number, qp] : qps) fabric_.release_queue(number);
  while (fabric_.receive(*this, kFramesPerPump) != 0) {
  }
}

void Engine::set_state(Qp& qp, ibv_qp_state state) {
  qp.now = state;
  if (state == IBV_QPS_ERR) settle(qp);
  if (state != IBV_QPS_RESET) return;
  if (qp.send) qp.send->reset();
  if (qp.receive) qp.receive->reset();
  qp.rate_kbps = 0;
  show_completions();
}

void Engine::set_state(Wq& wq, ibv_wq_state state) {
  wq.state = state;
  if (state == IBV_WQS_ERR) wq.queue->flush();
  if (state == IBV_WQS_RESET) wq.queue->reset();
  if (state != IBV_WQS_RDY) show_completions();
}

void Engine::show_completions() {
  for (Cq* cq : cqs) cq->completions.release_all();
}

void Engine::settle(Qp& qp) {
  if (qp.now == IBV_QPS_ERR) {
    if (qp.send) qp.send->flush();
    if (qp.receive) qp.receive->flush();
    show_completions();
  }
  check_overruns();
}

void Engine::fail(Qp& qp) {
  if (qp.now == IBV_QPS_ERR || qp.now == IBV_QPS_RESET) return;
  qp.now = IBV_QPS_ERR;
  if (qp.send) qp.send->flush();
  if (qp.receive) qp.receive->flush();
  show_completions();
  event_(IBV_EVENT_QP_FATAL, reinterpret_cast<std::uint64_t>(&qp));
}

void Engine::fail(Wq& wq) {
  if (wq.state == IBV_WQS_ERR) return;
  set_state(wq, IBV_WQS_ERR);
  event_(IBV_EVENT_WQ_FATAL, reinterpret_cast<std::uint64_t>(&wq));
}

void Engine::check_overruns() {
  for (Cq* cq : cqs) {
    if (!cq->completions.take_overrun()) continue;
    event_(IBV_EVENT_CQ_ERR, reinterpret_cast<std::uint64_t>(cq));
    const auto* dead = reinterpret_cast<const ibv_cq*>(static_cast<ibv_cq_ex*>(cq));
    for (auto& [number, qp] : qps) {
      if (qp->qp_base.send_cq == dead || qp->qp_base.recv_cq == dead) fail(*qp);
    }
    for (Wq* wq : wqs) {
      if (wq->cq == dead) fail(*wq);
    }
  }
}

void Engine::frame(Bytes bytes) { fabric_.transmit(sending_->port, sending_->qp_base.qp_num, bytes); }

void Engine::deliver(std::uint8_t port, const Delivery& to, Bytes frame) {
  const auto found = qps.find(to.queue.queue);
  const bool takes = found != qps.end() && (found->second->port == port || found->second->rss) &&
                     (found->second->now == IBV_QPS_RTR || found->second->now == IBV_QPS_RTS);
  if (!takes) {
    board_.count(Counter::drop_queue_state);
    return;
  }
  Qp& qp = *found->second;
  const Headers headers = parse(frame);
  if (qp.rss) {
    const std::vector<Wq*>& queues = qp.rss->table->queues;
    Wq& wq = *queues[rss_hash(qp.rss->fields, qp.rss->key, frame, headers) & (queues.size() - 1)];
    if (wq.state != IBV_WQS_RDY) {
      board_.count(Counter::drop_queue_state);
    } else if (!wq.queue->receive(to, frame, headers, found->first)) {
      fail(wq);
    }
  } else if (!qp.receive) {
    board_.count(Counter::drop_no_buffer);
  } else if (!qp.receive->receive(to, frame, headers, found->first)) {
    fail(qp);
  }
}

void Engine::sent(Qp& qp) {
  serve_break();
  if (qp.now == IBV_QPS_RTS && qp.send) {
    sending_ = &qp;
    if (!qp.send->process(clock_ns(CLOCK_MONOTONIC), *this)) fail(qp);
    if (const std::uint64_t due = qp.send->due_ns(); due != 0 && due < wakes_ns_) kick();
  }
  settle(qp);
}

void Engine::serve_sends(std::uint64_t now_ns) {
  for (auto& [number, qp] : qps) {
    if (!qp->send || qp->now != IBV_QPS_RTS || qp->send->due_ns() == 0) continue;
    sending_ = qp;
    if (!qp->send->process(now_ns, *this)) fail(*qp);
  }
}

void Engine::serve_board() {
  for (std::size_t port = 0; port < kMostPorts; ++port) {
    const bool up = board_.carrier[port].load(std::memory_order_relaxed) != 0 &&
                    board_.link_down[port].load(std::memory_order_relaxed) == 0;
    if (up == port_up_[port]) continue;
    port_up_[port] = up;
    event_(up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR, port + 1);
  }
  if (const std::uint32_t fatal = board_.fatal.load(std::memory_order_relaxed); fatal != fatal_seen_) {
    fatal_seen_ = fatal;
    event_(IBV_EVENT_DEVICE_FATAL, 0);
  }
  serve_break();
}

void Engine::serve_break() {
  const std::uint32_t broken = board_.break_queue.load(std::memory_order_relaxed);
  if (broken == 0) return;
  const auto found = qps.find(broken);
  std::uint32_t expected = broken;
  if (found == qps.end() || !board_.break_queue.compare_exchange_strong(expected, 0)) return;
  board_.count(Counter::faults);
  const std::uint32_t syndrome = board_.break_syndrome.load();
  if (syndrome == 0 || !found->second->send) {
    fail(*found->second);
  } else {
    found->second->send->break_next(status_of(syndrome), syndrome);
  }
}

void Engine::pump() {
  const std::uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
  serve_board();
  serve_sends(now_ns);
  fabric_.receive(*this, kFramesPerPump);
  check_overruns();
}

void Engine::watch() {
  if (!watching_) kick();
}

bool Engine::armed() const {
  return std::any_of(cqs.begin(), cqs.end(), [](const Cq* cq) { return cq->completions.armed(); });
}

std::uint64_t Engine::wake_ns() const {
  std::uint64_t wake = clock_ns(CLOCK_MONOTONIC) + kTickNs;
  for (const auto& [number, qp] : qps) {
    if (!qp->send || qp->now != IBV_QPS_RTS) continue;
    if (const std::uint64_t due = qp->send->due_ns(); due != 0) wake = std::min(wake, due);
  }
  return wake;
}

void Engine::run() {
  bool alive = true;  // the daemon
  while (!stop_) {
    {
      const auto held = lock();
      pump();
      watching_ = armed();
      wakes_ns_ = wake_ns();
    }
    const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
    const std::uint64_t rest = wakes_ns_ > now ? wakes_ns_ - now : 0;
    const timespec patience{static_cast<time_t>(rest / 1'000'000'000), static_cast<long>(rest % 1'000'000'000)};
    pollfd waits[2] = {{kick_fd_, POLLIN, 0}, {frames_fd_, POLLIN, 0}};
    if (ppoll(waits, watching_ && alive ? 2 : 1, &patience, nullptr) <= 0) continue;
    alive = alive && (waits[1].revents & (POLLHUP | POLLERR)) == 0;
    std::uint64_t kicks = 0;
    if ((waits[0].revents & POLLIN) != 0 && ::read(kick_fd_, &kicks, sizeof kicks) < 0) return;
  }
}

}  // namespace softnic::dropin
