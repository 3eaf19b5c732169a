/// Completion queues: events, resizing, overrun.
#include <fcntl.h>
#include <poll.h>

#include <cerrno>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

class Completion : public OnNic {
 protected:
  static QueueOptions with_channel() {
    QueueOptions options;
    options.channel = true;
    return options;
  }
  /// Whether an event comes; it is acknowledged.
  static bool wakes(RawQueue& queue, int timeout_ms) {
    pollfd ready{queue.channel->fd, POLLIN, 0};
    ibv_cq* about = nullptr;
    void* cookie = nullptr;
    if (::poll(&ready, 1, timeout_ms) != 1 || ibv_get_cq_event(queue.channel.get(), &about, &cookie) != 0) return false;
    ibv_ack_cq_events(about, 1);
    return about == queue.receive_cq.get();
  }
  static void arm(RawQueue& queue) { ASSERT_EQ(ibv_req_notify_cq(queue.receive_cq.get(), 0), 0); }
  void frames(const Mac& to, int from, int until) {
    for (int i = from; i < until; ++i) wire.send(plain(to, static_cast<std::uint8_t>(i)));
  }
  /// The fill bytes of the frames that come are those from `from` to `until`, in order.
  static void expect_frames(RawQueue& queue, int from, int until) {
    for (int i = from; i < until; ++i) ASSERT_EQ(queue.receive_fill(), i);
  }
};

TEST_F(Completion, ChannelWakesOnce) {
  const auto taker = queue(mac(1), with_channel());
  frames(mac(1), 0, 1);
  EXPECT_FALSE(wakes(*taker, kQuietMs));  // not armed
  expect_frames(*taker, 0, 1);
  arm(*taker);
  EXPECT_FALSE(wakes(*taker, kQuietMs));  // armed, nothing new
  frames(mac(1), 1, 3);
  EXPECT_TRUE(wakes(*taker, kPatienceMs));
  EXPECT_FALSE(wakes(*taker, kQuietMs));
  expect_frames(*taker, 1, 3);
}

TEST_F(Completion, ArmingWithUnpolledEntriesWakesAtOnce) {
  const auto taker = queue(mac(1), with_channel());
  frames(mac(1), 0, 2);
  ASSERT_TRUE(eventually([] { return counter("rx_frames") > 0; }));
  EXPECT_FALSE(wakes(*taker, kQuietMs));
  arm(*taker);
  EXPECT_TRUE(wakes(*taker, kPatienceMs));
  expect_frames(*taker, 0, 2);
}

TEST_F(Completion, ManyWakeUps) {
  const auto taker = queue(mac(1), with_channel());
  for (int i = 0; i < 50; ++i) {
    arm(*taker);
    frames(mac(1), i, i + 1);
    ASSERT_TRUE(wakes(*taker, kPatienceMs));
    ASSERT_EQ(taker->receive_fill(), i);
  }
}

TEST_F(Completion, LostInterruptIsSeenAtTheNextArming) {
  const auto taker = queue(mac(1), with_channel());
  const std::uint64_t lost = counter("interrupts_lost");
  softnic("fault", "lose-interrupts 1");
  arm(*taker);
  frames(mac(1), 0, 1);
  EXPECT_FALSE(wakes(*taker, kQuietMs));
  EXPECT_EQ(counter("interrupts_lost"), lost + 1);
  arm(*taker);
  EXPECT_TRUE(wakes(*taker, kPatienceMs));
  expect_frames(*taker, 0, 1);
}

TEST_F(Completion, ResizingKeepsEveryEntry) {
  QueueOptions options;
  options.receive_requests = 256;
  options.receive_entries = 63;
  const auto taker = queue(mac(1), options);
  const std::uint64_t before = counter("rx_frames");
  frames(mac(1), 0, 40);
  ASSERT_TRUE(eventually([&] { return counter("rx_frames") == before + 40; }));
  expect_frames(*taker, 0, 10);
  ASSERT_EQ(ibv_resize_cq(taker->receive_cq.get(), 255), 0);
  frames(mac(1), 40, 200);  // more than the old ring held
  ASSERT_TRUE(eventually([&] { return counter("rx_frames") == before + 200; }));
  expect_frames(*taker, 10, 180);
  ASSERT_EQ(ibv_resize_cq(taker->receive_cq.get(), 31), 0);
  expect_frames(*taker, 180, 200);
  for (int i = 0; i < 100; ++i) {
    frames(mac(1), i, i + 1);
    ASSERT_EQ(taker->receive_fill(), i);
  }
}

TEST_F(Completion, ResizingUnderTraffic) {
  QueueOptions options;
  options.receive_requests = 256;
  options.receive_entries = 511;
  const auto taker = queue(mac(1), options);
  int seen = 0;
  for (int round = 0; round < 40; ++round) {
    frames(mac(1), 4 * round, 4 * round + 4);
    ASSERT_EQ(ibv_resize_cq(taker->receive_cq.get(), round % 2 == 0 ? 300 : 1000), 0);
    if (round % 3 == 0) expect_frames(*taker, seen, seen + 1), ++seen;
  }
  expect_frames(*taker, seen, 160);
  EXPECT_TRUE(taker->quiet());
}

