#pragma once
#include <boost/program_options.hpp>
#include <string>

// What the benchmark programs have in common as processes.

namespace vswitch::bench {

namespace po = boost::program_options;

/// Where and how a program runs.
struct Placement {
  int cpu = -1;       ///< pinned to it; -1: anywhere
  bool fifo = false;  ///< SCHED_FIFO 50 unless `last`: less noise from other processes
  bool last = false;  ///< runs when nobody else wants the CPU: nice 19, and SCHED_IDLE unless `fifo` (of the others)
};

/// Adds --cpu, --fifo and --last.
void add_placement_options(po::options_description& options, Placement& placement);
/// Throws Error.
void apply(const Placement& placement);
/// As many as the hard limit allows: an attached port takes three. Throws Error.
void raise_open_files_limit();

/// Parses the command line; prints the usage and returns false on --help. Throws what program_options throws.
bool parse(int argc, char** argv, po::options_description& options);

/// True once SIGTERM or SIGINT came; watch_for_end() must have been called.
[[nodiscard]] bool end_wanted() noexcept;
void watch_for_end();

/// Runs `body`; prints what it throws and returns the exit status of main.
int guarded(const char* program, int (*body)(int, char**), int argc, char** argv);

}  // namespace vswitch::bench
