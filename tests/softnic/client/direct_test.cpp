/// Direct Verbs: a client that writes the rings itself, first right, then wrong in one way after the other. What real
/// hardware answers with silence or garbage, the NIC must call by its name.
#include <endian.h>
#include <infiniband/mlx5dv.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <sstream>
#include <thread>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kPayload = 82;  // of a frame of 100 bytes, behind 18 inlined ones

/// One work request as it is written to the ring.
struct Request {
  std::uint16_t index = 0;  ///< that its control segment claims
  std::uint32_t queue = 0;  ///< the same
  std::uint8_t opcode = MLX5_OPCODE_SEND;
  std::uint8_t checksums = 0;
  std::uint16_t inlined = 18;
  bool signaled = true;
  std::uint32_t payload = kPayload;
};

/// The send queue of a queue pair, in our hands.
class DirectSender {
 public:
  explicit DirectSender(RawQueue& queue) : queue_(queue) {
    mlx5dv_obj object{};
    object.qp = {queue.qp.get(), &ring_};
    cq_ring_.comp_mask = 0;
    object.cq = {queue.receive_cq.get(), &cq_ring_};
    if (mlx5dv_init_obj(&object, MLX5DV_OBJ_QP | MLX5DV_OBJ_CQ) != 0) throw std::runtime_error("mlx5dv_init_obj");
  }

  [[nodiscard]] std::uint32_t blocks() const { return ring_.sq.wqe_cnt; }
  [[nodiscard]] Request request(std::uint16_t index) const {
    Request made;
    made.index = index;
    made.queue = queue_.qp->qp_num;
    return made;
  }
  /// Writes a request of one block at `place` for a frame to mac(1).
  void write(std::uint16_t place, const Request& request) {
    const Frame frame = plain(mac(1), static_cast<std::uint8_t>(place));
    std::uint8_t* payload = queue_.stage(frame);
    std::array<std::uint8_t, kBlock> block{};
    const std::size_t data_at = 16 + (14 + std::max<std::size_t>(request.inlined, 2) + 15) / 16 * 16;
    auto* control = reinterpret_cast<mlx5_wqe_ctrl_seg*>(block.data());
    control->opmod_idx_opcode = htobe32(std::uint32_t{request.index} << 8 | request.opcode);
    control->qpn_ds = htobe32(request.queue << 8 | static_cast<std::uint32_t>(data_at / 16 + 1));
    control->fm_ce_se = request.signaled ? MLX5_WQE_CTRL_CQ_UPDATE : 0;
    auto* ethernet = reinterpret_cast<mlx5_wqe_eth_seg*>(&block[16]);
    ethernet->cs_flags = request.checksums;
    ethernet->inline_hdr_sz = htobe16(request.inlined);
    std::copy_n(frame.begin(), request.inlined, &block[30]);
    auto* data = reinterpret_cast<mlx5_wqe_data_seg*>(&block[data_at]);
    mlx5dv_set_data_seg(data, request.payload, queue_.mr->lkey,
                        reinterpret_cast<std::uintptr_t>(payload + request.inlined));
    std::copy(block.begin(), block.end(), slot(place));
  }
  /// Tells that the queue is filled up to `end`.
  void record(std::uint16_t end) { store(ring_.dbrec[MLX5_SND_DBR], end); }
  void receive_record(std::uint16_t end) { store(ring_.dbrec[MLX5_RCV_DBR], end); }
  void arm_record(std::uint32_t value) { store(cq_ring_.dbrec[1], value); }
  [[nodiscard]] std::uint32_t receive_requests() const { return ring_.rq.wqe_cnt; }
  /// Rings for the request that lies at `place`.
  void ring(std::uint16_t place) {
    std::uint64_t first = 0;
    std::memcpy(&first, slot(place), sizeof first);
    ring_with(first);
  }
  /// Rings with an index and a queue that are in no request.
  void ring_for(std::uint16_t index, std::uint32_t queue) {
    const std::uint32_t words[2] = {htobe32(std::uint32_t{index} << 8 | MLX5_OPCODE_SEND), htobe32(queue << 8 | 4)};
    std::uint64_t first = 0;
    std::memcpy(&first, words, sizeof first);
    ring_with(first);
  }
  void post(std::uint16_t place, const Request& request) {
    write(place, request);
    record(static_cast<std::uint16_t>(place + 1));
    ring(place);
  }

