#include "tests/softnic/dropin/send_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/softnic/core/offload.h"
#include "tests/softnic/core/violation.h"

namespace softnic::dropin {
namespace {

constexpr std::size_t kShortestFrame = 60;  // without FCS; a NIC pads
constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kMostGathered = 320 * 1024;

}  // namespace

SendQueue::SendQueue(const QueueLimits& limits, const Identity& identity, Completions& completions,
                     const MemoryTable& memory, Board& board)
    : limits_(limits), identity_(identity), completions_(completions), memory_(memory), board_(board) {
  frame_.resize(limits.tso_header != 0 ? kMostGathered : kMostFrameBytes);
  if (limits.tso_header != 0) segment_.resize(kMostFrameBytes);
}

std::size_t SendQueue::room() const noexcept { return limits_.requests - static_cast<std::size_t>(posted_ - done_); }

int SendQueue::check(const SendRequest& request) const noexcept {
  if (room() == 0) return ENOMEM;
  if (request.opcode != IBV_WR_SEND && request.opcode != IBV_WR_TSO) return EINVAL;
  if (request.pieces.size() > limits_.pieces) return EINVAL;
  if ((request.flags & IBV_SEND_IP_CSUM) != 0 && !identity_.checksums) return EINVAL;
  if (request.opcode == IBV_WR_TSO) return request.copied.size() > limits_.tso_header || request.mss == 0 ? EINVAL : 0;
  return request.copied.size() > limits_.inline_bytes ? ENOMEM : 0;
}

void SendQueue::post(SendRequest&& request, std::uint64_t now_ns) {
  request.not_before_ns = board_.dma_delay_ns == 0 ? 0 : now_ns + board_.dma_delay_ns;
  ++posted_;
  waiting_.push_back(std::move(request));
}

std::uint64_t SendQueue::due_ns() const noexcept {
  return waiting_.empty() ? 0 : std::max({waiting_.front().not_before_ns, not_before_ns_, std::uint64_t{1}});
}

bool SendQueue::process(std::uint64_t now_ns, FrameOut& out) {
  while (!waiting_.empty() && now_ns >= due_ns()) {
    if (broken_ != IBV_WC_SUCCESS) {
      complete(std::exchange(broken_, IBV_WC_SUCCESS), broken_syndrome_);
      return false;
    }
    const ibv_wc_status status = execute(waiting_.front(), out);
    complete(status, 0);
    if (status != IBV_WC_SUCCESS) return false;
    if (kbps_ != 0) not_before_ns_ = std::max(not_before_ns_, now_ns) + gathered_ * 8'000'000 / kbps_;
  }
  return true;
}

// Copied bytes and pieces, one behind the other, to frame_.
ibv_wc_status SendQueue::gather(const SendRequest& request) {
  if (request.copied.size() > frame_.size()) return IBV_WC_LOC_LEN_ERR;
  std::copy(request.copied.begin(), request.copied.end(), frame_.begin());
  gathered_ = request.copied.size();
  for (const ibv_sge& piece : request.pieces) {
    const std::uint8_t* from = memory_.translate(piece.lkey, piece.addr, piece.length, identity_.domain, false);
    if (from == nullptr) return IBV_WC_LOC_PROT_ERR;
    if (piece.length > frame_.size() - gathered_) return IBV_WC_LOC_LEN_ERR;
    std::memcpy(frame_.data() + gathered_, from, piece.length);
    gathered_ += piece.length;
    board_.count(Counter::dma_read_bytes, piece.length);
    if (memory_.shared(piece.lkey)) board_.count(Counter::dma_read_shared_bytes, piece.length);
  }
  return IBV_WC_SUCCESS;
}

ibv_wc_status SendQueue::execute(const SendRequest& request, FrameOut& out) {
  if (const ibv_wc_status status = gather(request); status != IBV_WC_SUCCESS) return status;
  if (request.opcode == IBV_WR_TSO) return segment(request, out);
  if (gathered_ < kEthernetHeader || gathered_ > kMostFrameBytes) return IBV_WC_LOC_LEN_ERR;
  emit((request.flags & IBV_SEND_IP_CSUM) != 0, out);
  return IBV_WC_SUCCESS;
}

ibv_wc_status SendQueue::segment(const SendRequest& request, FrameOut& out) {
  board_.count(Counter::tso_requests);
  const std::size_t header = request.copied.size();
  if (gathered_ - header > identity_.max_tso) {
    violation(board_, "queue %u: TSO of %zu payload bytes; %u are offered", identity_.queue, gathered_ - header,
              identity_.max_tso);
    return IBV_WC_LOC_QP_OP_ERR;
  }
  const Bytes all(frame_.data(), gathered_);
  Segmenter segmenter(all.first(header), all.subspan(header), request.mss);
  if (!segmenter.valid()) {
    violation(board_, "queue %u: TSO of %zu header bytes that are not those of a TCP frame", identity_.queue, header);
    return IBV_WC_LOC_QP_OP_ERR;
  }
  while (const std::size_t bytes = segmenter.next(segment_)) {
    board_.count(Counter::tx_frames);
    out.frame(Bytes(segment_.data(), bytes));
  }
  return IBV_WC_SUCCESS;
}

void SendQueue::emit(bool checksums, FrameOut& out) {
  const std::span<std::uint8_t> frame(frame_.data(), gathered_);
  if (checksums) {
    const Headers headers = parse(frame);
    insert_l3_checksum(frame, headers);
    insert_l4_checksum(frame, headers);
  }
  std::size_t bytes = gathered_;
  if (bytes < kShortestFrame) {
    std::memset(frame_.data() + bytes, 0, kShortestFrame - bytes);
    bytes = kShortestFrame;
  }
  board_.count(Counter::tx_frames);
  out.frame(Bytes(frame_.data(), bytes));
}

void SendQueue::complete(ibv_wc_status status, std::uint32_t syndrome) {
  const SendRequest& request = waiting_.front();
  ++carried_out_;
  if (identity_.signal_all || (request.flags & IBV_SEND_SIGNALED) != 0 || status != IBV_WC_SUCCESS) {
    Completion completion;
    completion.id = request.id;
    completion.status = status;
    completion.vendor_error = syndrome;
    completion.opcode = request.opcode == IBV_WR_TSO ? IBV_WC_TSO : IBV_WC_SEND;
    completion.queue = identity_.queue;
    completion.done = &done_;
    completion.position = carried_out_;
    completions_.push(completion);
  }
  waiting_.pop_front();
}

void SendQueue::break_next(ibv_wc_status status, std::uint32_t syndrome) noexcept {
  broken_ = status;
  broken_syndrome_ = syndrome;
}

void SendQueue::flush() {
  while (!waiting_.empty()) complete(IBV_WC_WR_FLUSH_ERR, 0);
}

void SendQueue::reset() {
  completions_.remove(&done_);
  waiting_.clear();
  posted_ = carried_out_ = done_ = 0;
  not_before_ns_ = 0;
  kbps_ = 0;
  broken_ = IBV_WC_SUCCESS;
}

}  // namespace softnic::dropin
