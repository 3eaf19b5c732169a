/* The memory that vswitchd and a tenant share, and the messages that set it up: the whole contract of a `ring` port.
 *
 * Stands alone as C11 and as C++20. Tenants use vswitch.h; this header is for libvswitch, for vswitchd, and for whoever
 * writes a client in another language (vswitch-ring(7) says the same in words).
 *
 * Two memories per attachment, both created by vswitchd as sealed memfds (their size cannot change):
 *   switch memory  written by vswitchd only; the tenant can map it read-only (F_SEAL_FUTURE_WRITE)
 *   tenant memory  written by the tenant
 * Queue pair q of Q has one TX ring (tenant to switch) and W RX rings (switch to tenant), one for each worker of
 * vswitchd. A ring is a producer block in its producer's memory {head line, descriptors, arena} and a pair of consumer
 * lines {tail, need_wake} in its consumer's memory. head and tail count descriptors and run freely modulo 2^32; slot =
 * index & (ring_frames - 1). The producer lays frames into the arena back to back, each from a multiple of 64 bytes and
 * never across the arena's end, fills the descriptor, then releases head. (In an RX ring a frame may also lie behind
 * the arena, where a device wrote it: the descriptor's offset says so.) The consumer acquires head, uses the frames in
 * order, then releases tail. Before it sleeps, a consumer sets need_wake to a value that is neither 0 nor its last one
 * and looks at head once more; a producer that finds a value it has not yet answered, after it has released head, wakes
 * it: the tenant by adding 1 to the queue pair's eventfd, the switch by sending a byte through the queue pair's stream
 * socket. */
#ifndef VSWITCH_RING_H
#define VSWITCH_RING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VSWITCH_RING_MAGIC 0x76727767u /* "vrwg" */
#define VSWITCH_RING_VERSION 2u
#define VSWITCH_RING_LINE 64u   /* index lines, frame alignment */
#define VSWITCH_RING_GUARD 128u /* readable bytes behind an arena: fixed-size copies may read past the last frame */
#define VSWITCH_RING_MAX_QUEUES 16u
#define VSWITCH_RING_MAX_FRAME 65600u  /* bytes of the longest frame: a 64 KiB GSO frame with two VLAN tags */
#define VSWITCH_RING_MAX_SEGMENTS 128u /* a GSO frame may ask for at most so many */
#define VSWITCH_RING_HEADER_BYTES 128u /* what the switch judges; a GSO frame's headers are within */
#define VSWITCH_RING_TOKEN_BYTES 64u
#define VSWITCH_RING_NAME_BYTES 128u
#define VSWITCH_RING_MESSAGE_BYTES 192u
#define VSWITCH_RING_ADDRESSES 8u

/* Offload metadata, struct virtio_net_hdr semantics (virtio 1.2, section 5.1.6), host byte order. All zero: a finished
 * frame. */
struct vswitch_offload {
  uint8_t flags;        /* VSWITCH_OFFLOAD_* */
  uint8_t gso_type;     /* VSWITCH_GSO_* */
  uint16_t gso_size;    /* payload bytes of each segment */
  uint16_t csum_start;  /* from frame start */
  uint16_t csum_offset; /* of the checksum field, from csum_start */
};

#define VSWITCH_OFFLOAD_NEEDS_CSUM 1u /* sum from csum_start to the end; the field holds the pseudo-header's */
#define VSWITCH_OFFLOAD_DATA_VALID 2u /* the checksum was found right; towards the tenant only */
#define VSWITCH_GSO_NONE 0u
#define VSWITCH_GSO_TCP4 1u
#define VSWITCH_GSO_TCP6 4u
#define VSWITCH_GSO_UDP_L4 5u /* every segment a datagram of its own; both IP versions */
#define VSWITCH_GSO_ECN 0x80u /* added to a TCP type when CWR is set */

/* One frame in an arena. */
struct vswitch_descriptor {
  uint32_t offset; /* bytes from the arena's start */
  uint32_t length; /* bytes of the frame, no FCS */
  struct vswitch_offload offload;
};

/* First line of a producer block. */
struct vswitch_producer_line {
  uint32_t head;
  uint8_t pad[60];
};

/* A consumer's two lines: the second changes rarely, so that a producer's look at it stays in its cache. */
struct vswitch_consumer_lines {
  uint32_t tail;
  uint8_t pad[60];
  uint32_t need_wake; /* 0: no; else wake once for each new value */
  uint8_t wake_pad[60];
};

/* Features a client asks for: unfinished frames it is ready to receive. Without CSUM none is granted. */
#define VSWITCH_FEATURE_CSUM 1u /* NEEDS_CSUM */
#define VSWITCH_FEATURE_TSO4 2u
#define VSWITCH_FEATURE_TSO6 4u
#define VSWITCH_FEATURE_ECN 8u
#define VSWITCH_FEATURE_USO 16u

/* Client to switch, the first message on a SOCK_SEQPACKET connection. */
struct vswitch_hello {
  uint32_t magic;
  uint16_t version_min; /* versions the client speaks */
  uint16_t version_max;
  uint32_t features;
  uint32_t reserved; /* 0 */
  char token[VSWITCH_RING_TOKEN_BYTES];
};

struct vswitch_address {
  uint8_t length; /* 4 or 16 */
  uint8_t prefix_length;
  uint8_t bytes[16];
};

/* Switch to client, the answer. With error 0 it carries 2 + 2 * queues descriptors in one SCM_RIGHTS message: switch
 * memory, tenant memory, then for each queue pair the eventfd that wakes the switch, then for each the socket that
 * wakes the tenant (a socket, because whoever holds an eventfd can make the other holders' writes block). The
 * connection stays open; its end is the end of the attachment, for both sides. */
