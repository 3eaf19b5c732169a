#pragma once
#include <sched.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vswitch/base/fd.h"
#include "vswitch/net/mac.h"
#include "vswitch/net/offload.h"

namespace vswitch::test {

/// The kernel as an oracle: finishes frames as it does for whatever it forwards.
///
///   put -- write(header + frame) --> tap0 -- br0 -- veth0 (tso, gso, tx-csum off) -- veth1 --> packet socket -- take
///
/// All of that lives in a network namespace without a name, which ends with it. Used by the thread that made it, which
/// stays on one CPU until it is gone: the kernel keeps frames in order on each CPU only.
class KernelPath {
 public:
  using Bytes = std::vector<std::byte>;
  /// Frames that may be on their way at a time: the kernel's own queue (net.core.netdev_max_backlog, 1000 unless
  /// changed) must hold them all if the machine is slow to look at it.
  static constexpr std::size_t kMaxUnderWay = 800;

  /// @param sender source address of all frames that are put in; others that the kernel makes by itself are ignored
  explicit KernelPath(const Mac& sender);
  ~KernelPath();
  KernelPath(const KernelPath&) = delete;
  KernelPath& operator=(const KernelPath&) = delete;

  /// Sends one frame in, tags inside its bytes. Throws Error when the kernel refuses it.
  void put(std::span<const std::byte> frame, const Offload& offload);
  /// Everything that came out of what was put in since the last call, in order, tags inside the bytes.
  std::vector<Bytes> take();

 private:
  /// @return false: nothing came for a while
  bool receive(std::vector<Bytes>& frames);

  Mac sender_;
  cpu_set_t cpus_before_;
  Fd tap_;
  Fd capture_;
  Bytes buffers_;
  std::uint64_t marker_ = 0;
};

}  // namespace vswitch::test
