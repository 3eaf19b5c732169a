#include "tests/softnic/mlx5/send_queue.h"

#include <endian.h>
#include <infiniband/mlx5dv.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "tests/softnic/core/offload.h"
#include "tests/softnic/core/violation.h"

namespace softnic {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kSegment = 16;
constexpr std::size_t kInlineStart = kSegment + 14;  // of the header bytes in the Ethernet segment
constexpr std::size_t kShortestFrame = 60;           // without FCS; a NIC pads
constexpr std::size_t kEthernetHeader = 14;
constexpr std::uint32_t kInlineData = 1U << 31;
constexpr std::uint8_t kL3Checksum = 0x40;
constexpr std::uint8_t kL4Checksum = 0x80;
constexpr std::uint8_t kPoison = 0xee;
constexpr std::uint64_t kRingGraceNs = 100'000'000;
constexpr std::size_t kMostTsoHeader = 256;

}  // namespace

SendQueue::SendQueue(const Layout& layout, const Identity& identity, Doorbell& doorbell, CompletionQueue& completions,
                     const MemoryTable& memory, Scratch& scratch, Board& board) noexcept
    : layout_(layout),
      identity_(identity),
      doorbell_(doorbell),
      completions_(completions),
      memory_(memory),
      scratch_(scratch),
      board_(board) {}

std::uint16_t SendQueue::posted() const noexcept {
  return static_cast<std::uint16_t>(be32toh(std::atomic_ref(*layout_.record).load(std::memory_order_acquire)));
}

std::uint16_t SendQueue::blocks_at(std::uint16_t index) const noexcept {
  const std::uint8_t* request = layout_.buffer + std::size_t{index & (layout_.blocks - 1)} * kBlock;
  const std::size_t segments = load_be32(request + 4) & 0x3f;
  return static_cast<std::uint16_t>(std::max<std::size_t>(1, (segments * kSegment + kBlock - 1) / kBlock));
}

void SendQueue::look(std::uint64_t now_ns) noexcept {
  if (doorbell_.shared()) {
    while (doorbell_.take()) board_.count(Counter::doorbells);
    if (target_ == posted()) return;
    target_ = posted();
  } else {
    bool rang = false;
    while (const auto ring = doorbell_.take()) {
      board_.count(Counter::doorbells);
      if (ring->queue != identity_.queue) {
        violation(board_, "queue %u: its doorbell register was rung for queue %u", identity_.queue, ring->queue);
      }
      // The halves are found in any order; the later work request stands for both.
      if (!rang || static_cast<std::int16_t>(ring->index - rung_) > 0) rung_ = ring->index;
      rang = true;
    }
    const std::uint16_t now_posted = posted();
    if (!rang) {
      if (now_posted == target_) {
        unrung_ns_ = 0;
        return;
      }
      if (unrung_ns_ == 0) unrung_ns_ = now_ns;
      if (now_ns - unrung_ns_ > kRingGraceNs) {
        violation(board_, "queue %u: doorbell record says %u, but the register was last rung for %u", identity_.queue,
                  now_posted, rung_);
        unrung_ns_ = now_ns;
      }
      return;
    }
    const auto end = static_cast<std::uint16_t>(rung_ + blocks_at(rung_));
    if (static_cast<std::uint16_t>(now_posted - end) >= layout_.blocks) {
      violation(board_, "queue %u: rung for blocks %u to %u before the doorbell record (%u) says so", identity_.queue,
                rung_, end, now_posted);
    }
    // Not what was posted behind it meanwhile: the driver still reads that request, to ring for it.
    target_ = end;
    unrung_ns_ = 0;
  }
  if (board_.dma_delay_ns != 0) not_before_ns_ = std::max(not_before_ns_, now_ns + board_.dma_delay_ns);
  if (static_cast<std::uint16_t>(target_ - head_) > layout_.blocks) {
    violation(board_, "queue %u: %u blocks posted, %u is its size", identity_.queue,
              static_cast<unsigned>(static_cast<std::uint16_t>(target_ - head_)), layout_.blocks);
    head_ = target_;
  }
}

