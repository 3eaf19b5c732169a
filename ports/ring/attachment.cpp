#include "ports/ring/attachment.h"

namespace vswitch {

Attachment::Attachment(const vswitch_geometry& geometry, const std::vector<int>& wake_fds, std::size_t first_worker)
    : switch_fd_(make_sealed_memory("vswitch-ring-switch", vswitch_switch_memory_bytes(&geometry))),
      tenant_fd_(make_sealed_memory("vswitch-ring-tenant", vswitch_tenant_memory_bytes(&geometry))),
      switch_memory_(Mapping::shared(switch_fd_.get(), vswitch_switch_memory_bytes(&geometry), true)),
      tenant_memory_(Mapping::shared(tenant_fd_.get(), vswitch_tenant_memory_bytes(&geometry), true)),
      workers_(geometry.rx_rings) {
  seal_against_writers(switch_fd_, "vswitch-ring-switch");
  for (std::uint32_t q = 0; q < geometry.queues; ++q) {
    auto* own = reinterpret_cast<vswitch_consumer_lines*>(switch_memory_.data() + vswitch_tx_consumer_offset(q));
    TxRing& tx = workers_[(first_worker + q) % workers_.size()].tx.emplace_back(
        tenant_memory_.data() + vswitch_tx_producer_offset(&geometry, q), *own, geometry);
    tx.arm();  // the worker may sleep on this port: the first frame must signal
    for (std::uint32_t w = 0; w < geometry.rx_rings; ++w) {
      auto* peer = reinterpret_cast<vswitch_consumer_lines*>(tenant_memory_.data() +
                                                             vswitch_rx_consumer_offset(&geometry, q, w));
      workers_[w].rx.emplace_back(switch_memory_.data() + vswitch_rx_producer_offset(&geometry, q, w), *peer, geometry,
                                  wake_fds[q]);
    }
  }
}

void Attachment::close_files() noexcept {
  switch_fd_.reset();
  tenant_fd_.reset();
}

}  // namespace vswitch
