#include "tests/softnic/core/pinning.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

namespace softnic {

bool may_lock_memory(std::uint64_t bytes) noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur) return true;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & 1U << CAP_IPC_LOCK) != 0;
}

Pinnable can_pin(std::uint64_t start, std::uint64_t length, bool to_write) {
  if (start + length < start) return {};
  bool shared = true;
  std::ifstream maps("/proc/self/maps");  // in the order of addresses
  std::uint64_t reached = start;
  for (std::string line; reached < start + length && std::getline(maps, line);) {
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    char rights[5]{};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s", &from, &to, rights) != 3 || to <= reached) continue;
    if (from > reached || rights[0] != 'r' || (to_write && rights[1] != 'w')) return {};
    shared = shared && rights[3] == 's';
    reached = to;
  }
  return {reached >= start + length, shared};
}

}  // namespace softnic
