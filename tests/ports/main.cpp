#include <gtest/gtest.h>

#include "tests/ports/net_lab.h"

// All tests run in a network namespace of their own, so that no netdev of the host is ever touched and nothing is left.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  vswitch::test::enter_new_namespace();
  return RUN_ALL_TESTS();
}
