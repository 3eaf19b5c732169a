#include "tests/bench/kernel_checksum.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "vswitch/base/error.h"

namespace vswitch::bench {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint32_t kFirstRuns = 100;  // tell how many are worth a measurement

long bpf(bpf_cmd command, bpf_attr& attributes) noexcept {
  return ::syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

std::size_t whole_pages(std::size_t bytes) noexcept { return (bytes + kPage - 1) / kPage * kPage; }

/// One value, which starts a page and can be mapped.
Fd make_map(std::uint32_t bytes) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = sizeof(std::uint32_t);
  attributes.value_size = bytes;
  attributes.max_entries = 1;
  attributes.map_flags = BPF_F_MMAPABLE;
  Fd map(static_cast<int>(bpf(BPF_MAP_CREATE, attributes)));
  if (!map.valid()) throw_errno("create", "a BPF map", "this takes root and a kernel with BPF");
  return map;
}

bpf_insn instruction(int code, int to, int from, std::int32_t immediate) noexcept {
  bpf_insn made{};
  made.code = static_cast<std::uint8_t>(code);
  made.dst_reg = static_cast<std::uint8_t>(to & 15);
  made.src_reg = static_cast<std::uint8_t>(from & 15);
  made.imm = immediate;
  return made;
}
bpf_insn set(int to, std::int32_t value) noexcept { return instruction(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, value); }
bpf_insn copy(int to, int from) noexcept { return instruction(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0); }

/// r0 = bpf_csum_diff(nothing, 0, the map's value, length, r0), KernelChecksum::kCalls times.
Fd load(const Fd& map, std::uint32_t length) {
  std::vector<bpf_insn> code{
      instruction(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_6, BPF_PSEUDO_MAP_VALUE, map.get()),
      instruction(0, 0, 0, 0),  // the second half of that: the offset in the value
      set(BPF_REG_0, 0),
  };
  for (std::uint32_t i = 0; i < KernelChecksum::kCalls; ++i) {
    const std::array call{set(BPF_REG_1, 0),          set(BPF_REG_2, 0),
                          copy(BPF_REG_3, BPF_REG_6), set(BPF_REG_4, static_cast<std::int32_t>(length)),
                          copy(BPF_REG_5, BPF_REG_0), instruction(BPF_JMP | BPF_CALL, 0, 0, BPF_FUNC_csum_diff)};
    code.insert(code.end(), call.begin(), call.end());
  }
  code.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0));
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SCHED_CLS;
  attributes.insns = reinterpret_cast<std::uintptr_t>(code.data());
  attributes.insn_cnt = static_cast<std::uint32_t>(code.size());
  attributes.license = reinterpret_cast<std::uintptr_t>("GPL");
  Fd program(static_cast<int>(bpf(BPF_PROG_LOAD, attributes)));
  if (!program.valid()) throw_errno("load", "a BPF program that sums " + std::to_string(length) + " bytes");
  return program;
}

struct Outcome {
  std::uint32_t result;
  std::uint32_t nanoseconds;  ///< of one run, on average
};

Outcome run(const Fd& program, std::uint32_t runs) {
  std::array<std::byte, 64> frame{};  // the kind of program wants one
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<std::uint32_t>(program.get());
  attributes.test.data_in = reinterpret_cast<std::uintptr_t>(frame.data());
  attributes.test.data_size_in = frame.size();
  attributes.test.repeat = runs;
  if (bpf(BPF_PROG_TEST_RUN, attributes) != 0) throw_errno("run", "a BPF program");
  return {attributes.test.retval, attributes.test.duration};
}

double nanoseconds_of_run(const Fd& program, double seconds) {
  const double first = std::max(1.0, static_cast<double>(run(program, kFirstRuns).nanoseconds));
  return run(program, static_cast<std::uint32_t>(std::clamp(seconds * 1e9 / first, 1.0, 1e9))).nanoseconds;
}

}  // namespace

KernelChecksum::KernelChecksum(std::uint32_t length)
    : length_(length),
      map_(make_map(length)),
      memory_(Mapping::shared(map_.get(), whole_pages(length), true)),
      summing_(load(map_, length)),
      idle_(load(map_, 0)) {}

std::uint32_t KernelChecksum::sum() const { return run(summing_, 1).result; }

double KernelChecksum::nanoseconds(double seconds) const {
  const double all = nanoseconds_of_run(summing_, seconds / 2);
  return (all - nanoseconds_of_run(idle_, seconds / 2)) / kCalls;
}

}  // namespace vswitch::bench