 private:
  static void store(__be32& word_there, std::uint32_t value) {
    std::atomic_ref<std::uint32_t>(word_there).store(htobe32(value), std::memory_order_release);
  }
  void ring_with(std::uint64_t first) {
    auto* half = reinterpret_cast<std::uint64_t*>(static_cast<std::uint8_t*>(ring_.bf.reg) + half_);
    std::atomic_ref<std::uint64_t>(*half).store(first, std::memory_order_release);
    half_ ^= ring_.bf.size;
  }
  std::uint8_t* slot(std::uint16_t place) const {
    return static_cast<std::uint8_t*>(ring_.sq.buf) + (place & (ring_.sq.wqe_cnt - 1)) * kBlock;
  }

  RawQueue& queue_;
  mlx5dv_qp ring_{};
  mlx5dv_cq cq_ring_{};
  std::uint32_t half_ = 0;
};

class Direct : public OnNic {
 protected:
  Direct() : queue_(idle()), sender(*queue_) { violates_ = true; }

  /// Runs `wrong`, waits until the NIC complains, then runs `amends`. All it said must contain `text`.
  void expect_violation(
      const std::string& text, const std::function<void()>& wrong, const std::function<void()>& amends = [] {}) {
    testing::internal::CaptureStderr();
    wrong();
    const bool spoke = eventually([&] { return counter("violations") > violations_before_; });
    amends();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::uint64_t violations = counter("violations") - violations_before_;
    std::istringstream said(testing::internal::GetCapturedStderr());
    EXPECT_TRUE(spoke) << "nothing was noticed";
    std::uint64_t lines = 0;
    for (std::string line; std::getline(said, line);) {
      if (line.rfind("softnic: violation:", 0) != 0) continue;
      ++lines;
      EXPECT_NE(line.find(text), std::string::npos) << line;
    }
    EXPECT_EQ(lines, violations);
  }
  void expect_violation_and_error(const std::string& text, const Request& request) {
    expect_violation(text, [&] { sender.post(0, request); });
    EXPECT_EQ(queue_->completed(), IBV_WC_LOC_QP_OP_ERR);
    EXPECT_EQ(queue_->state(), IBV_QPS_ERR);
    EXPECT_TRUE(event_comes(context.get(), IBV_EVENT_QP_FATAL));
  }

  std::unique_ptr<RawQueue> queue_;
  DirectSender sender;
};
class OnMinInline : public Direct {};
class OnNoChecksum : public Direct {};

/// One frame and its completion at a time would never catch up with the ring: a quarter of it goes at once.
void send_many(DirectSender& sender, RawQueue& queue, const Link& wire, std::uint32_t frames) {
  const std::uint32_t burst = sender.blocks() / 4;
  std::uint16_t next = 0;
  for (std::uint32_t sent = 0; sent < frames; sent += burst) {
    const std::uint16_t first = next;
    for (std::uint32_t i = 0; i < burst; ++i, ++next) {
      Request request = sender.request(next);
      request.signaled = i + 1 == burst;
      sender.write(next, request);
    }
    sender.record(next);
    sender.ring(static_cast<std::uint16_t>(next - 1));
    ASSERT_EQ(queue.completed(), IBV_WC_SUCCESS);
    for (std::uint32_t i = 0; i < burst; ++i) {
      const auto frame = wire.receive(mac(1));
      ASSERT_TRUE(frame);
      ASSERT_EQ(frame->size(), 100U);
      ASSERT_EQ(frame->back(), static_cast<std::uint8_t>(first + i));
    }
  }
}

