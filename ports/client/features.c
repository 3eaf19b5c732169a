/* Other features while attached: one question, one answer over the attachment's connection. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "session.h"

uint32_t port_hear(struct vswitch_port* port) {
  uint32_t serial = 0;
  struct vswitch_features_answer answer;
  while (port->session != NULL) {
    const ssize_t got = recv(port->session->control_fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_TRUNC);
    if (got <= 0) break;
    if (got != (ssize_t)sizeof(answer) || answer.magic != VSWITCH_RING_FEATURES_MAGIC) continue;
    port->last_info.features = answer.features;
    serial = answer.serial;
  }
  return serial;
}

static int send_request(const struct session* session, const struct vswitch_features_request* request) {
  if (send(session->control_fd, request, sizeof(*request), MSG_NOSIGNAL) == (ssize_t)sizeof(*request)) return 0;
  if (errno == EAGAIN) return -ETIMEDOUT; /* SO_SNDTIMEO: the switch takes nothing */
  return errno == EPIPE || errno == ECONNRESET ? -ENOTCONN : -errno;
}

/* Under the lock, with a session. */
static int ask(struct vswitch_port* port, uint32_t features) {
  if (++port->features_serial == 0) ++port->features_serial;
  const struct vswitch_features_request request = {VSWITCH_RING_FEATURES_MAGIC, port->features_serial, features};
  const uint64_t deadline = now_ns() + (uint64_t)answer_timeout_ms(&port->options) * 1000000u;
  port_hear(port); /* makes room for the answer */
  const int result = send_request(port->session, &request);
  if (result != 0) return result;
  for (;;) {
    if (port_hear(port) == request.serial) return 0;
    if (session_is_over(port->session)) return -ENOTCONN;
    const uint64_t now = now_ns();
    if (now >= deadline) return -ETIMEDOUT;
    struct pollfd answer = {.fd = port->session->control_fd, .events = POLLIN};
    poll(&answer, 1, (int)((deadline - now) / 1000000u) + 1);
  }
}

int vswitch_set_features(struct vswitch_port* port, uint32_t features) {
  pthread_mutex_lock(&port->lock);
  port->options.features = features;
  const int result = port->session == NULL ? -ENOTCONN : ask(port, features);
  pthread_mutex_unlock(&port->lock);
  return result;
}
