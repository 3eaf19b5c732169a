#include "ports/verbs/send_pair.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "vswitch/base/error.h"
#include "vswitch/base/short_copy.h"
#include "vswitch/core/copy_out.h"
#include "vswitch/core/vlan.h"
#include "vswitch/net/headers.h"
#include "vswitch/net/offload_check.h"

namespace vswitch::verbs {
namespace {

constexpr std::uint16_t kTcpChecksumOffset = 16;
constexpr std::uint16_t kUdpChecksumOffset = 6;

/// Whether the device computes the checksum that the frame asks for: the transport's own, of TCP or UDP over IPv4, at
/// most one tag in front. That is as much as IBV_SEND_IP_CSUM promises (ibv_post_send(3)).
bool device_computes(const Frame& frame) noexcept {
  const auto headers = Headers::parse({frame.header, frame.header_bytes});
  if (!headers || !headers->is_ipv4() || headers->is_fragment() ||
      headers->vlan_tags() + (frame.vlan != 0 ? 1 : 0) > 1) {
    return false;
  }
  const std::uint16_t field = frame.offload.csum_offset;
  const bool own =
      (headers->is_tcp() && field == kTcpChecksumOffset) || (headers->is_udp() && field == kUdpChecksumOffset);
  return own && frame.offload.csum_start == headers->l4_offset();
}

}  // namespace

SendPair::SendPair(const Device& device)
    : capabilities_(device.capabilities()),
      memory_(Mapping::anonymous(kMemoryBytes + kRequests * kHeaderBytes)),
      region_(device.register_memory(memory_.data(), memory_.size(), false)),
      cq_(ibv_create_cq(device.context(), kRequests, nullptr, nullptr, 0)) {
  if (!cq_) throw_errno("create a completion queue on", device.name());
  QueuePairRequest request;
  request.send_cq = request.receive_cq = cq_.get();
  request.send_requests = kRequests;
  request.tso_header_bytes = capabilities_.max_tso != 0 ? kTsoHeaderBytes : 0;
  qp_ = create_queue_pair(device, request);
  for (std::size_t i = 0; i < kBurstFrames; ++i) {
    pieces_[i][0].lkey = region_->lkey;
    requests_[i].sg_list = pieces_[i].data();
    requests_[i].next = i + 1 < kBurstFrames ? &requests_[i + 1] : nullptr;
  }
  bring_up(device, qp_.get());
}

inline std::uint64_t SendPair::allocate(std::size_t bytes) noexcept {
  std::uint64_t at = head_;
  const std::size_t to_end = kMemoryBytes - at % kMemoryBytes;
  if (bytes > to_end) at += to_end;
  const std::uint64_t end = (at + bytes + kCopyLine - 1) & ~(kCopyLine - 1);
  if (end - tail_ > kMemoryBytes) return kNoRoom;
  head_ = end;
  return at;
}

inline void SendPair::describe(std::size_t i, const std::byte* at, std::size_t bytes) noexcept {
  pieces_[i][0].addr = reinterpret_cast<std::uint64_t>(at);
  pieces_[i][0].length = static_cast<std::uint32_t>(bytes);
  ibv_send_wr& request = requests_[i];
  request.wr_id = posted_ + i;
  request.num_sge = bytes != 0 ? 1 : 0;
  request.opcode = IBV_WR_SEND;
  request.send_flags = 0;
  ends_[request.wr_id % kRequests] = head_;
}

const SendRegion* SendPair::region_of(const Frame& frame) noexcept {
  if (frame.kept == nullptr || frame.length == frame.header_bytes || frame.finish != Finish::none ||
      frame.kept->load(std::memory_order_relaxed)) {
    return nullptr;
  }
  const std::span<const std::byte> rest = frame.rest();
  if (last_region_ != nullptr && last_region_->holds(rest.data(), rest.size())) return last_region_;
  const auto behind = std::upper_bound(regions_->begin(), regions_->end(), rest.data(),
                                       [](const std::byte* at, const SendRegion& region) { return at < region.first; });
  if (behind == regions_->begin() || !std::prev(behind)->holds(rest.data(), rest.size())) return nullptr;
  last_region_ = &*std::prev(behind);
  return last_region_;
}

void SendPair::gather(std::size_t i, const Frame& frame, const SendRegion& from) noexcept {
  const std::span<const std::byte> rest = frame.rest();
  ibv_send_wr& request = requests_[i];
  pieces_[i][static_cast<std::size_t>(request.num_sge++)] = {reinterpret_cast<std::uint64_t>(rest.data()),
                                                             static_cast<std::uint32_t>(rest.size()), from.key};
  kept_[request.wr_id % kRequests] = frame.kept;
  frame.kept->store(true, std::memory_order_relaxed);
  gathers_ = true;
}

void SendPair::give_back(std::uint64_t from, std::uint64_t to) noexcept {
  for (; from != to; ++from) {
    if (Kept* kept = std::exchange(kept_[from % kRequests], nullptr); kept != nullptr)
      kept->store(false, std::memory_order_release);
  }
}

// What most frames are: finished, and untagged. Whole lines of the header copy are copied, whatever its length.
inline bool SendPair::compose(const Frame& frame, std::size_t i, PortCounters& counters) noexcept {
  if (frame.vlan != 0 || !frame.offload.is_finished()) [[unlikely]]
    return compose_unfinished(frame, i, counters);
  const bool all_in_copy = frame.length == frame.header_bytes;
  const SendRegion* const from = all_in_copy ? nullptr : region_of(frame);
  if (!all_in_copy && from == nullptr) {
    const std::uint64_t place = allocate(frame.length);
    if (place == kNoRoom) return false;
    copy_out(ring_at(place), frame, false);
    describe(i, ring_at(place), frame.length);
    return true;
  }
  std::byte* const to = own_place(posted_ + i);
  copy_line(to, frame.header);
  if (frame.header_bytes > kCopyLine) copy_line(to + kCopyLine, frame.header + kCopyLine);
  describe(i, to, frame.header_bytes);
  if (from != nullptr) gather(i, frame, *from);
  return true;
}

bool SendPair::compose_unfinished(const Frame& frame, std::size_t i, PortCounters& counters) noexcept {
  if (frame.left_to_do().is_gso()) return compose_tso(frame, i);
  const bool insert_tag = frame.vlan != 0;
  const bool unfinished = frame.left_to_do().needs_checksum();
  const bool by_device = unfinished && capabilities_.checksum && device_computes(frame);
  const bool in_software = unfinished && !by_device;
  const SendRegion* const from = in_software ? nullptr : region_of(frame);
  const std::size_t bytes = copied_length(frame, insert_tag) - (from != nullptr ? frame.rest().size() : 0);
  const std::uint64_t place = allocate(bytes);
  if (place == kNoRoom) return false;
  std::byte* const to = ring_at(place);
  describe(i, to, bytes);
  if (from != nullptr) {
    copy_out_header(to, frame, insert_tag);
    gather(i, frame, *from);
  } else if (in_software) {
    Frame out = frame;
    out.finish = Finish::checksum;
    copy_out(to, out, insert_tag);
    counters.sw_checksum.add(1);
  } else {
    copy_out(to, frame, insert_tag);
  }
  if (by_device) requests_[i].send_flags |= IBV_SEND_IP_CSUM;
  return true;
}

// The device wants the headers beside the payload; the header copy, which was judged, is what it gets.
bool SendPair::compose_tso(const Frame& frame, std::size_t i) noexcept {
  const std::size_t header_bytes = offload_header_length(frame.offload, {frame.header, frame.header_bytes});
  const std::size_t in_copy = frame.header_bytes - header_bytes;  // payload that the header copy has
  const std::span<const std::byte> rest = frame.rest();
  const SendRegion* const from = region_of(frame);
  const std::size_t bytes = in_copy + (from != nullptr ? 0 : rest.size());
  const std::uint64_t place = allocate(bytes);
  if (place == kNoRoom) return false;
  std::byte* const to = ring_at(place);
  std::memcpy(to, frame.header + header_bytes, in_copy);
  describe(i, to, bytes);
  if (from != nullptr) {
    gather(i, frame, *from);
  } else if (!rest.empty()) {
    std::memcpy(to + in_copy, rest.data(), rest.size());
  }
  std::byte* header = headers_[i].data();
  std::size_t written = 0;
  if (frame.vlan != 0) {
    std::memcpy(header, frame.header, kMacPairBytes);
    const auto tag = vlan_tag(frame.vlan);
    std::memcpy(header + kMacPairBytes, tag.data(), tag.size());
    written = kMacPairBytes;
    header += kVlanTagBytes;
  }
  std::memcpy(header + written, frame.header + written, header_bytes - written);
  ibv_send_wr& request = requests_[i];
  request.opcode = IBV_WR_TSO;
  request.send_flags |= IBV_SEND_IP_CSUM;
  request.tso.hdr = headers_[i].data();
  request.tso.hdr_sz = static_cast<std::uint16_t>(header_bytes + (frame.vlan != 0 ? kVlanTagBytes : 0));
  request.tso.mss = frame.offload.gso_size;
  return true;
}

std::size_t SendPair::transmit(std::span<const Frame* const> frames, const SendRegions& regions,
                               PortCounters& counters) noexcept {
  regions_ = &regions;
  last_region_ = nullptr;
  if (posted_ - completed_.load(std::memory_order_relaxed) > kRequests / 2) reclaim();
  std::size_t taken = 0;
  while (taken < frames.size() && !dead_) {
    const std::size_t room = kRequests - static_cast<std::size_t>(posted_ - completed_.load(std::memory_order_relaxed));
    const std::size_t wanted = std::min({frames.size() - taken, kBurstFrames, room});
    const std::uint64_t head_before = head_;
    std::size_t count = 0;
    gathers_ = false;
    while (count < wanted && compose(*frames[taken + count], count, counters)) ++count;
    const std::size_t sent = post(count, head_before);
    taken += sent;
    if (sent == kBurstFrames) continue;
    if (taken == frames.size() || sent < count) break;
    const std::uint64_t before = tail_;
    reclaim();
    if (tail_ == before) break;  // the wire is slower than we are
  }
  return taken;
}

std::size_t SendPair::post(std::size_t count, std::uint64_t head_before) noexcept {
  if (count == 0) return 0;
  ibv_send_wr& last = requests_[count - 1];
  // What is kept comes back as soon as it can.
  if (gathers_ || posted_ + count - signaled_ >= kSignalEvery || head_ - signaled_at_ > kMemoryBytes / 4) {
    last.send_flags |= IBV_SEND_SIGNALED;
    signaled_ = posted_ + count;
    signaled_at_ = head_;
  }
  ibv_send_wr* const next = std::exchange(last.next, nullptr);
  ibv_send_wr* refused = nullptr;
  std::size_t sent = count;
  if (ibv_post_send(qp_.get(), requests_.data(), &refused) != 0) {
    sent = static_cast<std::size_t>(refused - requests_.data());
    // What was not posted leaves no trace: its bytes are free, and no completion is expected of it.
    head_ = sent == 0 ? head_before : ends_[(posted_ + sent - 1) % kRequests];
    signaled_at_ = std::min(signaled_at_, tail_);  // the last was among them: ask again soon
    signaled_ = std::min(signaled_, completed_.load(std::memory_order_relaxed));
    give_back(posted_ + sent, posted_ + count);
  }
  last.next = next;
  posted_ += sent;
  if (gathers_) last_kept_.store(posted_, std::memory_order_release);
  return sent;
}

bool SendPair::reclaim() noexcept {
  std::array<ibv_wc, 16> done;
  int count = 0;
  do {
    count = dead_ ? 0 : ibv_poll_cq(cq_.get(), static_cast<int>(done.size()), done.data());
    for (int i = 0; i < count; ++i) {
      const ibv_wc& completion = done[static_cast<std::size_t>(i)];
      if (completion.status != IBV_WC_SUCCESS) {
        dead_ = true;
        lost_.add(posted_ - completion.wr_id);  // a request that did not ask for a completion gets one by its failure
        return false;
      }
      const std::uint64_t before = completed_.load(std::memory_order_relaxed);
      if (last_kept_.load(std::memory_order_relaxed) > before) give_back(before, completion.wr_id + 1);
      completed_.store(completion.wr_id + 1, std::memory_order_release);
      tail_ = ends_[completion.wr_id % kRequests];
    }
  } while (count == static_cast<int>(done.size()));
  dead_ = dead_ || count < 0;
  return !dead_;
}

void SendPair::abandon() noexcept {
  if (!qp_) return;
  reclaim();
  qp_.reset();
  if (!dead_) lost_.add(posted_ - completed_.load());
  give_back(completed_.load(), posted_);
}

}  // namespace vswitch::verbs
