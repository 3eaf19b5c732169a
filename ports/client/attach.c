/* Attaching, attaching again, detaching. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "session.h"

enum { MAX_FDS = 2 + 2 * VSWITCH_RING_MAX_QUEUES };
#define RETRY_NS 20000000ull /* between two tries to attach again */

static _Thread_local char last_error[256] = "no error";

const char* vswitch_attach_error(void) { return last_error; }

__attribute__((format(printf, 2, 3))) static int fail(int err, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return -err;
}

static void close_fds(const int* fds, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (fds[i] >= 0) close(fds[i]);
  }
}

static int connect_to(const char* path, int timeout_ms) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) return fail(ENAMETOOLONG, "%s: longer than a socket path can be", path);
  memcpy(address.sun_path, path, strlen(path) + 1);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(errno, "create a socket: %s", strerror(errno));
  const struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* connect waits while the switch accepts nobody */
  if (connect(fd, (const struct sockaddr*)&address, sizeof(address)) != 0) {
    const int err = errno == EAGAIN ? ETIMEDOUT : errno;
    close(fd);
    return fail(err, "connect to %s: %s", path, strerror(err));
  }
  return fd;
}

/* Receives the welcome and up to MAX_FDS descriptors. Returns 0 or a negative errno; then no descriptor is left open.
 */
