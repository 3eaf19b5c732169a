/* Sleeping: arming the rings, waiting on their socket and on the switch's hang-up. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "session.h"

enum { RETRY_MS = 50 };

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool has_frames(const struct session* session, uint32_t index) {
  const uint32_t rings = session->geometry.rx_rings;
  for (uint32_t w = 0; w < rings; ++w) {
    const struct rx_ring* ring = &session->rx[index * rings + w];
    if (__atomic_load_n(&ring->line->head, __ATOMIC_ACQUIRE) != ring->tail) return true;
  }
  return false;
}

/* Takes the wake-ups that came. */
static void drain(const struct session* session, uint32_t index) {
  char bytes[64];
  while (recv(session->wake_fds[index], bytes, sizeof(bytes), MSG_DONTWAIT) == (ssize_t)sizeof(bytes)) continue;
}

static void disarm(struct session* session, uint32_t index) {
  const uint32_t rings = session->geometry.rx_rings;
  for (uint32_t w = 0; w < rings; ++w) {
    __atomic_store_n(&session->rx[index * rings + w].own->need_wake, 0, __ATOMIC_RELAXED);
  }
}

/* True: armed, and nothing had come. */
static bool arm(struct session* session, uint32_t index) {
  const uint32_t rings = session->geometry.rx_rings;
  for (uint32_t w = 0; w < rings; ++w) {
    struct rx_ring* ring = &session->rx[index * rings + w];
    ring->armed = ring->armed + 1 == 0 ? 1 : ring->armed + 1;
    __atomic_store_n(&ring->own->need_wake, ring->armed, __ATOMIC_RELAXED);
  }
  __atomic_thread_fence(
      __ATOMIC_SEQ_CST); /* the switch releases head, then looks at need_wake: one of us sees the other */
  if (!has_frames(session, index)) return true;
  disarm(session, index);
  return false;
}

int vswitch_fd(struct vswitch_port* port, uint32_t index) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return -EINVAL;
  const struct session* session = queue_session(port, &port->queues[index]);
  if (session == NULL) return -ENOTCONN;
  return index < session->geometry.queues ? session->wake_fds[index] : -EINVAL;
}

int vswitch_arm(struct vswitch_port* port, uint32_t index) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return -EINVAL;
  struct queue* queue = &port->queues[index];
  struct session* session = queue_session(port, queue);
  if (session != NULL && session_is_over(session)) {
    queue_check(port, queue);
    session = queue_session(port, queue);
  }
  if (session == NULL) return -ENOTCONN;
  if (index >= session->geometry.queues) return -EINVAL;
  drain(session, index);
  return arm(session, index) ? 0 : 1;
}

/* One sleep. Returns 1 woken, 0 time is up, negative errno. */
static int sleep_once(struct vswitch_port* port, struct queue* queue, struct session* session, uint32_t index,
                      int timeout) {
  /* Of the control socket only its end is of interest: answers are for the thread that asked. */
  struct pollfd fds[2] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLRDHUP}};
  if (session != NULL) {
    fds[0].fd = session->wake_fds[index];
    fds[1].fd = session->control_fd;
  }
  const int ready = poll(fds, 2, timeout);
  if (ready < 0) return -errno;
  if (session == NULL) return ready;
  if (fds[0].revents != 0) drain(session, index);
  if (fds[1].revents != 0) queue_check(port, queue);
  return ready;
}

int vswitch_wait(struct vswitch_port* port, uint32_t index, int timeout_ms) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return -EINVAL;
  struct queue* queue = &port->queues[index];
  const int64_t deadline = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
  for (;;) {
    struct session* session = queue_session(port, queue);
    if (session != NULL && index >= session->geometry.queues) return -EINVAL;
    if (session == NULL && queue->peeked != 0) return 1; /* not released yet, as when the session is there */
    if (session != NULL && !arm(session, index)) return 1;
    const int64_t left = deadline - now_ms();
    int nap = timeout_ms < 0 ? -1 : (int)(left < 0 ? 0 : left);
    if (session == NULL && (nap < 0 || nap > RETRY_MS)) nap = RETRY_MS;
    const int woken = sleep_once(port, queue, session, index, nap);
    if (session != NULL) disarm(session, index);
    if (woken < 0) return woken;
    if (session != NULL && has_frames(session, index)) return 1;
    if (timeout_ms >= 0 && left <= 0) return 0;
  }
}
