/// What the NIC does to frames. The judge of what it sends is the kernel at the far end of the cable.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <system_error>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

constexpr std::uint16_t kPort = 2000;

/// A UDP socket of the kernel at the far end.
class FarSocket {
 public:
  FarSocket() {
    at_wire([this] { fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); });
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(kPort);
    std::memcpy(&address.sin_addr, kWireIp.data(), kWireIp.size());
    if (::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      throw std::system_error(errno, std::generic_category(), "bind");
    }
  }
  ~FarSocket() { ::close(fd_); }
  FarSocket(const FarSocket&) = delete;
  FarSocket& operator=(const FarSocket&) = delete;
  /// The next datagram; empty where none comes.
  [[nodiscard]] Frame next() const {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) != 1) return {};
    Frame payload(2048);
    payload.resize(static_cast<std::size_t>(::recv(fd_, payload.data(), payload.size(), 0)));
    return payload;
  }

 private:
  int fd_ = -1;
};

class Offload : public OnNic {
 protected:
  static Flow to_far() {
    Flow flow;
    flow.destination_port = kPort;
    return flow;
  }
  /// The frames of a TSO request with this payload, as they came at the far end.
  std::vector<Frame> segments(std::size_t count) {
    std::vector<Frame> all;
    while (all.size() < count) {
      auto frame = wire.receive(kWireMac, kPatienceMs);
      if (!frame) break;
      if ((*frame)[23] == 6) all.push_back(std::move(*frame));
    }
    return all;
  }
  static void expect_segments(const std::vector<Frame>& frames, const Frame& payload, std::size_t mss,
                              std::uint32_t sequence) {
    Frame joined;
    for (const Frame& frame : frames) {
      EXPECT_TRUE(checksums_right(frame));
      EXPECT_EQ(word(frame, 16), frame.size() - 14);
      EXPECT_EQ(std::uint32_t{word(frame, 38)} << 16 | word(frame, 40), sequence + joined.size());
      EXPECT_EQ(frame.size() - kTcpHeaders, std::min(mss, payload.size() - joined.size()));
      const bool last = &frame == &frames.back();
      EXPECT_EQ((frame[47] & 8) != 0, last);  // PSH
      joined.insert(joined.end(), frame.begin() + kTcpHeaders, frame.end());
    }
    EXPECT_EQ(joined, payload);
  }
  static Frame counting(std::size_t bytes) {
    Frame payload(bytes);
    for (std::size_t i = 0; i < bytes; ++i) payload[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    return payload;
  }
};

TEST_F(Offload, InsertedChecksumsPleaseAKernel) {
  const FarSocket far;
  const auto sender = idle();
  Frame frame = udp(kWireMac, to_far(), Frame(101, 1));
  set_word(frame, 24, 0x1234);
  set_word(frame, 40, 0x1234);
  EXPECT_EQ(sender->send(frame, 0), IBV_WC_SUCCESS);  // as it is: the kernel does not take it
  frame.back() = 2;
  EXPECT_EQ(sender->send(frame, IBV_SEND_IP_CSUM), IBV_WC_SUCCESS);
  const Frame payload = far.next();
  ASSERT_EQ(payload.size(), 101U);
  EXPECT_EQ(payload.back(), 2);
}

TEST_F(Offload, InsertedChecksumsBehindAVlanTag) {
  const auto sender = idle();
  Frame frame = udp(mac(1), to_far(), counting(300));
  set_word(frame, 24, 0);
  set_word(frame, 40, 0);
  EXPECT_EQ(sender->send(tagged(frame, 7), IBV_SEND_IP_CSUM), IBV_WC_SUCCESS);
  auto got = wire.receive(mac(1));
  ASSERT_TRUE(got);
  ASSERT_EQ(word(*got, 12), 0x8100);
  got->erase(got->begin() + 12, got->begin() + 16);
  EXPECT_TRUE(checksums_right(*got));
}

TEST_F(Offload, TsoThroughTheExtendedInterface) {
  QueueOptions options;
  options.send_operations = IBV_QP_EX_WITH_TSO | IBV_QP_EX_WITH_SEND;
  options.tso_header = 128;
  options.buffer_bytes = 8192;
  const auto sender = idle(options);
  const Frame payload = counting(4500);
  Frame header = tso_header(kWireMac, to_far(), 0xfffff000);
  ibv_qp_ex* qp = ibv_qp_to_qp_ex(sender->qp.get());
  ASSERT_NE(qp, nullptr);
  ibv_wr_start(qp);
  qp->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
  ibv_wr_send_tso(qp, header.data(), static_cast<std::uint16_t>(header.size()), 1000);
  ibv_wr_set_sge(qp, sender->mr->lkey, reinterpret_cast<std::uintptr_t>(sender->stage(payload)), 4500);
  ASSERT_EQ(ibv_wr_complete(qp), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_SUCCESS);
  const auto frames = segments(5);
  ASSERT_EQ(frames.size(), 5U);
  expect_segments(frames, payload, 1000, 0xfffff000);
}

TEST_F(Offload, TsoThroughPostSend) {
  QueueOptions options;
  options.tso_header = 128;
  options.buffer_bytes = 65536;
  const auto sender = idle(options);
  const Frame payload = counting(40000);
  Frame header = tso_header(kWireMac, to_far(), 5);
  ibv_sge part{reinterpret_cast<std::uintptr_t>(sender->stage(payload)), 40000, sender->mr->lkey};
  ibv_send_wr request{};
  request.sg_list = &part;
  request.num_sge = 1;
  request.opcode = IBV_WR_TSO;
  request.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
  request.tso.hdr = header.data();
  request.tso.hdr_sz = static_cast<std::uint16_t>(header.size());
  request.tso.mss = 1460;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(sender->qp.get(), &request, &bad), 0);
  EXPECT_EQ(sender->completed(), IBV_WC_SUCCESS);
  const auto frames = segments(28);
  ASSERT_EQ(frames.size(), 28U);
  expect_segments(frames, payload, 1460, 5);
}

