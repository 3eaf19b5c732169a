#pragma once
#include <sys/socket.h>

#include "vswitch/base/fd.h"
#include "vswitch/core/spec.h"

namespace vswitch {

/// Binds and listens on `spec.socket` with an owner and mode that let only the allowed user or group connect. A file
/// left by a dead daemon is replaced; a socket that somebody listens on, or anything that is no socket, is an Error.
Fd listen_for_tenant(const RingAttachSpec& spec);

/// True if the process behind `socket` runs as the allowed user or group, as root, or as ourselves (SO_PEERCRED,
/// SO_PEERGROUPS).
bool tenant_is_allowed(const RingAttachSpec& spec, const ucred& peer, int socket);

}  // namespace vswitch