struct vswitch_welcome {
  uint32_t magic;
  uint16_t version;  /* the one to be spoken */
  uint16_t reserved; /* 0 */
  int32_t error;     /* 0, or a positive errno */
  uint32_t queues;
  uint32_t rx_rings; /* per queue pair: workers of the switch */
  uint32_t ring_frames;
  uint32_t arena_bytes;
  uint32_t direct_bytes;
  uint32_t features; /* granted */
  uint32_t mtu;      /* payload bytes behind the Ethernet header */
  uint16_t vlan;     /* the port's access VLAN, 0 none */
  uint8_t mac[6];
  uint32_t address_count;
  struct vswitch_address addresses[VSWITCH_RING_ADDRESSES];
  char name[VSWITCH_RING_NAME_BYTES];       /* "tenant/port" */
  char message[VSWITCH_RING_MESSAGE_BYTES]; /* why not, in words */
};

#define VSWITCH_RING_FEATURES_MAGIC 0x76726665u /* "vrfe" */

/* Client to switch, at any time after the welcome: other features than those of the hello. The only thing a client may
 * say while it is attached. */
struct vswitch_features_request {
  uint32_t magic; /* VSWITCH_RING_FEATURES_MAGIC */
  uint32_t serial;
  uint32_t features;
};

/* Switch to client, one for each request, and one with serial 0 when what the client may have changed. Frames published
 * from now on respect the features granted here; those that were in the rings before may have been made for the
 * features granted before. */
struct vswitch_features_answer {
  uint32_t magic;    /* VSWITCH_RING_FEATURES_MAGIC */
  uint32_t serial;   /* of the request */
  uint32_t features; /* granted */
};

/* What both sides compute offsets from. */
struct vswitch_geometry {
  uint32_t queues;
  uint32_t rx_rings;
  uint32_t ring_frames;
  uint32_t arena_bytes;
  uint32_t direct_bytes; /* behind the arena of each RX ring: what an uplink's device writes into by itself */
};

#define VSWITCH_RING_PAGE 4096u

/* Bytes of a producer block: head line, descriptors, arena, `direct` bytes, guard, up to a whole page. */
static inline size_t vswitch_producer_bytes(const struct vswitch_geometry* g, uint32_t direct) {
  size_t bytes = VSWITCH_RING_LINE + (size_t)g->ring_frames * sizeof(struct vswitch_descriptor) + g->arena_bytes +
                 direct + VSWITCH_RING_GUARD;
  return (bytes + VSWITCH_RING_PAGE - 1) / VSWITCH_RING_PAGE * VSWITCH_RING_PAGE;
}

static inline size_t vswitch_consumers_bytes(size_t rings) {
  return (rings * sizeof(struct vswitch_consumer_lines) + VSWITCH_RING_PAGE - 1) / VSWITCH_RING_PAGE *
         VSWITCH_RING_PAGE;
}

/* Switch memory: the consumer lines of every TX ring, then the RX rings' producer blocks, worker by worker within a
 * queue pair. */
static inline size_t vswitch_tx_consumer_offset(uint32_t queue) {
  return (size_t)queue * sizeof(struct vswitch_consumer_lines);
}
static inline size_t vswitch_rx_producer_offset(const struct vswitch_geometry* g, uint32_t queue, uint32_t worker) {
  return vswitch_consumers_bytes(g->queues) +
         ((size_t)queue * g->rx_rings + worker) * vswitch_producer_bytes(g, g->direct_bytes);
}
static inline size_t vswitch_switch_memory_bytes(const struct vswitch_geometry* g) {
  return vswitch_rx_producer_offset(g, g->queues, 0);
}

/* Tenant memory: the consumer lines of every RX ring, then the TX rings' producer blocks. */
static inline size_t vswitch_rx_consumer_offset(const struct vswitch_geometry* g, uint32_t queue, uint32_t worker) {
  return ((size_t)queue * g->rx_rings + worker) * sizeof(struct vswitch_consumer_lines);
}
static inline size_t vswitch_tx_producer_offset(const struct vswitch_geometry* g, uint32_t queue) {
  return vswitch_consumers_bytes((size_t)g->queues * g->rx_rings) + (size_t)queue * vswitch_producer_bytes(g, 0);
}
static inline size_t vswitch_tenant_memory_bytes(const struct vswitch_geometry* g) {
  return vswitch_tx_producer_offset(g, g->queues);
}

/* Within a producer block. */
static inline size_t vswitch_descriptors_offset(void) { return VSWITCH_RING_LINE; }
static inline size_t vswitch_arena_offset(const struct vswitch_geometry* g) {
  return VSWITCH_RING_LINE + (size_t)g->ring_frames * sizeof(struct vswitch_descriptor);
}

#ifdef __cplusplus
}
static_assert(sizeof(vswitch_descriptor) == 16, "two loads a descriptor");
static_assert(sizeof(vswitch_producer_line) == VSWITCH_RING_LINE, "one cache line");
static_assert(sizeof(vswitch_consumer_lines) == 2 * VSWITCH_RING_LINE, "two cache lines");
#else
_Static_assert(sizeof(struct vswitch_descriptor) == 16, "two loads a descriptor");
_Static_assert(sizeof(struct vswitch_producer_line) == VSWITCH_RING_LINE, "one cache line");
_Static_assert(sizeof(struct vswitch_consumer_lines) == 2 * VSWITCH_RING_LINE, "two cache lines");
#endif

#endif