TEST_F(Offload, VerdictOnReceivedChecksums) {
  const auto taker = queue(mac(1));
  const Frame good = udp(mac(1), Flow{}, counting(77));
  const auto verdict = [&](const Frame& frame) {
    wire.send(frame);
    const auto got = taker->receive(kPatienceMs);
    return got && (got->flags & IBV_WC_IP_CSUM_OK) != 0;
  };
  EXPECT_TRUE(verdict(good));
  Frame bad = good;
  bad.back() ^= 1;
  EXPECT_FALSE(verdict(bad));
  bad = good;
  bad[22] ^= 1;  // TTL: the IPv4 header's checksum is wrong
  EXPECT_FALSE(verdict(bad));
  EXPECT_FALSE(verdict(plain(mac(1))));
  EXPECT_TRUE(verdict(good));
}

TEST_F(Offload, VlanTagIsStrippedAndReported) {
  QueueOptions options;
  options.create_flags = IBV_QP_CREATE_CVLAN_STRIPPING;
  options.completion_fields = std::uint64_t{IBV_WC_STANDARD_FLAGS} | IBV_WC_EX_WITH_CVLAN;
  const auto taker = queue(mac(1), options);
  wire.send(tagged(plain(mac(1), 3), 0x6123));
  const auto got = taker->receive(kPatienceMs).value();
  EXPECT_EQ(got.frame, plain(mac(1), 3));
  EXPECT_EQ(got.vlan, 0x6123);
  wire.send(plain(mac(1), 4));
  EXPECT_EQ(taker->receive(kPatienceMs).value().frame, plain(mac(1), 4));
}

TEST_F(Offload, VlanTagStaysWithoutStripping) {
  const auto taker = queue(mac(1));
  wire.send(tagged(plain(mac(1), 3), 0x6123));
  EXPECT_EQ(taker->receive(kPatienceMs).value().frame, tagged(plain(mac(1), 3), 0x6123));
}

TEST_F(Offload, PacingBoundsTheRate) {
  QueueOptions options;
  options.send_requests = options.receive_requests = 256;
  options.send_entries = 256;
  const auto sender = idle(options);
  const auto time_of_100 = [&] {
    const std::int64_t before = now_ms();
    for (int i = 0; i < 100; ++i) EXPECT_EQ(sender->post(plain(mac(1), 0, 1000)), 0);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(sender->completed(), IBV_WC_SUCCESS);
    return now_ms() - before;
  };
  EXPECT_LT(time_of_100(), 150);
  ibv_qp_rate_limit_attr limit{};
  limit.rate_limit = 4000;  // kbit/s: 100 frames of 1000 bytes in 200 ms
  ASSERT_EQ(ibv_modify_qp_rate_limit(sender->qp.get(), &limit), 0);
  const std::int64_t paced = time_of_100();
  EXPECT_GT(paced, 160);
  EXPECT_LT(paced, 600);
  limit.rate_limit = 0;
  ASSERT_EQ(ibv_modify_qp_rate_limit(sender->qp.get(), &limit), 0);
  EXPECT_LT(time_of_100(), 150);
}