// Copies the next work request out of the ring and poisons its place: the driver has no business there until it polls
// the completion.
bool SendQueue::fetch() noexcept {
  const std::uint32_t mask = layout_.blocks - 1;
  const auto block = [&](std::size_t i) { return layout_.buffer + std::size_t{(head_ + i) & mask} * kBlock; };
  std::memcpy(request_.data(), block(0), kBlock);
  const std::uint32_t word = load_be32(request_.data());
  const std::uint32_t owner = load_be32(request_.data() + 4);
  opcode_ = static_cast<std::uint8_t>(word);
  segments_ = owner & 0x3f;
  signaled_ = (request_[11] & 0x0c) == MLX5_WQE_CTRL_CQ_UPDATE;
  const auto index = static_cast<std::uint16_t>(word >> 8);
  const std::size_t blocks = std::max<std::size_t>(1, (segments_ * kSegment + kBlock - 1) / kBlock);
  const bool sound = index == head_ && owner >> 8 == identity_.queue && segments_ != 0 &&
                     blocks <= static_cast<std::uint16_t>(target_ - head_);
  if (!sound) {
    violation(board_, "queue %u, block %u: control segment says block %u, queue %u, %u segments; %u blocks are posted",
              identity_.queue, head_, index, owner >> 8, segments_,
              static_cast<unsigned>(static_cast<std::uint16_t>(target_ - head_)));
    return false;
  }
  for (std::size_t i = 1; i < blocks; ++i) std::memcpy(&request_[i * kBlock], block(i), kBlock);
  if ((board_.poison & Poison::kRequests) != 0) {
    for (std::size_t i = 0; i < blocks; ++i) std::memset(block(i), kPoison, kBlock);
  }
  return true;
}

bool SendQueue::process(int most, std::uint64_t now_ns, FrameOut& out) noexcept {
  for (int i = 0; i < most && work() && now_ns >= not_before_ns_; ++i) {
    std::uint8_t syndrome = MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
    if (fetch()) syndrome = break_next_ != 0 ? std::exchange(break_next_, 0) : execute(out);
    complete(syndrome);
    if (syndrome != 0) return false;
    if (kbps_ != 0) {
      not_before_ns_ = std::max(not_before_ns_, now_ns) + gathered_ * 8'000'000 / kbps_;
    }
  }
  return true;
}

// Data segments, one behind the other, to frame_ from gathered_ on.
std::uint8_t SendQueue::gather(const std::uint8_t* at, const std::uint8_t* end) noexcept {
  while (at < end) {
    mlx5_wqe_data_seg raw{};
    std::memcpy(&raw, at, sizeof raw);
    const std::uint32_t count = be32toh(raw.byte_count);
    const std::size_t length = count & ~kInlineData;
    const std::uint8_t* from = nullptr;
    if ((count & kInlineData) != 0) {
      from = at + 4;
      if (length > static_cast<std::size_t>(end - from)) return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
      at += (4 + length + kSegment - 1) / kSegment * kSegment;
    } else {
      if (length == 0) violation(board_, "queue %u: data segment of length 0 means 2 GiB", identity_.queue);
      from = memory_.translate(be32toh(raw.lkey), be64toh(raw.addr), length, identity_.domain, false);
      if (from == nullptr) return MLX5_CQE_SYNDROME_LOCAL_PROT_ERR;
      at += kSegment;
      board_.count(Counter::dma_read_bytes, length);
      if (memory_.shared(be32toh(raw.lkey))) board_.count(Counter::dma_read_shared_bytes, length);
    }
    if (length > scratch_.frame.size() - gathered_) return MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR;
    std::memcpy(scratch_.frame.data() + gathered_, from, length);
    gathered_ += length;
  }
  return 0;
}

