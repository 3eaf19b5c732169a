/* Inside libvswitch: what one attachment holds. Not installed. */
#ifndef VSWITCH_CLIENT_SESSION_H
#define VSWITCH_CLIENT_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>
#include <vswitch/vswitch.h>

/* Tenant to switch; private state of the producer. */
struct tx_ring {
  struct vswitch_producer_line* line;        /* tenant memory */
  struct vswitch_descriptor* descriptors;    /* tenant memory */
  uint8_t* arena;                            /* tenant memory */
  const struct vswitch_consumer_lines* peer; /* switch memory, read-only */
  uint64_t* ends;                            /* per slot: arena position behind its frame */
  uint64_t arena_head;                       /* positions run freely; offset = position & (arena_bytes - 1) */
  uint64_t arena_tail;
  uint32_t head;
  uint32_t tail;     /* the peer's, as last seen */
  uint32_t answered; /* last need_wake value answered */
  int kick_fd;
};

/* Switch to tenant. */
struct rx_ring {
  const struct vswitch_producer_line* line;     /* switch memory, read-only */
  const struct vswitch_descriptor* descriptors; /* switch memory, read-only */
  const uint8_t* arena;                         /* switch memory, read-only */
  struct vswitch_consumer_lines* own;           /* tenant memory */
  uint32_t tail;
  uint32_t armed; /* last need_wake value used */
};

/* One attachment: memory, descriptors, rings. Freed when the port and every queue have moved on to the next one, so
 * that frames a thread still looks at stay mapped. */
struct session {
  uint32_t references; /* atomic: the port's current session, and each queue that uses it */
  struct vswitch_geometry geometry;
  struct vswitch_welcome welcome;
  int control_fd;
  int kick_fds[VSWITCH_RING_MAX_QUEUES];
  int wake_fds[VSWITCH_RING_MAX_QUEUES];
  void* switch_memory;
  size_t switch_bytes;
  void* tenant_memory;
  size_t tenant_bytes;
  struct tx_ring* tx; /* [queues] */
  struct rx_ring* rx; /* [queues * rx_rings] */
};

/* What one thread uses. */
struct queue {
  struct session* session; /* counted; may lag behind the port's until this queue's next call */
  struct session* parked;  /* counted; one that is over, kept mapped for frames reserved from it; NULL: none */
  uint32_t rx_turn;        /* RX ring looked at next */
  uint32_t rx_from;        /* RX ring the last peek showed */
  uint32_t peeked;         /* frames shown and not yet released: they keep the session in use */
  uint32_t reserved;       /* frames reserved and not yet committed */
  uint32_t idle;           /* calls that found nothing */
  uint32_t commits;
  uint64_t checked_ms; /* when the control socket was last looked at */
} __attribute__((aligned(64)));

struct vswitch_port {
  struct session* session;            /* atomic, counted; NULL while the switch is away */
  uint64_t attachments;               /* atomic */
  pthread_mutex_t lock;               /* attaching, and swapping the session */
  uint64_t next_try_ns;               /* under lock */
  struct vswitch_port_info last_info; /* under lock */
  char* path;
  struct vswitch_options options; /* features under lock; token points to `token` */
  uint32_t features_serial;       /* under lock: of the last request for other features */
  char token[VSWITCH_RING_TOKEN_BYTES];
  struct queue queues[VSWITCH_RING_MAX_QUEUES];
};

/* Connects, says hello, maps the memory. Returns 0 or a negative errno, with words in vswitch_attach_error(). */
int session_open(const char* path, const struct vswitch_options* options, struct session** session);
void session_release(struct session* session);
/* True if the switch has hung up, whatever it has said before. */
bool session_is_over(const struct session* session);

/* Under the lock: takes what the switch has said about features into last_info. Returns the serial of the last answer
 * taken; 0: there was none. */
uint32_t port_hear(struct vswitch_port* port);

/* The session `queue` is to use now, or NULL: takes up a new one, tries to attach when there is none. */
struct session* queue_session_slow(struct vswitch_port* port, struct queue* queue);
/* Called when a queue found nothing many times: is the switch still there? */
void queue_check(struct vswitch_port* port, struct queue* queue);

static inline struct session* queue_session(struct vswitch_port* port, struct queue* queue) {
  struct session* session = __atomic_load_n(&port->session, __ATOMIC_ACQUIRE);
  if (__builtin_expect(session != NULL && session == queue->session, 1)) return session;
  return queue_session_slow(port, queue);
}

/* How long the switch may take to answer. */
static inline int answer_timeout_ms(const struct vswitch_options* options) {
  return options->timeout_ms > 0 ? options->timeout_ms : 1000;
}

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The clock is read every CHECK_CALLS idle calls or commits, the control socket at most every CHECK_MS. */
#define CHECK_CALLS 64u
#define CHECK_MS 10u

#endif
