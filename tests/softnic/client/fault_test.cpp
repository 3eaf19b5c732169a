/// Faults on request (`softnic fault`, `softnic link`), and the order in which things may be destroyed.
#include <cerrno>
#include <system_error>
#include <utility>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

class Fault : public OnNic {};

/// errno of a call that returns null; 0 where it made something.
template <class T>
int made(T* object) {
  if (object == nullptr) return errno;
  const Handle<T> destroyed(object);
  return 0;
}

/// What can be set up, by the name of the command that does it.
struct Builder {
  explicit Builder(ibv_context* device)
      : context(device), queue(device), domain(owned(ibv_alloc_pd(device), "ibv_alloc_pd")) {
    if (queue.start() != 0) throw std::runtime_error("no queue pair to begin with");
    attr.send_cq = attr.recv_cq = queue.send_cq.get();
    attr.cap = {16, 16, 1, 1, 0};
    attr.qp_type = IBV_QPT_RAW_PACKET;
    attr.pd = domain.get();
  }
  int cq_ex() {
    ibv_cq_init_attr_ex more{};
    more.cqe = 16;
    more.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS;
    more.flags = IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;  // what the older command cannot ask for
    ibv_cq_ex* cq = ibv_create_cq_ex(context, &more);
    return cq == nullptr ? errno : made(ibv_cq_ex_to_cq(cq));
  }
  int qp(std::uint32_t mask, std::uint32_t flags) {
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | mask;
    attr.create_flags = flags;
    return made(ibv_create_qp_ex(context, &attr));
  }
  int rate() {
    ibv_qp_rate_limit_attr limit{};
    limit.rate_limit = 1000;
    return ibv_modify_qp_rate_limit(queue.qp.get(), &limit);
  }
  ibv_wq* wq() {
    ibv_wq_init_attr more{};
    more.wq_type = IBV_WQT_RQ;
    more.max_wr = more.max_sge = 1;
    more.pd = domain.get();
    more.cq = queue.send_cq.get();
    return ibv_create_wq(context, &more);
  }
  int table() {
    const auto member = owned(wq(), "ibv_create_wq");
    ibv_wq* list[] = {member.get()};
    ibv_rwq_ind_table_init_attr more{0, list, 0};
    return made(ibv_create_rwq_ind_table(context, &more));
  }

  ibv_context* context;
  RawQueue queue;
  Handle<ibv_pd> domain;
  ibv_qp_init_attr_ex attr{};
};

const std::vector<std::pair<const char*, std::function<int(Builder&)>>> kSetUp = {
    {"query_device_ex",
     [](Builder& b) {
       ibv_device_attr_ex attr{};
       return ibv_query_device_ex(b.context, nullptr, &attr);
     }},
    {"query_port",
     [](Builder& b) {
       ibv_port_attr attr{};
       return ibv_query_port(b.context, 1, &attr);
     }},
    {"alloc_pd", [](Builder& b) { return made(ibv_alloc_pd(b.context)); }},
    {"reg_mr", [](Builder& b) { return made(ibv_reg_mr(b.domain.get(), b.queue.memory.data(), 100, kLocalWrite)); }},
    {"create_comp_channel", [](Builder& b) { return made(ibv_create_comp_channel(b.context)); }},
    {"create_cq", [](Builder& b) { return made(ibv_create_cq(b.context, 16, nullptr, nullptr, 0)); }},
    {"create_cq_ex", [](Builder& b) { return b.cq_ex(); }},
    {"create_qp", [](Builder& b) { return b.qp(0, 0); }},
    {"create_qp_ex", [](Builder& b) { return b.qp(IBV_QP_INIT_ATTR_CREATE_FLAGS, IBV_QP_CREATE_CVLAN_STRIPPING); }},
    {"modify_qp", [](Builder& b) { return b.queue.modify(IBV_QPS_RTS); }},
    {"modify_qp_ex", [](Builder& b) { return b.rate(); }},
    {"create_flow", [](Builder& b) { return made(Rule().to(mac(1)).create(b.queue.qp.get()).release()); }},
    {"create_wq", [](Builder& b) { return made(b.wq()); }},
    {"create_rwq_ind_tbl", [](Builder& b) { return b.table(); }},
};

TEST_F(Fault, EachSetUpCommandFailsAsOftenAsAsked) {
  Builder builder(context.get());
  for (const auto& [name, attempt] : kSetUp) {
    SCOPED_TRACE(name);
    ASSERT_EQ(attempt(builder), 0);
    for (const auto& [word, error] : {std::pair{"ENOMEM", ENOMEM}, {"EPERM", EPERM}}) {
      softnic("fault", std::string("fail ") + name + ' ' + word + " 2");
      EXPECT_EQ(attempt(builder), error);
      EXPECT_EQ(attempt(builder), error);
      EXPECT_EQ(attempt(builder), 0);
    }
  }
}

