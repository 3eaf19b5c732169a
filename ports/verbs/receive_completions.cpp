#include "ports/verbs/receive_completions.h"

#include <fcntl.h>

#include <cerrno>

#include "vswitch/base/error.h"

namespace vswitch::verbs {
namespace {

Verbs<ibv_comp_channel> open_channel(const Device& device) {
  Verbs<ibv_comp_channel> channel(ibv_create_comp_channel(device.context()));
  if (!channel) throw_errno("create a completion channel on", device.name());
  const int flags = ::fcntl(channel->fd, F_GETFL);
  if (::fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0)
    throw_errno("set up the completion channel of", device.name());
  return channel;
}

}  // namespace

ReceiveCompletions::ReceiveCompletions(const Device& device, std::uint32_t entries, bool strips_vlan)
    : channel_(open_channel(device)), tells_vlan_(strips_vlan) {
  ibv_cq_init_attr_ex attributes{};
  attributes.cqe = entries;
  attributes.channel = channel_.get();
  attributes.wc_flags = IBV_WC_EX_WITH_BYTE_LEN | (strips_vlan ? IBV_WC_EX_WITH_CVLAN : 0);
  extended_.reset(ibv_create_cq_ex(device.context(), &attributes));
  if (!extended_ && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    tells_vlan_ = false;
    plain_.reset(ibv_create_cq(device.context(), static_cast<int>(entries), nullptr, channel_.get(), 0));
  }
  if (!extended_ && !plain_) {
    throw_errno("create a completion queue on", device.name(),
                errno == ENOMEM ? "the device or the limit of locked memory (LimitMEMLOCK=) has no room for more" : "");
  }
}

bool ReceiveCompletions::drain_events() noexcept {
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  bool any = false;
  while (ibv_get_cq_event(channel_.get(), &cq, &context) == 0) {
    ibv_ack_cq_events(cq, 1);
    any = true;
  }
  return any;
}

}  // namespace vswitch::verbs
