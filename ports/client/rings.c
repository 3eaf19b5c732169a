/* The tenant's data path: both rings' arithmetic, no system call but the wake-up. */
#include <sys/eventfd.h>
#include <time.h>

#include "session.h"

#define LINE_UP(bytes) (((uint64_t)(bytes) + VSWITCH_RING_LINE - 1) & ~(uint64_t)(VSWITCH_RING_LINE - 1))

/* Looks how far the switch has come and gives the room behind it back. */
static void tx_reload_tail(struct tx_ring* ring, uint32_t mask) {
  uint32_t tail = __atomic_load_n(&ring->peer->tail, __ATOMIC_ACQUIRE);
  if (tail == ring->tail) return;
  ring->tail = tail;
  ring->arena_tail = ring->ends[(tail - 1) & mask];
}

/* Whether the switch is still there: asked at most every CHECK_MS, so that nobody sends to a dead one for long. */
static void look_after(struct vswitch_port* port, struct queue* queue) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const uint64_t now_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
  if (now_ms - queue->checked_ms < CHECK_MS) return;
  queue->checked_ms = now_ms;
  queue_check(port, queue);
}

static void idle(struct vswitch_port* port, struct queue* queue) {
  if (++queue->idle % CHECK_CALLS == 0) look_after(port, queue);
}

uint32_t vswitch_tx_reserve(struct vswitch_port* port, uint32_t index, struct vswitch_frame* frames, uint32_t count) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return 0;
  struct queue* queue = &port->queues[index];
  queue->reserved = 0;
  if (__builtin_expect(queue->parked != NULL, 0)) {
    session_release(queue->parked);
    queue->parked = NULL;
  }
  struct session* session = queue_session(port, queue);
  if (session == NULL || index >= session->geometry.queues) return 0;
  struct tx_ring* ring = &session->tx[index];
  const uint32_t ring_frames = session->geometry.ring_frames;
  const uint64_t arena_bytes = session->geometry.arena_bytes;
  if (ring_frames - (ring->head - ring->tail) < count) tx_reload_tail(ring, ring_frames - 1);
  const uint32_t room = ring_frames - (ring->head - ring->tail);
  const uint32_t wanted = count < room ? count : room;
  bool reloaded = false;
  uint64_t position = ring->arena_head;
  uint32_t reserved = 0;
  while (reserved < wanted) {
    const uint64_t bytes = LINE_UP(frames[reserved].length);
    const uint64_t offset = position & (arena_bytes - 1);
    const uint64_t start = offset + bytes > arena_bytes ? position + (arena_bytes - offset) : position;
    if (start + bytes - ring->arena_tail > arena_bytes) {
      if (reloaded || frames[reserved].length > VSWITCH_RING_MAX_FRAME) break;
      tx_reload_tail(ring, ring_frames - 1);
      reloaded = true;
      continue;
    }
    frames[reserved].data = ring->arena + (start & (arena_bytes - 1));
    frames[reserved].offload = (struct vswitch_offload){0};
    position = start + bytes;
    ++reserved;
  }
  if (reserved == 0) idle(port, queue);
  return queue->reserved = reserved;
}

void vswitch_tx_commit(struct vswitch_port* port, uint32_t index, const struct vswitch_frame* frames, uint32_t count) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return;
  struct queue* queue = &port->queues[index];
  struct session* session = queue->session; /* the one reserved from, even if it is over */
  if (count > queue->reserved) count = queue->reserved;
  if (count == 0 || queue->parked != NULL) return; /* parked: the queue has moved on, those frames are lost */
  queue->reserved -= count;
  struct tx_ring* ring = &session->tx[index];
  const uint32_t mask = session->geometry.ring_frames - 1;
  const uint64_t arena_bytes = session->geometry.arena_bytes;
  uint64_t position = ring->arena_head;
  uint32_t head = ring->head;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t offset = (uint64_t)((const uint8_t*)frames[i].data - ring->arena);
    const uint64_t at = position & (arena_bytes - 1);
    position += (offset - at) & (arena_bytes - 1); /* over what was reserved and not used, or over the arena's end */
    position += LINE_UP(frames[i].length);
    struct vswitch_descriptor* descriptor = &ring->descriptors[head & mask];
    descriptor->offset = (uint32_t)offset;
    descriptor->length = frames[i].length;
    descriptor->offload = frames[i].offload;
    ring->ends[head & mask] = position;
    ++head;
  }
  ring->arena_head = position;
  ring->head = head;
  __atomic_store_n(&ring->line->head, head, __ATOMIC_RELEASE);
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the switch arms, then looks at head: one of us sees the other */
  const uint32_t wake = __atomic_load_n(&ring->peer->need_wake, __ATOMIC_RELAXED);
  if (wake != 0 && wake != ring->answered) {
    ring->answered = wake;
    eventfd_write(ring->kick_fd, 1);
  }
  if (wake != 0 || ++queue->commits % CHECK_CALLS == 0) look_after(port, queue);
}

/* Shows frames of one RX ring; a descriptor outside the arena ends the burst (the switch writes none). */
static uint32_t peek_ring(const struct rx_ring* ring, const struct vswitch_geometry* g, struct vswitch_frame* frames,
                          uint32_t count) {
  const uint32_t available = __atomic_load_n(&ring->line->head, __ATOMIC_ACQUIRE) - ring->tail;
  const uint32_t shown = available < count ? available : count;
  for (uint32_t i = 0; i < shown; ++i) {
    const struct vswitch_descriptor* descriptor = &ring->descriptors[(ring->tail + i) & (g->ring_frames - 1)];
    if ((uint64_t)descriptor->offset + descriptor->length > (uint64_t)g->arena_bytes + g->direct_bytes) return i;
    frames[i].data = (void*)(uintptr_t)(ring->arena + descriptor->offset);
    frames[i].length = descriptor->length;
    frames[i].offload = descriptor->offload;
  }
  return shown;
}

uint32_t vswitch_rx_peek(struct vswitch_port* port, uint32_t index, struct vswitch_frame* frames, uint32_t count) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return 0;
  struct queue* queue = &port->queues[index];
  queue->peeked = 0;
  struct session* session = queue_session(port, queue);
  if (session == NULL || index >= session->geometry.queues) return 0;
  const uint32_t rings = session->geometry.rx_rings;
  for (uint32_t tried = 0; tried < rings; ++tried) {
    const uint32_t shown = peek_ring(&session->rx[index * rings + queue->rx_turn], &session->geometry, frames, count);
    if (shown != 0) {
      queue->rx_from = queue->rx_turn;
      return queue->peeked = shown;
    }
    queue->rx_turn = queue->rx_turn + 1 == rings ? 0 : queue->rx_turn + 1;
  }
  idle(port, queue);
  return 0;
}

void vswitch_rx_release(struct vswitch_port* port, uint32_t index, uint32_t count) {
  if (index >= VSWITCH_RING_MAX_QUEUES) return;
  struct queue* queue = &port->queues[index];
  struct session* session = queue->session;
  if (session == NULL || count == 0 || count > queue->peeked) return;
  queue->peeked -= count;
  const uint32_t rings = session->geometry.rx_rings;
  struct rx_ring* ring = &session->rx[index * rings + queue->rx_from];
  ring->tail += count;
  __atomic_store_n(&ring->own->tail, ring->tail, __ATOMIC_RELEASE);
  queue->rx_turn = queue->rx_from + 1 == rings ? 0 : queue->rx_from + 1; /* every worker's ring has its turn */
}
