#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "ports/client/include/vswitch/ring.h"
#include "ports/ring/rings.h"
#include "vswitch/base/fd.h"
#include "vswitch/base/memory.h"

namespace vswitch {

/// The two memories of one attached client and the rings in them. Made and freed by the control thread; in between each
/// worker uses its own WorkerRings. The memories live as long as this and the client's mappings.
class Attachment {
 public:
  /// Throws Error. @param first_worker worker that polls TX ring 0; ring q is polled by (first_worker + q) mod rx_rings
  /// @param lets_keep frames that the tenant sends may be kept (Frame::kept)
  Attachment(const vswitch_geometry& geometry, std::size_t first_worker, bool lets_keep);

  [[nodiscard]] WorkerRings& worker(std::size_t w) noexcept { return workers_[w]; }
  /// The client's descriptors: the memories, and per queue pair the socket it is woken by. Closed by close_files().
  [[nodiscard]] int switch_fd() const noexcept { return switch_fd_.get(); }
  [[nodiscard]] int tenant_fd() const noexcept { return tenant_fd_.get(); }
  [[nodiscard]] int tenant_wake_fd(std::size_t queue) const noexcept { return tenant_wakes_[queue].get(); }
  void close_files() noexcept;
  /// All of what the tenant can write.
  [[nodiscard]] std::span<std::byte> tenant_memory() const noexcept { return tenant_memory_.bytes(); }
  /// What devices may write received frames into: one a worker, or none at all.
  [[nodiscard]] std::vector<ReceiveMemory> received_into() const;

 private:
  void open_wake();

  Fd switch_fd_;
  Fd tenant_fd_;
  std::vector<Fd> tenant_wakes_;
  std::vector<Fd> wakes_;  ///< the switch's ends of the tenant's sockets
  Mapping switch_memory_;
  Mapping tenant_memory_;
  std::vector<WorkerRings> workers_;
};

}  // namespace vswitch