TEST_F(Completion, ResizingBelowWhatIsInItIsRefused) {
  const auto taker = queue(mac(1));
  EXPECT_NE(ibv_resize_cq(taker->receive_cq.get(), 0), 0);
}

TEST_F(Completion, OverrunKillsTheQueuePair) {
  QueueOptions options;
  options.receive_entries = 15;
  const auto taker = queue(mac(1), options);
  frames(mac(1), 0, 40);
  bool cq_error = false;
  bool qp_fatal = false;
  while (!cq_error || !qp_fatal) {
    const auto event = next_event(context.get(), kPatienceMs);
    ASSERT_TRUE(event);
    cq_error = cq_error || *event == IBV_EVENT_CQ_ERR;
    qp_fatal = qp_fatal || *event == IBV_EVENT_QP_FATAL;
  }
  EXPECT_EQ(taker->state(), IBV_QPS_ERR);
  EXPECT_GT(counter("drop_cq_overrun"), 0U);
  ibv_wc done{};
  int whole = 0;
  while (ibv_poll_cq(taker->receive_cq.get(), 1, &done) == 1) ++whole;
  EXPECT_EQ(whole, 16);  // what it held before is sound
}

TEST_F(Completion, OnlySignaledSendsComplete) {
  const auto sender = idle();
  for (int i = 0; i < 15; ++i) ASSERT_EQ(sender->post(plain(mac(1)), 0), 0);
  ASSERT_EQ(sender->send(plain(mac(1), 15)), IBV_WC_SUCCESS);
  ibv_wc done{};
  EXPECT_EQ(ibv_poll_cq(sender->send_cq.get(), 1, &done), 0);
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(wire.receive(mac(1)));
}

TEST_F(Completion, QueueIsFullUntilASignaledSendIsPolled) {
  QueueOptions options;
  options.send_requests = 16;
  const auto sender = idle(options);
  int posted = 0;
  while (posted < 1000 && sender->post(plain(mac(1)), 0) == 0) ++posted;
  EXPECT_GE(posted, 16);
  EXPECT_LT(posted, 1000);  // nothing was signaled: never again
  EXPECT_EQ(sender->post(plain(mac(1)), 0), ENOMEM);
}

TEST_F(Completion, ResetForgetsCompletionsOfTheQueuePair) {
  const auto first = queue(mac(1));
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 5; ++i) ASSERT_EQ(first->post(plain(mac(2))), 0);
    ASSERT_EQ(first->modify(IBV_QPS_ERR), 0);
    ASSERT_EQ(first->modify(IBV_QPS_RESET), 0);
    ibv_wc done{};
    ASSERT_EQ(ibv_poll_cq(first->send_cq.get(), 1, &done), 0) << "a completion from before the reset";
    ASSERT_EQ(ibv_poll_cq(first->receive_cq.get(), 1, &done), 0) << "a completion from before the reset";
    ASSERT_EQ(first->start(), 0);
    ASSERT_EQ(first->send(plain(mac(2))), IBV_WC_SUCCESS);
  }
}

TEST_F(Completion, DestroyedQueuePairLeavesNothingInASharedQueue) {
  const auto keeper = queue(mac(1));
  for (int round = 0; round < 30; ++round) {
    ibv_qp_init_attr attr{};
    attr.send_cq = attr.recv_cq = keeper->send_cq.get();
    attr.cap = {16, 16, 1, 1, 0};
    attr.qp_type = IBV_QPT_RAW_PACKET;
    const auto qp = owned(ibv_create_qp(keeper->pd.get(), &attr), "ibv_create_qp");
    ibv_qp_attr state{};
    state.port_num = 1;
    for (const ibv_qp_state next : {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
      state.qp_state = next;
      ASSERT_EQ(ibv_modify_qp(qp.get(), &state, next == IBV_QPS_INIT ? IBV_QP_STATE | IBV_QP_PORT : IBV_QP_STATE), 0);
    }
    const Frame frame = plain(mac(2));
    ibv_sge part{reinterpret_cast<std::uintptr_t>(keeper->stage(frame)), 100, keeper->mr->lkey};
    ibv_send_wr request{};
    request.sg_list = &part;
    request.num_sge = 1;
    request.opcode = IBV_WR_SEND;
    request.send_flags = IBV_SEND_SIGNALED;
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(qp.get(), &request, &bad), 0);
  }
  EXPECT_EQ(keeper->send(plain(mac(2))), IBV_WC_SUCCESS);  // and not the error of a completion that nobody knows
}

}  // namespace
}  // namespace softnic_client
