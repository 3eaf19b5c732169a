#include "tests/bench/process.h"

#include <sched.h>
#include <sys/resource.h>

#include <csignal>
#include <exception>
#include <iostream>

#include "vswitch/base/error.h"

namespace vswitch::bench {
namespace {

constexpr int kFifoPriority = 50;
constexpr int kLeastNice = 19;

volatile std::sig_atomic_t end_signal = 0;

}  // namespace

void add_placement_options(po::options_description& options, Placement& placement) {
  options.add_options()("cpu", po::value(&placement.cpu), "pin to this CPU")(
      "fifo", po::bool_switch(&placement.fifo), "run as SCHED_FIFO 50")("last", po::bool_switch(&placement.last),
                                                                        "run as SCHED_IDLE, nice 19");
}

void apply(const Placement& placement) {
  if (placement.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(placement.cpu, &set);
    if (::sched_setaffinity(0, sizeof(set), &set) != 0)
      throw_errno("pin to", "CPU " + std::to_string(placement.cpu), "nproc(1) says how many there are");
  }
  if (placement.fifo && !placement.last) {
    sched_param parameters{};
    parameters.sched_priority = kFifoPriority;
    if (::sched_setscheduler(0, SCHED_FIFO, &parameters) != 0)
      throw_errno("become", "SCHED_FIFO", "run as root, or without --fifo");
  }
  if (!placement.last) return;
  if (!placement.fifo) {  // those who are SCHED_FIFO come before nice 19 as well
    const sched_param parameters{};
    if (::sched_setscheduler(0, SCHED_IDLE, &parameters) != 0) throw_errno("become", "SCHED_IDLE");
  }
  if (::setpriority(PRIO_PROCESS, 0, kLeastNice) != 0) throw_errno("become", "nice 19");
}

void raise_open_files_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) throw_errno("read", "the limit of open files");
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) throw_errno("raise", "the limit of open files");
}

bool parse(int argc, char** argv, po::options_description& options) {
  options.add_options()("help", "print this");
  po::variables_map values;
  po::store(po::parse_command_line(argc, argv, options), values);
  if (values.count("help") != 0) {
    std::cout << options;
    return false;
  }
  po::notify(values);
  return true;
}

bool end_wanted() noexcept { return end_signal != 0; }

void watch_for_end() {
  struct sigaction action {};
  action.sa_handler = [](int) { end_signal = 1; };
  if (::sigaction(SIGTERM, &action, nullptr) != 0 || ::sigaction(SIGINT, &action, nullptr) != 0)
    throw_errno("watch for", "SIGTERM");
}

int guarded(const char* program, int (*body)(int, char**), int argc, char** argv) {
  try {
    return body(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << program << ": " << error.what() << "\n";
    return 1;
  }
}

}  // namespace vswitch::bench