TEST_F(Fault, DeviceThatCannotBeOpened) {
  softnic("fault", "fail get_context ENOMEM 100");  // libmlx5 asks more than once
  try {
    static_cast<void>(open_device());
    ADD_FAILURE() << "it was opened";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), ENOMEM);
  }
  softnic("fault", "fail get_context ENOMEM 0");
  EXPECT_TRUE(open_device());
}

class Broken : public OnNic {
 protected:
  static void break_queue(const RawQueue& queue, const std::string& syndrome) {
    softnic("fault", "break " + std::to_string(queue.qp->qp_num) + ' ' + syndrome);
  }
  /// RESET, INIT, RTR, RTS; then it sends and receives.
  void expect_recovery(RawQueue& queue) {
    ASSERT_EQ(queue.modify(IBV_QPS_RESET), 0);
    ASSERT_EQ(queue.start(), 0);
    wire.send(plain(mac(1), 8));
    EXPECT_EQ(queue.receive_fill(), 8);
    EXPECT_EQ(queue.send(plain(mac(2), 9)), IBV_WC_SUCCESS);
    EXPECT_EQ(wire.receive(mac(2)).value().back(), 9);
  }
};

TEST_F(Broken, ErrorCompletionOfEachSyndrome) {
  const auto broken = queue(mac(1));
  const std::pair<const char*, ibv_wc_status> cases[] = {
      {"0x1", IBV_WC_LOC_LEN_ERR},      {"0x2", IBV_WC_LOC_QP_OP_ERR},     {"0x4", IBV_WC_LOC_PROT_ERR},
      {"0x6", IBV_WC_MW_BIND_ERR},      {"0x10", IBV_WC_BAD_RESP_ERR},     {"0x11", IBV_WC_LOC_ACCESS_ERR},
      {"0x12", IBV_WC_REM_INV_REQ_ERR}, {"0x13", IBV_WC_REM_ACCESS_ERR},   {"0x14", IBV_WC_REM_OP_ERR},
      {"0x15", IBV_WC_RETRY_EXC_ERR},   {"0x16", IBV_WC_RNR_RETRY_EXC_ERR}};
  for (const auto& [syndrome, status] : cases) {
    SCOPED_TRACE(syndrome);
    break_queue(*broken, syndrome);
    EXPECT_EQ(broken->send(plain(mac(2))), status);
    EXPECT_TRUE(event_comes(context.get(), IBV_EVENT_QP_FATAL));
    EXPECT_EQ(broken->state(), IBV_QPS_ERR);
    EXPECT_EQ(broken->send(plain(mac(2))), IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(broken->receive(kPatienceMs).value().status, IBV_WC_WR_FLUSH_ERR);
    expect_recovery(*broken);
  }
}

TEST_F(Broken, AtOnceWithoutSyndrome) {
  const auto broken = queue(mac(1));
  const auto other = queue(mac(3));
  break_queue(*broken, "");
  EXPECT_TRUE(event_comes(context.get(), IBV_EVENT_QP_FATAL));
  EXPECT_EQ(broken->state(), IBV_QPS_ERR);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(broken->send(plain(mac(2))), IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(other->send(plain(mac(2), 5)), IBV_WC_SUCCESS);
  EXPECT_EQ(wire.receive(mac(2)).value().back(), 5);
  expect_recovery(*broken);
}

TEST_F(Broken, ReceiveOnlyQueueFlushesWhatIsPostedLater) {
  const auto keeper = idle();
  ibv_qp_init_attr attr{};
  attr.send_cq = attr.recv_cq = keeper->receive_cq.get();
  attr.cap = {0, 16, 0, 1, 0};
  attr.qp_type = IBV_QPT_RAW_PACKET;
  const auto qp = owned(ibv_create_qp(keeper->pd.get(), &attr), "ibv_create_qp");
  ibv_qp_attr state{};
  state.port_num = 1;
  state.qp_state = IBV_QPS_INIT;
  ASSERT_EQ(ibv_modify_qp(qp.get(), &state, IBV_QP_STATE | IBV_QP_PORT), 0);
  state.qp_state = IBV_QPS_ERR;
  ASSERT_EQ(ibv_modify_qp(qp.get(), &state, IBV_QP_STATE), 0);
  ibv_recv_wr request{77, nullptr, nullptr, 0};
  ibv_recv_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_recv(qp.get(), &request, &bad), 0);
  ibv_wc done{};
  ASSERT_TRUE(eventually([&] { return ibv_poll_cq(keeper->receive_cq.get(), 1, &done) == 1; }));
  EXPECT_EQ(done.status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(done.wr_id, 77U);
}

TEST_F(Fault, DeviceFatalIsAnEventOfEveryContext) {
  const Handle<ibv_context> other = open_device();
  softnic("fault", "fatal");
  EXPECT_TRUE(event_comes(context.get(), IBV_EVENT_DEVICE_FATAL));
  EXPECT_TRUE(event_comes(other.get(), IBV_EVENT_DEVICE_FATAL));
  EXPECT_FALSE(next_event(context.get(), kQuietMs));
}

class LinkState : public OnNic {
 protected:
  void TearDown() override {
    softnic("link", "1 up");
    at_wire([] { shell("ip link set w0 up"); });
    EXPECT_TRUE(eventually([this] { return port() == IBV_PORT_ACTIVE; }));
    OnNic::TearDown();
  }
  ibv_port_state port() {
    ibv_port_attr attr{};
    return ibv_query_port(context.get(), 1, &attr) == 0 ? attr.state : IBV_PORT_NOP;
  }
};

TEST_F(LinkState, TakenDownAndUpOnRequest) {
  const auto both = queue(mac(1));
  softnic("link", "1 down");
  EXPECT_EQ(next_event(context.get(), kPatienceMs), IBV_EVENT_PORT_ERR);
  EXPECT_EQ(port(), IBV_PORT_DOWN);
  const std::uint64_t down = counter("drop_wire_down");
  EXPECT_EQ(both->send(plain(mac(2))), IBV_WC_SUCCESS);  // as on hardware: sent, and lost
  wire.send(plain(mac(1)));
  EXPECT_TRUE(eventually([&] { return counter("drop_wire_down") == down + 2; }));
  softnic("link", "1 up");
  EXPECT_EQ(next_event(context.get(), kPatienceMs), IBV_EVENT_PORT_ACTIVE);
  EXPECT_EQ(port(), IBV_PORT_ACTIVE);
  wire.send(plain(mac(1), 4));
  EXPECT_EQ(both->receive_fill(), 4);
}

TEST_F(LinkState, CarrierOfTheCable) {
  const auto both = queue(mac(1));
  at_wire([] { ASSERT_EQ(shell("ip link set w0 down"), 0); });
  EXPECT_EQ(next_event(context.get(), kPatienceMs), IBV_EVENT_PORT_ERR);
  EXPECT_EQ(port(), IBV_PORT_DOWN);
  at_wire([] { ASSERT_EQ(shell("ip link set w0 up"), 0); });
  EXPECT_EQ(next_event(context.get(), kPatienceMs), IBV_EVENT_PORT_ACTIVE);
  EXPECT_EQ(port(), IBV_PORT_ACTIVE);
  const Link again(Link::Where::wire);  // the old socket has seen the netdev go
  again.send(plain(mac(1), 4));
  EXPECT_EQ(both->receive_fill(), 4);
}

class Destroying : public OnNic {};

TEST_F(Destroying, WhatIsInUseIsBusy) {
  RawQueue queue(context.get());
  EXPECT_EQ(ibv_dealloc_pd(queue.pd.get()), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(queue.send_cq.get()), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(queue.receive_cq.get()), EBUSY);
  queue.take(Rule().to(mac(1)));
  EXPECT_EQ(ibv_destroy_qp(queue.qp.get()), EBUSY);
  queue.flows.clear();
  queue.qp.reset();
  EXPECT_EQ(ibv_dealloc_pd(queue.pd.get()), EBUSY);  // the region
  queue.mr.reset();
  EXPECT_EQ(ibv_dealloc_pd(queue.pd.release()), 0);
  EXPECT_EQ(ibv_destroy_cq(queue.send_cq.release()), 0);
}

TEST_F(Destroying, WorkQueueInATableIsBusy) {
  Builder builder(context.get());
  auto wq = owned(builder.wq(), "ibv_create_wq");
  EXPECT_EQ(ibv_destroy_cq(builder.queue.send_cq.get()), EBUSY);
  ibv_wq* list[] = {wq.get()};
  ibv_rwq_ind_table_init_attr attr{0, list, 0};
  auto table = owned(ibv_create_rwq_ind_table(context.get(), &attr), "ibv_create_rwq_ind_table");
  EXPECT_EQ(ibv_destroy_wq(wq.get()), EBUSY);
  table.reset();
  EXPECT_EQ(ibv_destroy_wq(wq.release()), 0);
}

TEST_F(Destroying, EventsReadAndUnreadDoNotHoldACompletionQueue) {
  QueueOptions options;
  options.channel = true;
  for (const bool read : {true, false}) {
    auto taker = queue(mac(1), options);
    ASSERT_EQ(ibv_req_notify_cq(taker->receive_cq.get(), 0), 0);
    wire.send(plain(mac(1), 1));
    EXPECT_EQ(taker->receive_fill(), 1);
    if (read) {
      ibv_cq* about = nullptr;
      void* cookie = nullptr;
      ASSERT_EQ(ibv_get_cq_event(taker->channel.get(), &about, &cookie), 0);
      ibv_ack_cq_events(about, 1);
    }
    softnic("fault", "break " + std::to_string(taker->qp->qp_num));
    ASSERT_TRUE(eventually([&] { return taker->state() == IBV_QPS_ERR; }));
    EXPECT_TRUE(!read || event_comes(context.get(), IBV_EVENT_QP_FATAL));
    taker.reset();  // hangs where the NIC counts events wrongly
  }
  EXPECT_FALSE(next_event(context.get(), kQuietMs));  // an unread event goes with its queue pair
}

}  // namespace
}  // namespace softnic_client
