#pragma once
#include <linux/filter.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "vswitch/base/fd.h"

namespace vswitch::af_packet {

/// A packet socket with virtio-net headers and large buffers that receives nothing yet: its filter refuses every frame
/// and it is bound to no protocol. `netdev` is for messages only. Throws Error.
[[nodiscard]] Fd open_packet_socket(const std::string& netdev);

/// Lets frames of the netdev come, as far as the filter takes them. Throws Error.
void bind_packet_socket(const Fd& socket, int netdev_index, const std::string& netdev);

/// Replaces the filter, between two frames. Throws Error; then the filter is as before.
void attach_filter(const Fd& socket, std::span<const sock_filter> program);

/// Makes bound sockets share the netdev's frames by flow: the first call makes the group, later ones join it.
/// @param group nullopt for the first; then what that call left there. Throws Error.
void join_fanout(const Fd& socket, const std::string& netdev, std::optional<std::uint16_t>& group);

/// Whether this kernel takes UDP_L4 segmentation from a packet socket (since Linux 6.2). Found out by sending one such
/// frame, addressed to nobody, through the loopback device; "no" if that is down.
[[nodiscard]] bool kernel_takes_udp_gso() noexcept;

}  // namespace vswitch::af_packet
