/// As many queue pairs as a large host has tenants.
#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

constexpr std::uint16_t kQueues = 1024;

class Many : public OnNic {
 protected:
  Many() {
    QueueOptions options;
    options.send_requests = options.receive_requests = 8;
    options.send_entries = options.receive_entries = 8;
    options.buffer_bytes = 128;
    for (std::uint16_t i = 0; i < kQueues; ++i) queues.push_back(queue(mac(i), options));
  }
  std::vector<std::unique_ptr<RawQueue>> queues;
};

TEST_F(Many, EachGetsAndSendsItsOwn) {
  for (std::uint16_t i = 0; i < kQueues; ++i) wire.send(plain(mac(i), static_cast<std::uint8_t>(i % 251)));
  for (std::uint16_t i = 0; i < kQueues; ++i) ASSERT_EQ(queues[i]->receive_fill(), i % 251) << i;
  for (int round = 0; round < 4; ++round) {
    for (std::uint16_t i = 0; i < kQueues; ++i) ASSERT_EQ(queues[i]->post(plain(group(i), 1)), 0);
    for (std::uint16_t i = 0; i < kQueues; ++i) ASSERT_EQ(queues[i]->completed(), IBV_WC_SUCCESS) << i;
    std::set<Frame> seen;  // in whatever order the NIC serves its queues
    for (std::uint16_t i = 0; i < kQueues; ++i) seen.insert(wire.receive(std::nullopt).value_or(Frame()));
    ASSERT_EQ(seen.size(), kQueues);
  }
  for (auto& each : queues) {
    ibv_wc done{};
    ASSERT_EQ(ibv_poll_cq(each->receive_cq.get(), 1, &done), 0);
  }
}

TEST_F(Many, RulesComeAndGoWithoutLossForTheOthers) {
  constexpr std::uint16_t kSteady = kQueues / 2;
  constexpr int kEach = 6;  // fewer than a queue has buffers
  constexpr std::size_t kChanges = 200;
  std::atomic<bool> sent{false};
  std::thread traffic([&] {
    for (int round = 0; round < kEach; ++round) {
      for (std::uint16_t i = 0; i < kSteady; ++i) {
        wire.send(plain(mac(i), static_cast<std::uint8_t>(round)));
        if (i % 32 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    sent = true;
  });
  std::size_t changes = 0;
  for (std::uint16_t i = 0; !sent || changes < kChanges; ++i, changes += 2) {
    const auto index = static_cast<std::uint16_t>(kSteady + i % kSteady);
    queues[index]->flows.clear();
    queues[index]->take(mac(index));
  }
  traffic.join();
  for (std::uint16_t i = 0; i < kSteady; ++i) {
    for (int round = 0; round < kEach; ++round) ASSERT_EQ(queues[i]->receive_fill(), round) << i;
  }
  for (std::uint16_t i = kSteady; i < kQueues; ++i) {
    wire.send(plain(mac(i), 200));
    ASSERT_EQ(queues[i]->receive_fill(), 200) << i;
  }
}

TEST_F(Many, GoOneByOne) {
  while (queues.size() > 3) {
    queues.erase(queues.begin() + static_cast<std::ptrdiff_t>(queues.size() / 3));
    if (queues.size() % 64 != 0) continue;
    for (auto& each : queues) ASSERT_EQ(each->send(plain(group(7))), IBV_WC_SUCCESS);
  }
}

}  // namespace
}  // namespace softnic_client
