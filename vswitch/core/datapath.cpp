#include "vswitch/core/datapath.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>
#include <utility>

#include "vswitch/base/error.h"
#include "vswitch/core/worker.h"

namespace vswitch {
namespace {

void check_cpu(int cpu) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) throw_errno("read", "the CPUs this process may use");
  if (!CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) {
    throw Error(0, "pin a worker to CPU", std::to_string(cpu),
                "that CPU is not online or not allowed for this process");
  }
}

void pin(std::thread& thread, int cpu) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<std::size_t>(cpu), &only);
  if (const int err = ::pthread_setaffinity_np(thread.native_handle(), sizeof(only), &only); err != 0) {
    throw Error(err, "pin a worker to CPU", std::to_string(cpu));
  }
}

}  // namespace

Datapath::Datapath(const WorkersSpec& spec, Quiescence& quiescence)
    : quiescence_(quiescence), table_(TableBuilder(worker_count(spec)).build()), published_(table_.get()) {
  for (std::size_t w = 0; w < worker_count(spec); ++w) {
    const int cpu = spec.cpus.empty() ? -1 : spec.cpus[w];
    workers_.push_back(std::make_unique<Worker>(w, cpu, spec.idle, quiescence, published_));
  }
}

Datapath::~Datapath() { stop(); }

std::size_t Datapath::worker_count(const WorkersSpec& spec) noexcept {
  return std::max<std::size_t>(spec.cpus.size(), 1);
}

void Datapath::start() {
  for (const auto& worker : workers_) {
    if (worker->cpu() >= 0) check_cpu(worker->cpu());
  }
  for (const auto& worker : workers_) {
    std::thread& thread = threads_.emplace_back([&runner = *worker] { runner.run(); });
    ::pthread_setname_np(thread.native_handle(), ("worker/" + std::to_string(threads_.size() - 1)).c_str());
    if (worker->cpu() >= 0) pin(thread, worker->cpu());
  }
}

void Datapath::stop() noexcept {
  for (const auto& worker : workers_) worker->stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Datapath::add_port(PortId id, Port& port) {
  for (std::size_t w = 0; w < workers_.size(); ++w) {
    try {
      workers_[w]->watch(id, port.queue(w));
    } catch (...) {
      while (w-- > 0) workers_[w]->unwatch(port.queue(w));
      throw;
    }
  }
}

void Datapath::remove_port(Port& port) noexcept {
  for (std::size_t w = 0; w < workers_.size(); ++w) workers_[w]->unwatch(port.queue(w));
}

void Datapath::publish(std::unique_ptr<const Table> next) {
  published_.replace(next.get());
  for (const auto& worker : workers_) worker->wake();
  quiescence_.wait();
  table_ = std::move(next);
}

const WorkerCounters& Datapath::counters(std::size_t w) const noexcept { return workers_[w]->counters(); }

int Datapath::cpu(std::size_t w) const noexcept { return workers_[w]->cpu(); }

}  // namespace vswitch