static int receive_welcome(int fd, const char* path, int timeout_ms, struct vswitch_welcome* welcome, int* fds,
                           size_t* count) {
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  const int polled = poll(&ready, 1, timeout_ms);
  if (polled == 0) return fail(ETIMEDOUT, "%s: no answer from the switch within %d ms", path, timeout_ms);
  if (polled < 0) return fail(errno, "wait for the switch at %s: %s", path, strerror(errno));
  union {
    char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec place = {.iov_base = welcome, .iov_len = sizeof(*welcome)};
  struct msghdr message = {
      .msg_iov = &place, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  const ssize_t bytes = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  *count = 0;
  struct cmsghdr* header = bytes < 0 ? NULL : CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
  }
  if (bytes == (ssize_t)sizeof(*welcome) && welcome->magic == VSWITCH_RING_MAGIC &&
      (message.msg_flags & MSG_CTRUNC) == 0) {
    return 0;
  }
  close_fds(fds, *count);
  if (bytes == 0) return fail(ECONNRESET, "%s: the switch hung up", path);
  return fail(EPROTO, "%s: the answer is not a vswitch welcome", path);
}

static int check_welcome(const struct vswitch_welcome* w, const char* path, size_t fd_count) {
  if (w->error != 0) return fail(w->error, "%s: %.*s", path, (int)sizeof(w->message), w->message);
  if (w->version != VSWITCH_RING_VERSION) return fail(EPROTONOSUPPORT, "%s: version %u", path, w->version);
  const uint32_t frames = w->ring_frames;
  const uint32_t arena = w->arena_bytes;
  if (w->queues == 0 || w->queues > VSWITCH_RING_MAX_QUEUES || w->rx_rings == 0 || frames == 0 || arena == 0 ||
      (frames & (frames - 1)) != 0 || (arena & (arena - 1)) != 0 || fd_count != 2 + 2 * (size_t)w->queues ||
      w->address_count > VSWITCH_RING_ADDRESSES) {
    return fail(EPROTO, "%s: the switch announced impossible rings", path);
  }
  return 0;
}

static void* map_checked(int fd, size_t bytes, int protection) {
  struct stat file;
  if (fstat(fd, &file) != 0 || (size_t)file.st_size < bytes) return NULL;
  void* memory = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* Points the rings into the two memories. Returns false when memory for the private state is short. */
static bool lay_out(struct session* s) {
  const struct vswitch_geometry* g = &s->geometry;
  s->tx = calloc(g->queues, sizeof(*s->tx));
  s->rx = calloc((size_t)g->queues * g->rx_rings, sizeof(*s->rx));
  if (s->tx == NULL || s->rx == NULL) return false;
  uint8_t* switch_memory = s->switch_memory;
  uint8_t* tenant_memory = s->tenant_memory;
  for (uint32_t q = 0; q < g->queues; ++q) {
    struct tx_ring* tx = &s->tx[q];
    uint8_t* block = tenant_memory + vswitch_tx_producer_offset(g, q);
    tx->line = (struct vswitch_producer_line*)block;
    tx->descriptors = (struct vswitch_descriptor*)(block + vswitch_descriptors_offset());
    tx->arena = block + vswitch_arena_offset(g);
    tx->peer = (const struct vswitch_consumer_lines*)(switch_memory + vswitch_tx_consumer_offset(q));
    tx->kick_fd = s->kick_fds[q];
    tx->ends = calloc(g->ring_frames, sizeof(*tx->ends));
    if (tx->ends == NULL) return false;
    for (uint32_t w = 0; w < g->rx_rings; ++w) {
      struct rx_ring* rx = &s->rx[q * g->rx_rings + w];
      const uint8_t* from = switch_memory + vswitch_rx_producer_offset(g, q, w);
      rx->line = (const struct vswitch_producer_line*)from;
      rx->descriptors = (const struct vswitch_descriptor*)(from + vswitch_descriptors_offset());
      rx->arena = from + vswitch_arena_offset(g);
      rx->own = (struct vswitch_consumer_lines*)(tenant_memory + vswitch_rx_consumer_offset(g, q, w));
    }
  }
  return true;
}

static int adopt(struct session* s, const struct vswitch_welcome* welcome, const int* fds, const char* path) {
  s->welcome = *welcome;
  s->geometry = (struct vswitch_geometry){welcome->queues, welcome->rx_rings, welcome->ring_frames,
                                          welcome->arena_bytes, welcome->direct_bytes};
  memcpy(s->kick_fds, fds + 2, welcome->queues * sizeof(int));
  memcpy(s->wake_fds, fds + 2 + welcome->queues, welcome->queues * sizeof(int));
  s->switch_bytes = vswitch_switch_memory_bytes(&s->geometry);
  s->tenant_bytes = vswitch_tenant_memory_bytes(&s->geometry);
  s->switch_memory = map_checked(fds[0], s->switch_bytes, PROT_READ);
  s->tenant_memory = map_checked(fds[1], s->tenant_bytes, PROT_READ | PROT_WRITE);
  close_fds(fds, 2);
  if (s->switch_memory == NULL || s->tenant_memory == NULL)
    return fail(EPROTO, "%s: the rings' memory cannot be mapped", path);
  return lay_out(s) ? 0 : fail(ENOMEM, "%s: out of memory", path);
}

int session_open(const char* path, const struct vswitch_options* options, struct session** session) {
  const int timeout_ms = answer_timeout_ms(options);
  const int fd = connect_to(path, timeout_ms);
  if (fd < 0) return fd;
  struct vswitch_hello hello = {.magic = VSWITCH_RING_MAGIC,
                                .version_min = VSWITCH_RING_VERSION,
                                .version_max = VSWITCH_RING_VERSION,
                                .features = options->features};
  if (options->token != NULL) strncpy(hello.token, options->token, sizeof(hello.token) - 1);
  struct vswitch_welcome welcome = {0};
  int fds[MAX_FDS];
  size_t count = 0;
  int result = 0;
  if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello)) {
    result = fail(errno, "say hello to %s: %s", path, strerror(errno));
  }
  if (result == 0) result = receive_welcome(fd, path, timeout_ms, &welcome, fds, &count);
  if (result != 0) {
    close(fd);
    return result;
  }
  result = check_welcome(&welcome, path, count);
  struct session* fresh = result == 0 ? calloc(1, sizeof(*fresh)) : NULL;
  if (fresh == NULL) {
    close_fds(fds, count);
    close(fd);
    return result != 0 ? result : fail(ENOMEM, "%s: out of memory", path);
  }
  fresh->references = 1;
  fresh->control_fd = fd;
  result = adopt(fresh, &welcome, fds, path);
  if (result != 0) {
    session_release(fresh);
    return result;
  }
  *session = fresh;
  return 0;
}

void session_release(struct session* s) {
  if (s == NULL || __atomic_sub_fetch(&s->references, 1, __ATOMIC_ACQ_REL) != 0) return;
  for (uint32_t q = 0; s->tx != NULL && q < s->geometry.queues; ++q) free(s->tx[q].ends);
  free(s->tx);
  free(s->rx);
  if (s->switch_memory != NULL) munmap(s->switch_memory, s->switch_bytes);
  if (s->tenant_memory != NULL) munmap(s->tenant_memory, s->tenant_bytes);
  close_fds(s->kick_fds, s->geometry.queues);
  close_fds(s->wake_fds, s->geometry.queues);
  close(s->control_fd);
  free(s);
}

bool session_is_over(const struct session* session) {
  struct pollfd end = {.fd = session->control_fd, .events = POLLRDHUP};
  return poll(&end, 1, 0) > 0;
}

