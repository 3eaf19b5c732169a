/* libvswitch: a tenant's Ethernet port on vswitchd, through shared memory. Depends on libc alone. See libvswitch(3).
 *
 *   struct vswitch_port *port;
 *   if (vswitch_attach("/run/vswitch/red-web.sock", NULL, &port) != 0) ...
 *   struct vswitch_frame frames[64];
 *   for (;;) {
 *     uint32_t n = vswitch_rx_peek(port, 0, frames, 64);
 *     if (n == 0) { vswitch_wait(port, 0, -1); continue; }
 *     ... look at frames[i].data, frames[i].length ...
 *     vswitch_rx_release(port, 0, n);
 *   }
 *
 * Threads: each queue pair may be used by one thread at a time, different pairs by different threads at once. attach
 * and detach are for one thread, with no other call under way. When vswitchd goes away (restart, crash) or takes the
 * port away, calls find no frames and no room; the library attaches again by itself, from whichever call comes next, as
 * soon as the port is there again. Frames under way are lost, as on a link that was down. vswitch_info() counts the
 * attachments. Errors are negative errno values. */
#ifndef VSWITCH_H
#define VSWITCH_H

#include <stdint.h>
#include <vswitch/ring.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vswitch_port; /* opaque */

/* One frame, received or to be sent. */
struct vswitch_frame {
  void* data;      /* in shared memory; received frames are read-only (writing to them is a fault) */
  uint32_t length; /* bytes, no FCS */
  uint32_t reserved;
  struct vswitch_offload offload;
};

struct vswitch_options {
  uint32_t size;      /* sizeof(struct vswitch_options) */
  uint32_t features;  /* VSWITCH_FEATURE_*: unfinished frames this tenant is ready to receive */
  const char* token;  /* the port's token; NULL: none */
  int32_t timeout_ms; /* how long attach waits for the switch's answer; 0: 1000 */
  uint32_t reserved;
};

struct vswitch_port_info {
  char name[VSWITCH_RING_NAME_BYTES]; /* "tenant/port" */
  uint8_t mac[6];
  uint16_t vlan; /* the port's access VLAN: frames are untagged here; 0 none */
  uint32_t mtu;  /* payload bytes behind the Ethernet header */
  uint32_t queues;
  uint32_t ring_frames;
  uint32_t arena_bytes;
  uint32_t features;    /* granted, when last heard of */
  uint32_t attached;    /* 1: the switch is there */
  uint64_t attachments; /* times attached; grows by one with every re-attachment */
  uint32_t address_count;
  struct vswitch_address addresses[VSWITCH_RING_ADDRESSES]; /* the port's `ips` */
};

/* Attaches to the port behind the Unix socket `socket_path`. `options` may be NULL. On success *port is to be given to
 * vswitch_detach().
 * Returns 0; -ENOENT/-ECONNREFUSED no switch there; -EACCES not allowed for this user or token; -EBUSY somebody is
 * attached; -EPROTONOSUPPORT no common version; -ETIMEDOUT no answer; other negative errno. vswitch_attach_error() says
 * it in words. */
int vswitch_attach(const char* socket_path, const struct vswitch_options* options, struct vswitch_port** port);

/* The last failed vswitch_attach() of this thread in words; never NULL. */
const char* vswitch_attach_error(void);

/* Ends the attachment and frees `port`. NULL is allowed. */
void vswitch_detach(struct vswitch_port* port);

/* Asks for other features than those attached with, while the port stays attached, and remembers them for every
 * attachment to come. What was granted is in vswitch_info(). Any thread, while others use their queue pairs.
 * After 0 was returned, what the switch puts into the rings respects the new set. What was in them by then may have
 * been made for the old one; a queue pair has it behind it once its vswitch_rx_peek() has returned 0.
 * Returns 0; -ENOTCONN the switch is away, the next attachment asks for them; -ETIMEDOUT no answer in time, they may
 * still be granted; other negative errno. The switch hears at most 100 requests a second; others wait for their turn.
 */
int vswitch_set_features(struct vswitch_port* port, uint32_t features);

/* Fills `info`. Any thread. */
void vswitch_info(struct vswitch_port* port, struct vswitch_port_info* info);

/* Reserves room for up to `count` frames of queue pair `queue`. On entry frames[i].length is the most that frame i may
 * need (14 .. VSWITCH_RING_MAX_FRAME). Sets data of each reserved frame to writable memory and offload to zero. Returns
 * how many were reserved, a prefix; 0: no room now. A second reserve drops what was not committed. */
