// Which RDMA port a netdev belongs to: what nldev messages say, and the tree below SYSFS_PATH.
// (The kernel's own answers need a kernel with RDMA; the messages here are built as <rdma/rdma_netlink.h> describes
// them.)
#include "netlink/rdma.h"

#include <gtest/gtest.h>
#include <rdma/rdma_netlink.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "netlink/handle.h"

namespace vswitch {
namespace {

namespace fs = std::filesystem;

struct PortMessage {
  explicit PortMessage(const char* device, std::optional<std::uint32_t> port, const char* netdev) {
    if (device != nullptr) nla_put_string(message.get(), RDMA_NLDEV_ATTR_DEV_NAME, device);
    if (port) nla_put_u32(message.get(), RDMA_NLDEV_ATTR_PORT_INDEX, *port);
    if (netdev != nullptr) nla_put_string(message.get(), RDMA_NLDEV_ATTR_NDEV_NAME, netdev);
  }
  std::optional<RdmaPort> parsed() { return nldev::parse_port(nlmsg_hdr(message.get())); }
  Nl<nl_msg> message{nlmsg_alloc_simple(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_PORT_GET), 0)};
};

TEST(Nldev, PortWithNetdev) { EXPECT_EQ(PortMessage("mlx5_0", 1, "lan0").parsed(), (RdmaPort{"mlx5_0", 1, "lan0"})); }

TEST(Nldev, PortWithoutNetdevInThisNamespace) {
  EXPECT_EQ(PortMessage("mlx5_0", 2, nullptr).parsed(), (RdmaPort{"mlx5_0", 2, ""}));
}

TEST(Nldev, IncompleteMessagesAreNoPorts) {
  EXPECT_EQ(PortMessage(nullptr, 1, "lan0").parsed(), std::nullopt);
  EXPECT_EQ(PortMessage("mlx5_0", std::nullopt, "lan0").parsed(), std::nullopt);
  EXPECT_EQ(PortMessage("mlx5_0", 0, "lan0").parsed(), std::nullopt);
}

TEST(Nldev, AttributesOfTheWrongSizeAreNoNumbers) {
  Nl<nl_msg> message(nlmsg_alloc_simple(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_PORT_GET), 0));
  nla_put_string(message.get(), RDMA_NLDEV_ATTR_DEV_NAME, "mlx5_0");
  nla_put_u8(message.get(), RDMA_NLDEV_ATTR_PORT_INDEX, 1);
  EXPECT_EQ(nldev::parse_port(nlmsg_hdr(message.get())), std::nullopt);
}

/// A tree as below /sys, for as long as it lives.
class Sysfs : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "rdmaXXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    setenv("SYSFS_PATH", root_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("SYSFS_PATH");
    fs::remove_all(root_);
  }
  void add(const std::string& device, int port, const std::string& gid, const std::string& netdev) {
    const fs::path folder = root_ / "class/infiniband" / device / "ports" / std::to_string(port) / "gid_attrs/ndevs";
    fs::create_directories(folder);
    std::ofstream(folder / gid) << netdev << '\n';
  }
  fs::path root_;
};

TEST_F(Sysfs, NoDeviceAtAll) { EXPECT_TRUE(rdma_ports().empty()); }

TEST_F(Sysfs, PortsInOrderWithTheNetdevOfAnyGid) {
  add("mlx5_1", 1, "0", "lan1");
  add("mlx5_0", 2, "3", "lan2");
  add("mlx5_0", 1, "0", "");
  add("mlx5_0", 1, "1", "lan0");
  EXPECT_EQ(rdma_ports(), (std::vector<RdmaPort>{{"mlx5_0", 1, "lan0"}, {"mlx5_0", 2, "lan2"}, {"mlx5_1", 1, "lan1"}}));
}

}  // namespace
}  // namespace vswitch
