#pragma once
#include <cstdint>

#include "ports/verbs/device.h"
#include "ports/verbs/handle.h"

namespace vswitch::verbs {

/// Pieces of memory that a frame is sent from: the header copy, and the tenant's memory.
inline constexpr std::uint32_t kSendPieces = 2;

/// A raw packet queue pair to be made. Zero requests: that side is not used.
struct QueuePairRequest {
  ibv_cq* send_cq = nullptr;
  ibv_cq* receive_cq = nullptr;
  std::uint32_t send_requests = 0;
  std::uint32_t receive_requests = 0;
  std::uint32_t tso_header_bytes = 0;  ///< longest header of a frame to be segmented; 0: none are sent
  bool vlan_strip = false;
};

/// Makes the queue pair; its state is RESET. Throws Error with what to do about it.
[[nodiscard]] Verbs<ibv_qp> create_queue_pair(const Device& device, const QueuePairRequest& request);
/// RESET to RTS, where it sends and receives. Throws Error.
void bring_up(const Device& device, ibv_qp* qp);

/// Makes what the uplink is built of and takes it back: queue pair, rule, memory. Throws Error with the remedy.
void try_raw_packet(const Device& device);

}  // namespace vswitch::verbs
