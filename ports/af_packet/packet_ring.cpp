#include "ports/af_packet/packet_ring.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>

#include "vswitch/base/error.h"
#include "vswitch/core/frame.h"

namespace vswitch::af_packet {
namespace {

/// What the kernel puts before a frame: tpacket2_hdr, sockaddr_ll, alignment, virtio-net header; generously.
constexpr std::uint32_t kSlotOverhead = 128;
constexpr std::uint32_t kMinSlotBytes = 2048;
constexpr std::uint32_t kMaxSlotBytes = 16'384;  // jumbo frames; a ring of longer slots would have too few of them

std::uint32_t slot_bytes_for(std::uint32_t mtu) noexcept {
  const std::uint64_t needed = std::uint64_t{mtu} + kEthernetHeaderBytes + kVlanTagBytes + kSlotOverhead;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(std::bit_ceil(needed), kMinSlotBytes, kMaxSlotBytes));
}

}  // namespace

PacketRing::PacketRing(int socket, std::uint32_t mtu)
    : socket_(socket), slot_bytes_(slot_bytes_for(mtu)), slots_(static_cast<std::uint32_t>(kBytes / slot_bytes_)) {
  const int version = TPACKET_V2;
  const int copy_long_frames = 1;
  if (::setsockopt(socket_, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0 ||
      ::setsockopt(socket_, SOL_PACKET, PACKET_COPY_THRESH, &copy_long_frames, sizeof(copy_long_frames)) != 0 ||
      !set_up(kBytes)) {
    throw_errno("make", "a packet ring of 8 MiB", "each worker needs that much kernel memory for the uplink");
  }
}

PacketRing::~PacketRing() { unmap(); }

void PacketRing::unmap() noexcept {
  if (memory_ != nullptr) ::munmap(memory_, kBytes);
  memory_ = nullptr;
}

bool PacketRing::set_up(std::size_t bytes) noexcept {
  tpacket_req request{};
  if (bytes != 0) {
    request.tp_block_size = kBlockBytes;
    request.tp_block_nr = static_cast<unsigned>(bytes / kBlockBytes);
    request.tp_frame_size = slot_bytes_;
    request.tp_frame_nr = slots_;
  }
  if (::setsockopt(socket_, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) != 0) return false;
  if (bytes == 0) return true;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket_, 0);
  if (memory == MAP_FAILED) return false;
  memory_ = static_cast<std::byte*>(memory);
  return true;
}

tpacket2_hdr* PacketRing::front() noexcept {
  if (memory_ == nullptr) return nullptr;
  tpacket2_hdr* header = slot(next_);
  const std::uint32_t status = __atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE);
  return (status & TP_STATUS_USER) != 0 ? header : nullptr;
}

void PacketRing::take() noexcept {
  next_ = (next_ + 1) & (slots_ - 1);
  ++taken_;
  ++total_;
}

void PacketRing::give_back() noexcept {
  for (; taken_ != 0; --taken_) {
    __atomic_store_n(&slot((next_ - taken_) & (slots_ - 1))->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
  }
}

bool PacketRing::is_stuck() noexcept {
  tpacket_stats stats{};
  socklen_t size = sizeof(stats);
  // Reading resets the kernel's counts, so every drop is seen once.
  if (::getsockopt(socket_, SOL_PACKET, PACKET_STATISTICS, &stats, &size) != 0) return false;
  lost_.add(stats.tp_drops);
  const bool empty = front() == nullptr;
  const bool nothing_came = empty && total_when_empty_ == total_;
  total_when_empty_ = empty ? total_ : ~std::uint64_t{0};
  return memory_ == nullptr || (nothing_came && stats.tp_drops != 0);
}

bool PacketRing::rebuild() noexcept {
  unmap();
  next_ = 0;
  return set_up(0) && set_up(kBytes);
}

}  // namespace vswitch::af_packet
