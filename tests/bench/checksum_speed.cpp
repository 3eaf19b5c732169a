#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/bench/kernel_checksum.h"
#include "tests/bench/process.h"
#include "vswitch/base/error.h"
#include "vswitch/base/memory.h"
#include "vswitch/net/checksum.h"
#include "vswitch/net/checksum_kernels.h"

// How fast the Internet checksum is computed, alone and while copying, beside memcpy() and the Linux kernel's own.
// Always the same source and destination: both are in the L1 cache, those of 64 KiB in the L2 cache.

namespace vswitch::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kSizes[] = {64, 256, 1500, 9000, 65536};
constexpr std::size_t kKernelSize = 1500;            // at which the ways to sum are compared one by one
constexpr std::size_t kBytesPerClock = 1024 * 1024;  // reading the clock each turn would cost

/// What one case works on. The pages of `from` may be the kernel's to sum as well.
struct Memory {
  std::span<const std::byte> from;
  std::byte* to;
};

/// Does the work `times` times; each sum goes on from the one before, so that none can be left out.
using Work = std::function<std::uint64_t(std::size_t times)>;

Work copy_work(Memory memory) {
  return [memory](std::size_t times) -> std::uint64_t {
    for (std::size_t i = 0; i < times; ++i) {
      std::memcpy(memory.to, memory.from.data(), memory.from.size());
      asm volatile("" : : "r"(memory.to) : "memory");  // somebody reads the copy, each time
    }
    return 0;
  };
}

/// @param step (sum, memory) -> sum
template <class Step>
Work sum_work(Memory memory, Step step) {
  return [memory, step](std::size_t times) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < times; ++i) {
      sum = step(sum, memory);
      asm volatile("" : "+r"(sum) : : "memory");
    }
    return sum;
  };
}

// Steps.
constexpr auto kAdd = [](std::uint64_t sum, Memory m) { return checksum_add(sum, m.from); };
constexpr auto kCopy = [](std::uint64_t sum, Memory m) { return checksum_copy(sum, m.to, m.from); };
auto adder(const ChecksumKernel& kernel) {
  return [&kernel](std::uint64_t sum, Memory m) { return kernel.add(sum, m.from.data(), m.from.size()); };
}
auto copier(const ChecksumKernel& kernel) {
  return [&kernel](std::uint64_t sum, Memory m) { return kernel.copy(sum, m.to, m.from.data(), m.from.size()); };
}

double gigabytes_per_second(const Work& work, std::size_t size, double seconds) {
  const std::size_t times = std::max<std::size_t>(1, kBytesPerClock / size);
  std::size_t bytes = 0;
  const auto began = Clock::now();
  const auto end = began + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  Clock::time_point now;
  do {
    (void)work(times);
    bytes += times * size;
    now = Clock::now();
  } while (now < end);
  return static_cast<double>(bytes) * 1e-9 / std::chrono::duration<double>(now - began).count();
}

/// One figure: GB/s over some time.
using Measure = std::function<double(double seconds)>;
using Cases = std::vector<std::pair<std::string, Measure>>;

/// Memory of one size, and what sums it.
class Bench {
 public:
  Bench(std::size_t size, bool with_kernel) : size_(size), to_(Mapping::anonymous(size)) {
    if (with_kernel) kernel_ = std::make_unique<KernelChecksum>(static_cast<std::uint32_t>(size));
    if (!with_kernel) from_ = Mapping::anonymous(size);
    const std::span<std::byte> from = with_kernel ? kernel_->bytes() : from_.bytes();
    std::uint32_t state = 1;
    for (std::byte& byte : from) byte = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    memory_ = {from, to_.data()};
    verify();
  }