static void describe(const struct session* s, uint64_t attachments, struct vswitch_port_info* info) {
  const struct vswitch_welcome* w = &s->welcome;
  memset(info, 0, sizeof(*info));
  memcpy(info->name, w->name, sizeof(info->name) - 1);
  memcpy(info->mac, w->mac, sizeof(info->mac));
  info->vlan = w->vlan;
  info->mtu = w->mtu;
  info->queues = w->queues;
  info->ring_frames = w->ring_frames;
  info->arena_bytes = w->arena_bytes;
  info->features = w->features;
  info->attached = 1;
  info->attachments = attachments;
  info->address_count = w->address_count;
  memcpy(info->addresses, w->addresses, sizeof(info->addresses));
}

/* Under the lock: makes `session` the port's, or NULL. */
static void install(struct vswitch_port* port, struct session* session) {
  struct session* old = port->session;
  if (session != NULL) {
    describe(session, ++port->attachments, &port->last_info);
  } else {
    port->last_info.attached = 0;
  }
  __atomic_store_n(&port->session, session, __ATOMIC_RELEASE);
  session_release(old);
}

/* Under the lock: makes the port's session, or none, the queue's. The queue has nothing peeked. */
static void take_up(struct vswitch_port* port, struct queue* queue) {
  if (queue->session == port->session) return;
  if (queue->reserved != 0 && queue->parked == NULL) {
    queue->parked = queue->session; /* the thread may still write into frames it reserved there */
  } else {
    session_release(queue->session);
  }
  queue->session = port->session;
  queue->rx_turn = 0;
  if (queue->session != NULL) __atomic_add_fetch(&queue->session->references, 1, __ATOMIC_RELAXED);
}

struct session* queue_session_slow(struct vswitch_port* port, struct queue* queue) {
  if (queue->peeked != 0) return NULL; /* the thread still looks at frames of the session that is over */
  if (pthread_mutex_trylock(&port->lock) != 0) {
    if (__atomic_load_n(&port->session, __ATOMIC_ACQUIRE) == NULL) return NULL; /* another thread is attaching */
    pthread_mutex_lock(&port->lock); /* a queue takes the session up, or features are asked for: a moment */
  }
  if (port->session == NULL && now_ns() >= port->next_try_ns) {
    struct session* fresh = NULL;
    if (session_open(port->path, &port->options, &fresh) == 0) install(port, fresh);
    port->next_try_ns = now_ns() + RETRY_NS;
  }
  take_up(port, queue);
  pthread_mutex_unlock(&port->lock);
  return queue->session;
}

void queue_check(struct vswitch_port* port, struct queue* queue) {
  if (queue->session == NULL || !session_is_over(queue->session)) return;
  pthread_mutex_lock(&port->lock);
  if (port->session == queue->session) {
    install(port, NULL);
    port->next_try_ns = 0;
  }
  pthread_mutex_unlock(&port->lock);
}

int vswitch_attach(const char* socket_path, const struct vswitch_options* options, struct vswitch_port** port) {
  if (socket_path == NULL || port == NULL)
    return fail(EINVAL, "attach: a socket path and a place for the port are needed");
  if (options != NULL && options->size != sizeof(*options)) return fail(EINVAL, "attach: options.size is not set");
  if (options != NULL && options->token != NULL && strlen(options->token) >= VSWITCH_RING_TOKEN_BYTES) {
    return fail(EINVAL, "attach: the token is longer than %u bytes", VSWITCH_RING_TOKEN_BYTES - 1);
  }
  struct vswitch_port* fresh = aligned_alloc(_Alignof(struct vswitch_port), sizeof(*fresh));
  if (fresh == NULL) return fail(ENOMEM, "attach: out of memory");
  memset(fresh, 0, sizeof(*fresh));
  if (options != NULL) fresh->options = *options;
  if (fresh->options.token != NULL) fresh->options.token = strcpy(fresh->token, options->token);
  pthread_mutex_init(&fresh->lock, NULL);
  fresh->path = strdup(socket_path);
  struct session* session = NULL;
  const int result = fresh->path == NULL ? fail(ENOMEM, "attach: out of memory")
                                         : session_open(fresh->path, &fresh->options, &session);
  if (result != 0) {
    vswitch_detach(fresh);
    return result;
  }
  install(fresh, session);
  *port = fresh;
  return 0;
}

void vswitch_detach(struct vswitch_port* port) {
  if (port == NULL) return;
  for (size_t q = 0; q < VSWITCH_RING_MAX_QUEUES; ++q) {
    session_release(port->queues[q].session);
    session_release(port->queues[q].parked);
  }
  session_release(port->session);
  pthread_mutex_destroy(&port->lock);
  free(port->path);
  free(port);
}

void vswitch_info(struct vswitch_port* port, struct vswitch_port_info* info) {
  pthread_mutex_lock(&port->lock);
  port_hear(port); /* an answer that came too late for who had asked */
  *info = port->last_info;
  pthread_mutex_unlock(&port->lock);
}
