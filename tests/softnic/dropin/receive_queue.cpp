#include "tests/softnic/dropin/receive_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/softnic/core/offload.h"

namespace softnic::dropin {
namespace {

constexpr std::uint8_t kPoison = 0xd5;

}  // namespace

ReceiveQueue::ReceiveQueue(const QueueLimits& limits, const Identity& identity, Completions& completions,
                           const MemoryTable& memory, Board& board)
    : limits_(limits), identity_(identity), completions_(completions), memory_(memory), board_(board) {}

std::uint8_t* ReceiveQueue::translate(const ibv_sge& piece) const noexcept {
  return memory_.translate(piece.lkey, piece.addr, piece.length, identity_.domain, true);
}

int ReceiveQueue::post(const ibv_recv_wr& request) {
  if (posted_ - done_ >= limits_.requests) return ENOMEM;
  if (request.num_sge < 0 || static_cast<std::uint32_t>(request.num_sge) > limits_.pieces) return EINVAL;
  waiting_.push_back({request.wr_id, {request.sg_list, request.sg_list + request.num_sge}});
  ++posted_;
  if ((board_.poison & Poison::kBuffers) == 0) return 0;
  for (const ibv_sge& piece : waiting_.back().pieces) {
    if (std::uint8_t* bytes = translate(piece); bytes != nullptr) std::memset(bytes, kPoison, piece.length);
  }
  return 0;
}

ibv_wc_status ReceiveQueue::scatter(Bytes frame, std::size_t total, bool strip) const noexcept {
  const std::size_t hole = strip ? 12 : frame.size();  // the tag lies behind the addresses
  std::size_t done = 0;
  for (const ibv_sge& piece : waiting_.front().pieces) {
    if (done == total) break;
    std::uint8_t* bytes = translate(piece);
    if (bytes == nullptr) return IBV_WC_LOC_PROT_ERR;
    const std::size_t length = std::min<std::size_t>(piece.length, total - done);
    const std::size_t before = done < hole ? std::min(length, hole - done) : 0;
    std::memcpy(bytes, frame.data() + done, before);
    if (before < length) std::memcpy(bytes + before, frame.data() + done + before + 4, length - before);
    done += length;
  }
  return done == total ? IBV_WC_SUCCESS : IBV_WC_LOC_LEN_ERR;
}

bool ReceiveQueue::receive(const Delivery& to, Bytes frame, const Headers& headers, std::uint32_t queue) {
  if (waiting_.empty()) {
    board_.count(Counter::drop_no_buffer);
    return true;
  }
  const bool strip = identity_.strip_vlan && headers.tagged;
  const std::size_t total = frame.size() - (strip ? 4 : 0);
  Completion completion;
  completion.queue = queue;
  completion.status = scatter(frame, total, strip);
  if (completion.status != IBV_WC_SUCCESS) {
    board_.count(completion.status == IBV_WC_LOC_PROT_ERR ? Counter::drop_protection : Counter::drop_length);
    complete(completion);
    return false;
  }
  completion.bytes = static_cast<std::uint32_t>(total);
  // The flag is about IPv4 only, ibv_poll_cq(3).
  if (identity_.checksums && headers.ipv4) {
    const ChecksumResult result = verify(frame, headers);
    if (result.l3_ok && result.l4_ok) completion.flags = IBV_WC_IP_CSUM_OK;
  }
  completion.vlan = strip ? headers.tci : 0;
  completion.tag = to.tagged ? to.tag : 0;
  board_.count(Counter::dma_write_bytes, total);
  if (complete(completion)) board_.count(Counter::rx_frames);
  return true;
}

bool ReceiveQueue::complete(Completion completion) {
  completion.id = waiting_.front().id;
  completion.opcode = IBV_WC_RECV;
  completion.done = &done_;
  completion.position = ++used_;
  waiting_.pop_front();
  return completions_.push(completion);
}

void ReceiveQueue::flush() {
  while (!waiting_.empty()) {
    Completion completion;
    completion.status = IBV_WC_WR_FLUSH_ERR;
    completion.queue = identity_.queue;
    complete(completion);
  }
}

void ReceiveQueue::reset() {
  completions_.remove(&done_);
  waiting_.clear();
  posted_ = used_ = done_ = 0;
}

}  // namespace softnic::dropin
