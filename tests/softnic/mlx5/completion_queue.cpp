#include "tests/softnic/mlx5/completion_queue.h"

#include <endian.h>
#include <infiniband/mlx5dv.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "tests/softnic/core/demote.h"
#include "tests/softnic/core/violation.h"

namespace softnic {
namespace {

// No driver writes this arm word: its unused bits are set. It stands in the record until the first arming, which may
// legally be all zeros.
constexpr std::uint32_t kNeverArmed = 0xffffffff;
constexpr std::uint32_t kSolicitedOnly = 1U << 24;
constexpr std::uint32_t kIndexMask = 0xffffff;
constexpr std::uint64_t kArmGraceNs = 100'000'000;
constexpr std::size_t kMostHeld = 8;

std::uint64_t clock_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

mlx5_cqe64 encode(const Completion& completion) noexcept {
  mlx5_cqe64 entry{};
  const bool error = completion.opcode == MLX5_CQE_REQ_ERR || completion.opcode == MLX5_CQE_RESP_ERR;
  const bool send = completion.opcode == MLX5_CQE_REQ || completion.opcode == MLX5_CQE_REQ_ERR;
  entry.srqn_uidx = htobe32(completion.user_index);
  entry.byte_cnt = htobe32(completion.bytes);
  entry.timestamp = htobe64(clock_ns());
  // A receive completion of version 1 has the rule's tag where a send completion has opcode and queue.
  entry.sop_drop_qpn =
      htobe32(send || error ? std::uint32_t{completion.send_opcode} << 24 | completion.queue : completion.tag);
  entry.wqe_counter = htobe16(completion.wqe_counter);
  entry.hds_ip_ext = completion.checks;
  entry.l4_hdr_type_etc = completion.header_types;
  entry.vlan_info = htobe16(completion.vlan);
  auto* bytes = reinterpret_cast<std::uint8_t*>(&entry);
  if (error) bytes[55] = completion.syndrome;
  if (!error && !send) {
    const std::uint32_t hash = htobe32(completion.hash);
    std::memcpy(bytes + 12, &hash, sizeof hash);
  }
  return entry;
}

}  // namespace

CompletionQueue::CompletionQueue(std::uint32_t number, const Layout& layout, const Events& events, Board& board)
    : number_(number),
      layout_(layout),
      events_(events),
      board_(board),
      arm_word_(kNeverArmed),
      random_(board.seed + number) {
  std::atomic_ref(layout_.record[1]).store(kNeverArmed, std::memory_order_release);
  held_.reserve(kMostHeld);
}

std::uint32_t CompletionQueue::consumer() const noexcept {
  return be32toh(std::atomic_ref(layout_.record[0]).load(std::memory_order_acquire)) & kIndexMask;
}

void CompletionQueue::push(const Completion& completion) noexcept {
  if (board_.seed == 0) {
    write(completion);
    return;
  }
  held_.push_back(completion);
  if (held_.size() >= kMostHeld || random_() % 4 == 0) flush(true);
}

void CompletionQueue::flush(bool all) noexcept {
  if (held_.empty() || (!all && random_() % 2 == 0)) return;
  for (const Completion& completion : held_) write(completion);
  held_.clear();
}

void CompletionQueue::write(const Completion& completion) noexcept {
  const bool error = completion.opcode == MLX5_CQE_REQ_ERR || completion.opcode == MLX5_CQE_RESP_ERR;
  if (error) board_.count(Counter::error_completions);
  error_seen_ = error_seen_ || error;
  if (((producer_ - consumer()) & kIndexMask) >= layout_.entries) overrun_ = true;
  if (overrun_) {
    board_.count(Counter::drop_cq_overrun);
    return;
  }
  const mlx5_cqe64 entry = encode(completion);
  const std::uint32_t slot = producer_ & (layout_.entries - 1);
  std::uint8_t* to = layout_.buffer + std::size_t{slot} * layout_.entry_bytes + (layout_.entry_bytes - sizeof entry);
  std::memcpy(to, &entry, sizeof entry - 1);
  const bool owner = (producer_ & layout_.entries) != 0;
  const auto op_own = static_cast<std::uint8_t>(completion.opcode << 4 | (owner ? 1 : 0));
  std::atomic_ref(to[sizeof entry - 1]).store(op_own, std::memory_order_release);
  demote(to, sizeof entry);
  ++producer_;
}

// The record is written before the register. A register that is written without a new record arms once more for what
// was asked for before: an event that got lost is not lost for ever.
void CompletionQueue::look_at_arming(std::uint64_t arm_writes, std::uint64_t now_ns) noexcept {
  const std::uint32_t word = std::atomic_ref(layout_.record[1]).load(std::memory_order_acquire);
  const bool again = register_written_ && armed_ns_ == 0 && word != kNeverArmed;
  if (word != arm_word_ || again) {
    arm_word_ = word;
    armed_ = true;
    armed_at_ = be32toh(word) & kIndexMask;
    solicited_only_ = (be32toh(word) & kSolicitedOnly) != 0;
    error_seen_ = false;
    armed_ns_ = now_ns;
    arm_writes_ = arm_writes;
  }
  if (register_written_) armed_ns_ = 0;
  register_written_ = false;
  if (armed_ns_ == 0 || now_ns - armed_ns_ <= kArmGraceNs) return;
  armed_ns_ = 0;
  if (arm_writes == arm_writes_) {
    violation(board_, "completion queue %u: arm word written, but not the arm register", number_);
  }
}

void CompletionQueue::interrupt(std::uint64_t arm_writes, std::uint64_t now_ns) noexcept {
  look_at_arming(arm_writes, now_ns);
  const bool news = (producer_ & kIndexMask) != armed_at_;
  if (!armed_ || !news || (solicited_only_ && !error_seen_)) return;
  armed_ = false;
  if (events_.channel < 0) return;
  std::uint32_t lose = board_.lose_interrupts.load(std::memory_order_relaxed);
  while (lose != 0 && !board_.lose_interrupts.compare_exchange_weak(lose, lose - 1)) {
  }
  if (lose != 0) {
    board_.count(Counter::interrupts_lost);
    return;
  }
  if (::write(events_.channel, &events_.cookie, sizeof events_.cookie) == sizeof events_.cookie) {
    board_.count(Counter::interrupts);
    ++events_sent_;
  }
}

bool CompletionQueue::take_overrun() noexcept {
  const bool news = overrun_ && !overrun_told_;
  overrun_told_ = overrun_;
  return news;
}

void CompletionQueue::resize(std::uint8_t* buffer, std::uint32_t entries, std::uint32_t entry_bytes) noexcept {
  flush(true);
  // The last entry of the old ring says where it ends. The driver copies what it has not polled to the places behind
  // it, and counts this entry.
  Completion last;
  last.opcode = MLX5_CQE_RESIZE_CQ;
  write(last);
  layout_.buffer = buffer;
  layout_.entries = entries;
  layout_.entry_bytes = entry_bytes;
}

}  // namespace softnic
