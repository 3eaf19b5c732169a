#pragma once
#include <string>
#include <vector>

#include "tests/kernel/kernel_path.h"
#include "tests/ports/harness.h"

namespace vswitch::test {

/// One frame, and what the kernel's own path makes of it.
struct OffloadCase {
  std::string name;                         ///< e.g. "TCPv4 gso tagged"
  TestFrame frame;                          ///< from kFrom to kTo; a tag is inside its bytes
  std::vector<KernelPath::Bytes> finished;  ///< in order, tags inside the bytes
};

/// TCP, UDP and ICMP over both versions of IP; GSO (partial checksums always), partial, complete, complete and said to
/// be verified, complete but wrong; without and with a tag. Throws Error if the kernel would not finish one of them, or
/// change a finished one.
std::vector<OffloadCase> offload_cases(KernelPath& kernel);

}  // namespace vswitch::test