std::uint8_t SendQueue::execute(FrameOut& out) noexcept {
  gathered_ = 0;
  if (opcode_ == MLX5_OPCODE_NOP) return 0;
  if (opcode_ != MLX5_OPCODE_SEND && opcode_ != MLX5_OPCODE_TSO) {
    violation(board_, "queue %u: opcode %#x is none that a raw packet queue knows", identity_.queue, opcode_);
    return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
  }
  const std::size_t bytes = segments_ * kSegment;
  const std::size_t inlined = load_be16(&request_[kSegment + 12]);
  const std::size_t data_at = kSegment + (14 + std::max<std::size_t>(inlined, 2) + kSegment - 1) / kSegment * kSegment;
  if (inlined < identity_.min_inline || data_at > bytes) {
    violation(board_, "queue %u: %zu header bytes inlined, at least %u wanted, %zu bytes of work request",
              identity_.queue, inlined, identity_.min_inline, bytes);
    return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
  }
  const std::uint8_t flags = request_[kSegment + 4];
  if ((flags & ~(kL3Checksum | kL4Checksum)) != 0 || (flags != 0 && !identity_.checksums)) {
    violation(board_, "queue %u: checksum flags %#x were not offered", identity_.queue, flags);
    return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
  }
  std::memcpy(scratch_.frame.data(), &request_[kInlineStart], inlined);
  gathered_ = inlined;
  if (const std::uint8_t syndrome = gather(&request_[data_at], &request_[bytes]); syndrome != 0) return syndrome;
  if (opcode_ == MLX5_OPCODE_TSO) return execute_tso(inlined, load_be16(&request_[kSegment + 6]), out);
  if (gathered_ < kEthernetHeader || gathered_ > kMostFrameBytes) return MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR;
  emit(gathered_, flags, out);
  return 0;
}

std::uint8_t SendQueue::execute_tso(std::size_t header_bytes, std::uint16_t mss, FrameOut& out) noexcept {
  board_.count(Counter::tso_requests);
  if (header_bytes > kMostTsoHeader || gathered_ - header_bytes > identity_.max_tso) {
    violation(board_, "queue %u: TSO of %zu payload bytes behind %zu header bytes; %u are offered", identity_.queue,
              gathered_ - header_bytes, header_bytes, identity_.max_tso);
    return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
  }
  const Bytes all(scratch_.frame.data(), gathered_);
  Segmenter segmenter(all.first(header_bytes), all.subspan(header_bytes), mss);
  if (!segmenter.valid()) {
    violation(board_, "queue %u: TSO of %zu header bytes that are not those of a TCP frame, MSS %u", identity_.queue,
              header_bytes, mss);
    return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
  }
  while (const std::size_t bytes = segmenter.next(scratch_.segment)) {
    board_.count(Counter::tx_frames);
    out.frame(Bytes(scratch_.segment.data(), bytes));
  }
  return 0;
}

void SendQueue::emit(std::size_t bytes, std::uint8_t flags, FrameOut& out) noexcept {
  const std::span<std::uint8_t> frame(scratch_.frame.data(), bytes);
  if (flags != 0) {
    const Headers headers = parse(frame);
    if ((flags & kL3Checksum) != 0) insert_l3_checksum(frame, headers);
    if ((flags & kL4Checksum) != 0) insert_l4_checksum(frame, headers);
  }
  if (bytes < kShortestFrame) {
    std::memset(scratch_.frame.data() + bytes, 0, kShortestFrame - bytes);
    bytes = kShortestFrame;
  }
  board_.count(Counter::tx_frames);
  out.frame(Bytes(scratch_.frame.data(), bytes));
}

// Ends the work request at head_. A completion names it and stands for all before it.
void SendQueue::complete(std::uint8_t syndrome) noexcept {
  if (signaled_ || syndrome != 0) {
    Completion completion;
    completion.opcode = syndrome == 0 ? MLX5_CQE_REQ : MLX5_CQE_REQ_ERR;
    completion.send_opcode = opcode_;
    completion.syndrome = syndrome;
    completion.queue = identity_.queue;
    completion.user_index = identity_.user_index;
    completion.wqe_counter = head_;
    completions_.push(completion);
  }
  const std::size_t blocks = std::max<std::size_t>(1, (segments_ * kSegment + kBlock - 1) / kBlock);
  head_ = static_cast<std::uint16_t>(head_ + blocks);
}

void SendQueue::flush() noexcept {
  target_ = posted();
  while (work()) {
    if (!fetch()) {
      head_ = target_;
      return;
    }
    complete(MLX5_CQE_SYNDROME_WR_FLUSH_ERR);
  }
}

void SendQueue::reset() noexcept {
  // Rung for in the error state, which looks at the record alone.
  if (!doorbell_.shared()) doorbell_.drain();
  head_ = target_ = rung_ = 0;
  unrung_ns_ = not_before_ns_ = 0;
  break_next_ = 0;
  kbps_ = 0;
}

}  // namespace softnic