/// Four receive queues behind one hash.
class Spread {
 public:
  static constexpr std::size_t kQueues = 4;
  explicit Spread(ibv_context* context)
      : domain_(owned(ibv_alloc_pd(context), "ibv_alloc_pd")),
        memory_(owned(ibv_reg_mr(domain_.get(), buffer_.data(), buffer_.size(), kLocalWrite), "ibv_reg_mr")) {
    ibv_wq* raw[kQueues];
    for (std::size_t i = 0; i < kQueues; ++i) {
      cqs_[i] = owned(ibv_create_cq(context, 256, nullptr, nullptr, 0), "ibv_create_cq");
      ibv_wq_init_attr attr{};
      attr.wq_type = IBV_WQT_RQ;
      attr.max_wr = 256;
      attr.max_sge = 1;
      attr.pd = domain_.get();
      attr.cq = cqs_[i].get();
      wqs_[i] = owned(ibv_create_wq(context, &attr), "ibv_create_wq");
      raw[i] = wqs_[i].get();
      ibv_wq_attr ready{};
      ready.attr_mask = IBV_WQ_ATTR_STATE;
      ready.wq_state = IBV_WQS_RDY;
      EXPECT_EQ(ibv_modify_wq(raw[i], &ready), 0);
      for (int k = 0; k < 256; ++k) {
        ibv_sge part{reinterpret_cast<std::uintptr_t>(buffer_.data()), 2048, memory_->lkey};
        ibv_recv_wr request{0, nullptr, &part, 1};
        ibv_recv_wr* bad = nullptr;
        EXPECT_EQ(ibv_post_wq_recv(raw[i], &request, &bad), 0);
      }
    }
    ibv_rwq_ind_table_init_attr table{2, raw, 0};
    table_ = owned(ibv_create_rwq_ind_table(context, &table), "ibv_create_rwq_ind_table");
    std::array<std::uint8_t, 40> key{};
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i * 37 + 11);
    ibv_qp_init_attr_ex attr{};
    attr.qp_type = IBV_QPT_RAW_PACKET;
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_IND_TABLE | IBV_QP_INIT_ATTR_RX_HASH;
    attr.pd = domain_.get();
    attr.rwq_ind_tbl = table_.get();
    attr.rx_hash_conf = {
        IBV_RX_HASH_FUNC_TOEPLITZ, 40, key.data(),
        IBV_RX_HASH_SRC_IPV4 | IBV_RX_HASH_DST_IPV4 | IBV_RX_HASH_SRC_PORT_UDP | IBV_RX_HASH_DST_PORT_UDP};
    qp = owned(ibv_create_qp_ex(context, &attr), "ibv_create_qp_ex");
    flow_ = owned(Rule().to(mac(1)).create(qp.get()).release(), "ibv_create_flow");
  }
  /// The queue that got the next frame.
  [[nodiscard]] std::size_t next() {
    std::size_t which = kQueues;
    EXPECT_TRUE(eventually([&] {
      ibv_wc done{};
      for (std::size_t i = 0; i < kQueues; ++i) {
        if (ibv_poll_cq(cqs_[i].get(), 1, &done) == 1) which = i;
      }
      return which != kQueues;
    }));
    return which;
  }
  ibv_wq* queue(std::size_t index) { return wqs_[index].get(); }
  ibv_cq* completions(std::size_t index) { return cqs_[index].get(); }

 private:
  Frame buffer_ = Frame(2048);
  Handle<ibv_pd> domain_;
  Handle<ibv_mr> memory_;
  Handle<ibv_cq> cqs_[kQueues];
  Handle<ibv_wq> wqs_[kQueues];
  Handle<ibv_rwq_ind_table> table_;

 public:
  Handle<ibv_qp> qp;

 private:
  Handle<ibv_flow> flow_;
};

TEST_F(Offload, RssSpreadsFlowsAndKeepsEachTogether) {
  Spread spread(context.get());
  std::set<std::size_t> used;
  for (std::uint16_t port = 0; port < 32; ++port) {
    Flow flow;
    flow.source_port = static_cast<std::uint16_t>(5000 + port);
    const Frame frame = udp(mac(1), flow, Frame(20));
    wire.send(frame);
    const std::size_t first = spread.next();
    wire.send(frame);
    EXPECT_EQ(spread.next(), first);
    used.insert(first);
  }
  EXPECT_EQ(used.size(), Spread::kQueues);
}

TEST_F(Offload, WorkQueueInErrorFlushesWhatIsPosted) {
  Spread spread(context.get());
  ibv_wq_attr error{};
  error.attr_mask = IBV_WQ_ATTR_STATE;
  error.wq_state = IBV_WQS_ERR;
  ASSERT_EQ(ibv_modify_wq(spread.queue(0), &error), 0);
  const auto flushed = [&] {
    ibv_wc done{};
    EXPECT_TRUE(eventually([&] { return ibv_poll_cq(spread.completions(0), 1, &done) == 1; }));
    return done.status;
  };
  for (int i = 0; i < 256; ++i) ASSERT_EQ(flushed(), IBV_WC_WR_FLUSH_ERR);
  ibv_recv_wr request{0, nullptr, nullptr, 0};
  ibv_recv_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_wq_recv(spread.queue(0), &request, &bad), 0);
  EXPECT_EQ(flushed(), IBV_WC_WR_FLUSH_ERR);
}

}  // namespace
}  // namespace softnic_client
