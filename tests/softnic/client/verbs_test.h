#pragma once

#include <gtest/gtest.h>

#include "tests/softnic/client/raw_queue.h"
#include "tests/softnic/client/world.h"

namespace softnic_client {

/// A test on an open device. At its end the NIC must have seen no violation of the interface, or those it wanted.
class OnNic : public testing::Test {
 protected:
  OnNic() : violations_before_(counter("violations")), context(open_device()), wire(Link::Where::wire) {}
  void TearDown() override { EXPECT_EQ(violates_ ? violations_before_ : counter("violations"), violations_before_); }

  /// A started queue that takes frames for `address`.
  std::unique_ptr<RawQueue> queue(const Mac& address, const QueueOptions& options = {}) {
    auto made = idle(options);
    made->take(address);
    return made;
  }
  /// A started queue without rules.
  std::unique_ptr<RawQueue> idle(const QueueOptions& options = {}) {
    auto made = std::make_unique<RawQueue>(context.get(), options);
    EXPECT_EQ(made->start(), 0);
    return made;
  }

  std::uint64_t violations_before_;
  bool violates_ = false;
  Handle<ibv_context> context;
  Link wire;
};

}  // namespace softnic_client
