#include "tests/softnic/mlx5/nic.h"

#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/mlx5-abi.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "tests/softnic/core/offload.h"

/// One thread serves all queues in rounds: doorbells and sends, then received frames, then completions and events.
/// It polls: the driver's doorbells are plain memory. Between rounds without work it naps, so that on a machine with
/// few CPUs the software under test gets to run.
namespace softnic {
namespace {

constexpr int kRequestsPerRound = 64;
constexpr std::size_t kFramesPerRound = 64;
constexpr int kIdleRoundsBeforeNap = 50;
constexpr long kNapNs = 20'000;
constexpr long kIdleNapNs = 500'000;
constexpr long kLockNapNs = 1'000;
constexpr std::uint32_t kBlueFlameStart = 0x800;
constexpr std::uint32_t kArmRegister = 0x20;

std::uint64_t clock_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

void nap(long ns) noexcept {
  const timespec time{0, ns};
  nanosleep(&time, nullptr);
}

}  // namespace

Nic::Nic(Fabric& fabric, Board& board, AsyncEvent event)
    : fabric_(fabric), board_(board), event_(std::move(event)), fatal_seen_(board.fatal.load()) {
  uar_fd_ = memfd_create("softnic-uar", MFD_CLOEXEC);
  constexpr std::size_t kAll = std::size_t{kUars} * kUarBytes;
  void* pages = MAP_FAILED;
  if (uar_fd_ >= 0 && ftruncate(uar_fd_, kAll) == 0)
    pages = mmap(nullptr, kAll, PROT_READ | PROT_WRITE, MAP_SHARED, uar_fd_, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  for (std::uint32_t i = 0; i < kUars; ++i) {
    uars_.push_back(static_cast<std::uint8_t*>(pages) + std::size_t{i} * kUarBytes);
    for (std::uint32_t k = 0; k < 2; ++k) {
      doorbells_.push_back(
          std::make_unique<Doorbell>(uars_.back(), kBlueFlameStart + k * kBlueFlameBytes, kBlueFlameBytes / 2));
    }
  }
  for (std::size_t port = 0; port < kMostPorts; ++port)
    port_up_[port] = board.carrier[port] != 0 && board.link_down[port] == 0;
  thread_ = std::thread([this] { run(); });
}

Nic::~Nic() {
  stop_ = true;
  thread_.join();
  munmap(uars_.front(), std::size_t{kUars} * kUarBytes);
  close(uar_fd_);
}

std::unique_lock<std::mutex> Nic::lock() {
  ++waiting_;
  std::unique_lock<std::mutex> held(mutex_);
  --waiting_;
  return held;
}

std::uint32_t Nic::assign_doorbell(QueuePair& qp) {
  // Register 0 has no BlueFlame buffer in the driver's eyes and works like the others here.
  const auto least = std::min_element(doorbells_.begin(), doorbells_.end(),
                                      [](const auto& a, const auto& b) { return a->users() < b->users(); });
  qp.doorbell = least->get();
  qp.doorbell->join();
  const auto number = static_cast<std::uint32_t>(least - doorbells_.begin());
  return number / 2 * 4 + number % 2;
}

void Nic::set_state(QueuePair& qp, QueueState state) {
  if (state == qp.state) return;
  qp.state = state;
  if (state == QueueState::err) {
    if (qp.send) qp.send->flush();
    if (qp.receive) qp.receive->flush();
  }
  if (state == QueueState::reset) {
    if (qp.send) qp.send->reset();
    if (qp.receive) qp.receive->reset();
    write_completions();
  }
}

void Nic::set_state(WorkQueue& wq, bool ready, bool error) {
  wq.ready = ready;
  wq.error = error;
  if (error) wq.queue->flush();
  if (!ready && !error) {
    wq.queue->reset();
    write_completions();
  }
}

void Nic::write_completions() {
  for (auto& [number, cq] : cqs) cq->flush(true);
}

void Nic::fail(QueuePair& qp) {
  if (qp.state == QueueState::err || qp.state == QueueState::reset) return;
  set_state(qp, QueueState::err);
  event_(IBV_EVENT_QP_FATAL, qp.cookie);
}

void Nic::fail(WorkQueue& wq) {
  if (wq.error) return;
  set_state(wq, false, true);
  event_(IBV_EVENT_WQ_FATAL, wq.cookie);
}

void Nic::frame(Bytes bytes) { fabric_.transmit(sending_->port, sending_->number, bytes); }

// The fields in the order of the RSS specification: addresses, then ports. A frame without the wanted headers has hash
// 0.
WorkQueue* Nic::choose(const QueuePair& qp, Bytes frame, const Headers& headers, std::uint32_t& hash) {
  const std::uint64_t fields = qp.rss->fields;
  std::array<std::uint8_t, 36> input{};
  std::size_t length = 0;
  const auto add = [&](bool wanted, std::size_t at, std::size_t bytes) {
    if (!wanted) return;
    std::memcpy(&input[length], &frame[at], bytes);
    length += bytes;
  };
  if (headers.ipv4) {
    add((fields & MLX5_RX_HASH_SRC_IPV4) != 0, headers.l3 + 12U, 4);
    add((fields & MLX5_RX_HASH_DST_IPV4) != 0, headers.l3 + 16U, 4);
  } else if (headers.ipv6) {
    add((fields & MLX5_RX_HASH_SRC_IPV6) != 0, headers.l3 + 8U, 16);
    add((fields & MLX5_RX_HASH_DST_IPV6) != 0, headers.l3 + 24U, 16);
  }
  if (headers.l4 != 0) {
    const bool tcp = headers.tcp();
    add((fields & (tcp ? MLX5_RX_HASH_SRC_PORT_TCP : MLX5_RX_HASH_SRC_PORT_UDP)) != 0, headers.l4, 2);
    add((fields & (tcp ? MLX5_RX_HASH_DST_PORT_TCP : MLX5_RX_HASH_DST_PORT_UDP)) != 0, headers.l4 + 2U, 2);
  }
  hash = length == 0 ? 0 : toeplitz(qp.rss->key, Bytes(input.data(), length));
  const std::uint32_t number = qp.rss->queues[hash & (qp.rss->queues.size() - 1)];
  const auto found = wqs.find(number);
  return found == wqs.end() ? nullptr : found->second.get();
}

void Nic::deliver(std::uint8_t port, const Delivery& to, Bytes frame) {
  const auto found = qps.find(to.queue.queue);
  const bool takes = found != qps.end() && (found->second->port == port || found->second->rss != nullptr) &&
                     (found->second->state == QueueState::rtr || found->second->state == QueueState::rts);
  if (!takes) {
    board_.count(Counter::drop_queue_state);
    return;
  }
  QueuePair& qp = *found->second;
  const Headers headers = parse(frame);
  std::uint32_t hash = 0;
  if (qp.rss) {
    WorkQueue* wq = choose(qp, frame, headers, hash);
    if (wq == nullptr || !wq->ready) {
      board_.count(Counter::drop_queue_state);
    } else if (!wq->queue->receive(to, frame, headers, hash)) {
      fail(*wq);
    }
  } else if (!qp.receive) {
    board_.count(Counter::drop_no_buffer);
  } else if (!qp.receive->receive(to, frame, headers, hash)) {
    fail(qp);
  }
}

bool Nic::serve_sends(std::uint64_t now_ns) {
  bool worked = false;
  for (auto& [number, qp] : qps) {
    if (qp->receive && qp->state != QueueState::reset) qp->receive->look();
    if (!qp->send || (qp->state != QueueState::rtr && qp->state != QueueState::rts)) continue;
    qp->send->look(now_ns);
    if (!qp->send->work() || qp->state != QueueState::rts) continue;
    worked = true;
    sending_ = qp.get();
    if (!qp->send->process(kRequestsPerRound, now_ns, *this)) fail(*qp);
  }
  for (auto& [number, wq] : wqs) {
    if (wq->ready) wq->queue->look();
  }
  return worked;
}

// What is posted to a queue in the error state completes with an error.
void Nic::flush_failed() {
  for (auto& [number, qp] : qps) {
    if (qp->state != QueueState::err) continue;
    if (qp->send) qp->send->flush();
    if (qp->receive) qp->receive->flush();
  }
  for (auto& [number, wq] : wqs) {
    if (wq->error) wq->queue->flush();
  }
}

// An arm register takes the arm word and the number of the completion queue, 4 bytes each, big-endian.
void Nic::take_arm_registers() {
  for (std::uint8_t* page : uars_) {
    std::atomic_ref<std::uint64_t> word(*reinterpret_cast<std::uint64_t*>(page + kArmRegister));
    if (word.load(std::memory_order_relaxed) == 0) continue;
    const std::uint64_t taken = word.exchange(0, std::memory_order_acquire);
    std::array<std::uint8_t, sizeof taken> bytes{};
    std::memcpy(bytes.data(), &taken, sizeof taken);
    ++arm_writes_;
    if (const auto cq = cqs.find(load_be32(&bytes[4])); cq != cqs.end()) cq->second->arm_register_written();
  }
}

void Nic::serve_completions(std::uint64_t now_ns) {
  take_arm_registers();
  for (auto& [number, cq] : cqs) {
    cq->flush(false);
    cq->interrupt(arm_writes_, now_ns);
    if (!cq->take_overrun()) continue;
    event_(IBV_EVENT_CQ_ERR, cq->events().cookie);
    for (auto& [qpn, qp] : qps) {
      if (qp->send_cq == number || qp->receive_cq == number) fail(*qp);
    }
    for (auto& [wqn, wq] : wqs) {
      if (wq->cq == number) fail(*wq);
    }
  }
}

void Nic::serve_board() {
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
  const std::uint32_t broken = board_.break_queue.load(std::memory_order_relaxed);
  if (broken == 0) return;
  const auto found = qps.find(broken);
  std::uint32_t expected = broken;
  if (found == qps.end() || !board_.break_queue.compare_exchange_strong(expected, 0)) return;
  board_.count(Counter::faults);
  const std::uint32_t syndrome = board_.break_syndrome.load();
  if (syndrome != 0 && found->second->send) {
    found->second->send->break_next(static_cast<std::uint8_t>(syndrome));
  } else {
    fail(*found->second);
  }
}

bool Nic::round(std::uint64_t now_ns) {
  serve_board();
  const bool sent = serve_sends(now_ns);
  flush_failed();
  const bool received = fabric_.receive(*this, kFramesPerRound) != 0;
  serve_completions(now_ns);
  return sent || received;
}

void Nic::run() {
  // On two CPUs a client that polls would keep this thread from running for whole time slices.
  const sched_param first{1};
  sched_setscheduler(0, SCHED_FIFO, &first);
  pthread_setname_np(pthread_self(), "softnic");
  int idle = 0;
  while (!stop_) {
    bool worked = false;
    bool empty = false;
    {
      const std::lock_guard held(mutex_);
      worked = round(clock_ns());
      empty = qps.empty();
    }
    idle = worked ? 0 : idle + 1;
    while (waiting_ != 0 && !stop_) nap(kLockNapNs);
    if (idle > kIdleRoundsBeforeNap) nap(empty ? kIdleNapNs : kNapNs);
  }
}

}  // namespace softnic
