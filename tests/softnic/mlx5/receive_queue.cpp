#include "tests/softnic/mlx5/receive_queue.h"

#include <endian.h>
#include <infiniband/mlx5dv.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "tests/softnic/core/demote.h"
#include "tests/softnic/core/offload.h"
#include "tests/softnic/core/violation.h"

namespace softnic {
namespace {

constexpr std::uint32_t kEndOfList = 0x100;
constexpr std::uint8_t kPoison = 0xd5;
constexpr std::uint8_t kVlanStripped = 1;

// Layer-4 types of a completion, programmer's manual "CQE Format"; libmlx5 does not look at them.
std::uint8_t header_types(Bytes frame, const Headers& headers) noexcept {
  unsigned l3 = MLX5_CQE_L3_HDR_TYPE_NONE;
  if (headers.ipv4) l3 = MLX5_CQE_L3_HDR_TYPE_IPV4;
  if (headers.ipv6) l3 = MLX5_CQE_L3_HDR_TYPE_IPV6;
  unsigned l4 = 0;
  if (headers.udp()) l4 = 2;
  if (headers.tcp()) {
    const bool ack = (frame[headers.l4 + 13U] & 0x10) != 0;
    l4 = 1;
    if (ack) l4 = headers.payload == headers.l3_end ? 3 : 4;
  }
  return static_cast<std::uint8_t>(l3 << 2 | l4 << 4);
}

std::uint8_t checks(Bytes frame, const Headers& headers) noexcept {
  const ChecksumResult result = verify(frame, headers);
  return static_cast<std::uint8_t>(MLX5_CQE_L2_OK | (result.l3_ok ? MLX5_CQE_L3_OK : 0) |
                                   (result.l4_ok ? MLX5_CQE_L4_OK : 0));
}

}  // namespace

ReceiveQueue::ReceiveQueue(const Layout& layout, const Identity& identity, CompletionQueue& completions,
                           const MemoryTable& memory, Board& board) noexcept
    : layout_(layout), identity_(identity), completions_(completions), memory_(memory), board_(board) {}

std::uint16_t ReceiveQueue::posted() const noexcept {
  return static_cast<std::uint16_t>(be32toh(std::atomic_ref(*layout_.record).load(std::memory_order_acquire)));
}

const std::uint8_t* ReceiveQueue::stride(std::uint16_t index) const noexcept {
  return layout_.buffer + (std::size_t{index & (layout_.count - 1)} << layout_.stride_shift);
}

namespace {

struct Segment {
  std::uint32_t bytes;
  std::uint32_t key;
  std::uint64_t address;
};

Segment segment(const std::uint8_t* at) noexcept {
  mlx5_wqe_data_seg raw{};
  std::memcpy(&raw, at, sizeof raw);
  return {be32toh(raw.byte_count), be32toh(raw.lkey), be64toh(raw.addr)};
}

}  // namespace

void ReceiveQueue::look() noexcept {
  const std::uint16_t end = posted();
  const auto waiting = static_cast<std::uint16_t>(end - head_);
  if (waiting > layout_.count && !overfull_) {
    violation(board_, "receive queue of %u: %u work requests posted, %u is its size", identity_.queue,
              static_cast<unsigned>(waiting), layout_.count);
  }
  overfull_ = waiting > layout_.count;
  if (overfull_ || (board_.poison & Poison::kBuffers) == 0) poisoned_ = end;
  const std::size_t most = (std::size_t{1} << layout_.stride_shift) / sizeof(mlx5_wqe_data_seg);
  for (; poisoned_ != end; ++poisoned_) {
    const std::uint8_t* at = stride(poisoned_);
    for (std::size_t i = 0; i < most; ++i) {
      const Segment part = segment(at + i * sizeof(mlx5_wqe_data_seg));
      if (part.key == kEndOfList) break;
      std::uint8_t* bytes = memory_.translate(part.key, part.address, part.bytes, identity_.domain, true);
      if (bytes != nullptr) std::memset(bytes, kPoison, part.bytes);
    }
  }
}

bool ReceiveQueue::fail(std::uint8_t syndrome, Counter why) noexcept {
  board_.count(why);
  Completion completion;
  completion.opcode = MLX5_CQE_RESP_ERR;
  completion.syndrome = syndrome;
  completion.queue = identity_.queue;
  completion.user_index = identity_.user_index;
  completion.wqe_counter = head_++;
  completions_.push(completion);
  return false;
}

bool ReceiveQueue::receive(const Delivery& to, Bytes frame, const Headers& headers, std::uint32_t hash) noexcept {
  if (posted() == head_) {
    board_.count(Counter::drop_no_buffer);
    return true;
  }
  if (poisoned_ == head_) look();  // posted since the round began: it must not be overwritten later
  const bool strip = identity_.strip_vlan && headers.tagged;
  const std::size_t hole = strip ? 12 : frame.size();  // the tag lies behind the addresses
  const std::size_t total = frame.size() - (strip ? 4 : 0);
  const std::uint8_t* at = stride(head_);
  const std::size_t most = (std::size_t{1} << layout_.stride_shift) / sizeof(mlx5_wqe_data_seg);
  std::size_t done = 0;
  for (std::size_t i = 0; i < most && done < total; ++i) {
    const Segment part = segment(at + i * sizeof(mlx5_wqe_data_seg));
    if (part.key == kEndOfList) break;
    std::uint8_t* bytes = memory_.translate(part.key, part.address, part.bytes, identity_.domain, true);
    if (bytes == nullptr) return fail(MLX5_CQE_SYNDROME_LOCAL_PROT_ERR, Counter::drop_protection);
    const std::size_t length = std::min<std::size_t>(part.bytes, total - done);
    if (memory_.shared(part.key)) board_.count(Counter::dma_write_shared_bytes, length);
    const std::size_t before = done < hole ? std::min(length, hole - done) : 0;
    std::memcpy(bytes, frame.data() + done, before);
    std::memcpy(bytes + before, frame.data() + done + before + 4, length - before);
    demote(bytes, length);
    done += length;
  }
  if (done < total) return fail(MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR, Counter::drop_length);
  board_.count(Counter::dma_write_bytes, total);
  board_.count(Counter::rx_frames);
  Completion completion;
  completion.opcode = MLX5_CQE_RESP_SEND;
  completion.queue = identity_.queue;
  completion.user_index = identity_.user_index;
  completion.wqe_counter = head_++;
  completion.bytes = static_cast<std::uint32_t>(total);
  completion.checks = checks(frame, headers);
  completion.header_types = static_cast<std::uint8_t>(header_types(frame, headers) | (strip ? kVlanStripped : 0));
  completion.vlan = headers.tci;
  completion.tag = to.tagged ? to.tag & 0xffffff : 0;
  completion.hash = hash;
  completions_.push(completion);
  return true;
}

void ReceiveQueue::flush() noexcept {
  while (posted() != head_) {
    Completion completion;
    completion.opcode = MLX5_CQE_RESP_ERR;
    completion.syndrome = MLX5_CQE_SYNDROME_WR_FLUSH_ERR;
    completion.queue = identity_.queue;
    completion.user_index = identity_.user_index;
    completion.wqe_counter = head_++;
    completions_.push(completion);
  }
  poisoned_ = head_;  // they are the driver's again
}

void ReceiveQueue::reset() noexcept {
  head_ = poisoned_ = 0;
  overfull_ = false;
}

}  // namespace softnic