TEST_F(Direct, RightClientSendsManyRounds) {
  violates_ = false;
  send_many(sender, *queue_, wire, 100'000);
}

TEST_F(OnMinInline, RightClientIsLeftAlone) {
  violates_ = false;
  send_many(sender, *queue_, wire, 1'000);
}

TEST_F(Direct, RequestWithoutInlinedBytes) {
  violates_ = false;
  Request request = sender.request(0);
  request.inlined = 0;
  request.payload = 100;
  sender.post(0, request);
  EXPECT_EQ(queue_->completed(), IBV_WC_SUCCESS);
  EXPECT_EQ(wire.receive(mac(1)).value(), plain(mac(1), 0));
}

TEST_F(Direct, RecordWithoutDoorbell) {
  expect_violation(
      "doorbell record says 1, but the register",
      [&] {
        sender.write(0, sender.request(0));
        sender.record(1);
      },
      [&] { sender.ring(0); });
  EXPECT_EQ(queue_->completed(), IBV_WC_SUCCESS);
}

TEST_F(Direct, DoorbellWithoutRecord) {
  expect_violation(
      "before the doorbell record",
      [&] {
        sender.write(0, sender.request(0));
        sender.ring(0);
      },
      [&] { sender.record(1); });
}

TEST_F(Direct, WrongBlockIndex) {
  Request request = sender.request(5);
  expect_violation("control segment says block 5", [&] {
    sender.write(0, request);
    sender.record(1);
    sender.ring_for(0, request.queue);
  });
  EXPECT_EQ(queue_->completed(), IBV_WC_LOC_QP_OP_ERR);
  EXPECT_EQ(queue_->state(), IBV_QPS_ERR);
}

TEST_F(Direct, WrongQueueInTheRequest) {
  Request request = sender.request(0);
  const std::uint32_t right = request.queue++;
  expect_violation("control segment says block 0, queue " + std::to_string(right + 1), [&] {
    sender.write(0, request);
    sender.record(1);
    sender.ring_for(0, right);
  });
  EXPECT_EQ(queue_->completed(), IBV_WC_LOC_QP_OP_ERR);
}

TEST_F(Direct, WrongQueueInTheDoorbell) {
  expect_violation("rung for queue " + std::to_string(sender.request(0).queue + 1), [&] {
    sender.write(0, sender.request(0));
    sender.record(1);
    sender.ring_for(0, sender.request(0).queue + 1);
  });
}

TEST_F(Direct, UnknownOpcode) {
  Request request = sender.request(0);
  request.opcode = 0x2f;
  expect_violation_and_error("opcode 0x2f", request);
}

TEST_F(Direct, UnknownChecksumFlag) {
  Request request = sender.request(0);
  request.checksums = 0x10;
  expect_violation_and_error("checksum flags 0x10", request);
}

TEST_F(Direct, SegmentOfLengthZero) {
  Request request = sender.request(0);
  request.payload = 0;
  expect_violation("length 0 means 2 GiB", [&] { sender.post(0, request); });
}

TEST_F(Direct, MorePostedThanFits) {
  const auto blocks = static_cast<std::uint16_t>(sender.blocks());
  expect_violation(std::to_string(blocks + 1) + " blocks posted, " + std::to_string(blocks) + " is its size", [&] {
    for (std::uint16_t i = 0; i <= blocks; ++i) sender.write(i, sender.request(i));
    sender.record(static_cast<std::uint16_t>(blocks + 1));
    sender.ring(blocks);
  });
}

TEST_F(Direct, MoreReceiveBuffersThanFit) {
  const std::uint32_t size = sender.receive_requests();
  expect_violation(std::to_string(size + 1) + " work requests posted, " + std::to_string(size) + " is its size",
                   [&] { sender.receive_record(static_cast<std::uint16_t>(size + 1)); });
}

TEST_F(Direct, ArmRecordWithoutRegister) {
  expect_violation("arm word written, but not the arm register", [&] { sender.arm_record(0); });
}

TEST_F(OnMinInline, TooFewInlinedBytes) {
  Request request = sender.request(0);
  request.inlined = 14;
  expect_violation_and_error("14 header bytes inlined, at least 18 wanted", request);
}

TEST_F(OnNoChecksum, ChecksumsThatWereNotOffered) {
  Request request = sender.request(0);
  request.checksums = MLX5_ETH_WQE_L3_CSUM | MLX5_ETH_WQE_L4_CSUM;
  expect_violation_and_error("checksum flags 0xc0 were not offered", request);
}

TEST_F(OnNoChecksum, GenericVerbsRefuseThem) {
  violates_ = false;
  EXPECT_NE(queue_->post(plain(mac(1)), IBV_SEND_IP_CSUM | IBV_SEND_SIGNALED), 0);
}

}  // namespace
}  // namespace softnic_client