uint32_t vswitch_tx_reserve(struct vswitch_port* port, uint32_t queue, struct vswitch_frame* frames, uint32_t count);

/* Sends the first `count` of the frames last reserved, with the lengths (no larger than reserved) and offloads they
 * have now. Never blocks; wakes the switch if it sleeps. */
void vswitch_tx_commit(struct vswitch_port* port, uint32_t queue, const struct vswitch_frame* frames, uint32_t count);

/* Shows up to `count` received frames, oldest first, without taking them. They stay valid until they are released or
 * the same queue pair is peeked again. Returns how many. */
uint32_t vswitch_rx_peek(struct vswitch_port* port, uint32_t queue, struct vswitch_frame* frames, uint32_t count);

/* Gives the oldest `count` frames of the last peek (no more than it showed) back to the switch. */
void vswitch_rx_release(struct vswitch_port* port, uint32_t queue, uint32_t count);

/* Sleeps until queue pair `queue` has frames, at most `timeout_ms` (-1: for ever). While the switch is away it also
 * sleeps, and attaches again. Returns 1: frames are there; 0: time is up; -EINTR: a signal came. */
int vswitch_wait(struct vswitch_port* port, uint32_t queue, int timeout_ms);

/* For an event loop of one's own: a descriptor that becomes readable when frames come to `queue` after vswitch_arm()
 * returned 0. Changes with every re-attachment. -ENOTCONN while the switch is away. */
int vswitch_fd(struct vswitch_port* port, uint32_t queue);

/* Asks for vswitch_fd() to be signalled. Returns 0 armed; 1 frames are there already; -ENOTCONN the switch is away
 * (call again later: this is what attaches again). */
int vswitch_arm(struct vswitch_port* port, uint32_t queue);

/* --- Offloads: what is left undone on a frame, without knowing virtio. These look at one frame only; any thread. ---
 */

/* Leaves the transport checksum of a frame to be sent to whoever needs it: the receiver on this host may not, a network
 * device computes it, else the switch does. Call it last, when all headers are written, with the lengths and the IPv4
 * header checksum right: Ethernet, up to two VLAN tags, IPv4, or IPv6 with hop-by-hop, routing and destination options
 * headers, and TCP, UDP or (over IPv6) ICMPv6. Stores the pseudo-header sum in the checksum field and sets the frame's
 * offload.
 * Returns 0; -EINVAL headers that are cut short, or lengths that are not the frame's (padding included); -EOPNOTSUPP
 * another protocol, a fragment, a routing header with segments left (only its type says what the final destination is),
 * or more than eight extension headers. On error the frame is as it was. */
int vswitch_frame_partial_checksum(struct vswitch_frame* frame);

/* The same, and leaves it to others to cut the frame, of up to 64 KiB, into frames of `segment_bytes` bytes of TCP or
 * UDP payload each (the last may be shorter). The length in the IP header is the whole frame's. A frame with no more
 * payload than that is sent whole. The port's MTU applies to the segments.
 * Returns as above, and -EMSGSIZE: more than VSWITCH_RING_MAX_SEGMENTS segments; -EINVAL also: `segment_bytes` is 0;
 * -EOPNOTSUPP also: ICMPv6, or headers of more than VSWITCH_RING_HEADER_BYTES. */
int vswitch_frame_segment(struct vswitch_frame* frame, uint16_t segment_bytes);

enum vswitch_checksum {
  VSWITCH_CHECKSUM_UNKNOWN = 0, /* to be verified */
  VSWITCH_CHECKSUM_VALID = 1,   /* was verified */
  VSWITCH_CHECKSUM_PARTIAL = 2  /* comes from this host: the data is good, the field holds no checksum yet */
};

/* What is known about a received frame's transport checksum. A tenant that asked for no features gets no PARTIAL. */
enum vswitch_checksum vswitch_frame_checksum(const struct vswitch_frame* frame);

/* Payload bytes of each segment that a received frame is to be, or was, cut into; 0: it is one frame. */
uint16_t vswitch_frame_segment_bytes(const struct vswitch_frame* frame);

/* Copies a received frame to `out`, of `room` bytes, with its checksum computed if that was left undone: for passing it
 * on to something without offloads. `out` gets frame->length bytes and must not overlap the frame.
 * Returns 0; -EOPNOTSUPP a frame that is to be cut; -ENOBUFS `room` is too small; -EINVAL an offload that is not within
 * the frame. On error nothing is written. */
int vswitch_frame_finish(const struct vswitch_frame* frame, void* out, uint32_t room);

#ifdef __cplusplus
}
#endif

#endif
