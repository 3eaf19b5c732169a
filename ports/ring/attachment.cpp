#include "ports/ring/attachment.h"

#include <sys/socket.h>

#include "vswitch/base/error.h"

namespace vswitch {

Attachment::Attachment(const vswitch_geometry& geometry, std::size_t first_worker, bool lets_keep)
    : switch_fd_(make_sealed_memory("vswitch-ring-switch", vswitch_switch_memory_bytes(&geometry))),
      tenant_fd_(make_sealed_memory("vswitch-ring-tenant", vswitch_tenant_memory_bytes(&geometry))),
      switch_memory_(Mapping::shared(switch_fd_.get(), vswitch_switch_memory_bytes(&geometry), true)),
      tenant_memory_(Mapping::shared(tenant_fd_.get(), vswitch_tenant_memory_bytes(&geometry), true)),
      workers_(geometry.rx_rings) {
  seal_against_writers(switch_fd_, "vswitch-ring-switch");
  for (std::uint32_t q = 0; q < geometry.queues; ++q) {
    open_wake();
    auto* own = reinterpret_cast<vswitch_consumer_lines*>(switch_memory_.data() + vswitch_tx_consumer_offset(q));
    TxRing& tx = workers_[(first_worker + q) % workers_.size()].tx.emplace_back(
        tenant_memory_.data() + vswitch_tx_producer_offset(&geometry, q), *own, geometry, lets_keep);
    tx.arm();  // the worker may sleep on this port: the first frame must signal
    for (std::uint32_t w = 0; w < geometry.rx_rings; ++w) {
      auto* peer = reinterpret_cast<vswitch_consumer_lines*>(tenant_memory_.data() +
                                                             vswitch_rx_consumer_offset(&geometry, q, w));
      workers_[w].rx.emplace_back(switch_memory_.data() + vswitch_rx_producer_offset(&geometry, q, w), *peer, geometry,
                                  wakes_.back().get());
    }
  }
}

std::vector<ReceiveMemory> Attachment::received_into() const {
  std::vector<ReceiveMemory> all;
  for (const WorkerRings& worker : workers_) all.push_back(worker.rx.front().direct());
  if (all.front().bytes.empty()) all.clear();
  return all;
}

void Attachment::close_files() noexcept {
  switch_fd_.reset();
  tenant_fd_.reset();
  tenant_wakes_.clear();
}

/// A socket, not an eventfd: an eventfd's flags and counter belong to all who hold it, so a tenant could make the
/// worker's write block; and a pipe's reader can hold its lock for as long as it likes.
void Attachment::open_wake() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    throw_errno("create", "the socket that wakes a tenant", "raise the limit of open files (LimitNOFILE=)");
  }
  wakes_.emplace_back(ends[0]);
  tenant_wakes_.emplace_back(ends[1]);
}

}  // namespace vswitch