  void add_to(Cases& cases) const {
    const std::string suffix = "-" + std::to_string(size_);
    add(cases, "memcpy" + suffix, copy_work(memory_));
    add(cases, "add" + suffix, sum_work(memory_, kAdd));
    add(cases, "copy" + suffix, sum_work(memory_, kCopy));
    if (size_ == kKernelSize) {
      for (const ChecksumKernel& kernel : checksum_kernels()) {
        add(cases, std::string("add-") + kernel.name + suffix, sum_work(memory_, adder(kernel)));
        add(cases, std::string("copy-") + kernel.name + suffix, sum_work(memory_, copier(kernel)));
      }
    }
    if (kernel_ == nullptr) return;
    cases.emplace_back("kernel-csum-partial" + suffix, [this](double seconds) {
      return static_cast<double>(size_) / kernel_->nanoseconds(seconds);  // bytes a nanosecond
    });
  }

 private:
  void add(Cases& cases, std::string name, Work work) const {
    cases.emplace_back(std::move(name), [work = std::move(work), size = size_](double seconds) {
      return gigabytes_per_second(work, size, seconds);
    });
  }

  /// All say the same, and copies are copies.
  void verify() const {
    constexpr std::size_t kTimes = KernelChecksum::kCalls;
    const std::uint16_t right = checksum_fold(sum_work(memory_, adder(checksum_kernels().back()))(kTimes));
    const auto expect = [&](const std::string& name, std::uint64_t sum) {
      if (checksum_fold(sum) != right) throw Error(0, "sum " + std::to_string(size_) + " bytes right with", name);
    };
    expect("checksum_add", sum_work(memory_, kAdd)(kTimes));
    expect_copy("checksum_copy", [&] { expect("checksum_copy", sum_work(memory_, kCopy)(kTimes)); });
    for (const ChecksumKernel& kernel : checksum_kernels()) {
      expect(kernel.name, sum_work(memory_, adder(kernel))(kTimes));
      expect_copy(kernel.name, [&] { expect(kernel.name, sum_work(memory_, copier(kernel))(kTimes)); });
    }
    if (kernel_ != nullptr) expect("the kernel", kernel_->sum());
  }

  template <class Copy>
  void expect_copy(const std::string& name, Copy copy) const {
    std::memset(memory_.to, 0, size_);
    copy();
    if (std::memcmp(memory_.to, memory_.from.data(), size_) != 0) throw Error(0, "copy with", name);
  }

  std::size_t size_;
  std::unique_ptr<KernelChecksum> kernel_;
  Mapping from_;
  Mapping to_;
  Memory memory_;
};

std::unique_ptr<Bench> make_bench(std::size_t size) {
  try {
    return std::make_unique<Bench>(size, true);
  } catch (const Error& error) {
    if (error.code() == 0) throw;  // a wrong sum
    std::cerr << "checksum_speed: without the kernel's figure for " << size << " bytes: " << error.what() << "\n";
    return std::make_unique<Bench>(size, false);
  }
}

int body(int argc, char** argv) {
  Placement placement;
  double seconds = 1;
  po::options_description options("checksum_speed: the Internet checksum in GB/s; options");
  add_placement_options(options, placement);
  options.add_options()("seconds", po::value(&seconds), "for each case");
  if (!parse(argc, argv, options)) return 0;
  apply(placement);

  std::vector<std::unique_ptr<Bench>> benches;
  Cases cases;
  for (const std::size_t size : kSizes) {
    benches.push_back(make_bench(size));
    benches.back()->add_to(cases);
  }
  // In slices, by turns: what slows the machine down for a while slows all cases down.
  constexpr int kSlices = 10;
  std::vector<double> sums(cases.size());
  for (int slice = 0; slice < kSlices; ++slice) {
    for (std::size_t i = 0; i < cases.size(); ++i) sums[i] += cases[i].second(seconds / kSlices);
  }
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < cases.size(); ++i) result[cases[i].first] = sums[i] / kSlices;
  std::cout << result << std::endl;
  return 0;
}

}  // namespace
}  // namespace vswitch::bench

int main(int argc, char** argv) { return vswitch::bench::guarded("checksum_speed", vswitch::bench::body, argc, argv); }
