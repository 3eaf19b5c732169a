/* Offload metadata for tenants that do not speak virtio: asking for work on a frame to be sent, reading what was left
 * undone on a received one. All reads and writes stay inside the frame's bytes. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <vswitch/vswitch.h>

enum {
  ETHERNET_BYTES = 14,
  TAG_BYTES = 4,
  MAX_TAGS = 2,
  ETHER_IPV4 = 0x0800,
  ETHER_VLAN = 0x8100,
  ETHER_IPV6 = 0x86dd,
  ETHER_QINQ = 0x88a8,
  IPV4_BYTES = 20,
  IPV4_FRAGMENT = 0x3fff, /* more fragments, or an offset */
  IPV6_BYTES = 40,
  HOP_BY_HOP = 0,
  ROUTING = 43,
  FRAGMENT = 44,
  DESTINATION_OPTIONS = 60,
  EXTENSION_UNIT = 8,
  MAX_EXTENSIONS = 8, /* the switch's limit */
  TCP = 6,
  TCP_BYTES = 20,
  TCP_CWR = 0x80,
  UDP = 17,
  UDP_BYTES = 8,
  ICMPV6 = 58,
  ICMPV6_BYTES = 4
};

/* Where a frame's transport header is, and what of the pseudo-header only the IP header tells. */
struct transport {
  uint64_t address_sum;
  uint32_t start;    /* of the header, from frame start */
  uint32_t payload;  /* where the header ends, from frame start */
  uint16_t checksum; /* of its field, from the header's start */
  uint8_t protocol;
  bool ipv6;
};

static uint16_t load16(const uint8_t* at) { return (uint16_t)(at[0] << 8 | at[1]); }

/* The Internet checksum, RFC 1071: `sum` plus the words of `bytes`, in memory order. */
static uint64_t add_words(uint64_t sum, const uint8_t* bytes, size_t length) {
  for (; length >= sizeof(uint32_t); bytes += sizeof(uint32_t), length -= sizeof(uint32_t)) {
    uint32_t two;
    memcpy(&two, bytes, sizeof(two));
    sum += two;
  }
  uint8_t rest[sizeof(uint32_t)] = {0}; /* an odd last byte counts as if a zero followed */
  memcpy(rest, bytes, length);
  uint32_t last;
  memcpy(&last, rest, sizeof(last));
  return sum + last;
}

static uint16_t fold(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

static int find_in_ipv4(const uint8_t* ip, uint32_t length, struct transport* t) {
  if (length < IPV4_BYTES || ip[0] >> 4 != 4 || load16(ip + 2) != length) return -EINVAL;
  const uint32_t header = (ip[0] & 0x0fu) * 4u;
  if (header < IPV4_BYTES || header > length) return -EINVAL;
  if ((load16(ip + 6) & IPV4_FRAGMENT) != 0) return -EOPNOTSUPP;
  t->protocol = ip[9];
  t->address_sum = add_words(0, ip + 12, 8);
  t->start = header;
  return 0;
}

static int find_in_ipv6(const uint8_t* ip, uint32_t length, struct transport* t) {
  if (length < IPV6_BYTES || ip[0] >> 4 != 6 || load16(ip + 4) != length - IPV6_BYTES) return -EINVAL;
  uint8_t next = ip[6];
  uint32_t at = IPV6_BYTES;
  for (unsigned i = 0; next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS; ++i) {
    if (i == MAX_EXTENSIONS) return -EOPNOTSUPP;
    if (length - at < EXTENSION_UNIT) return -EINVAL;
    const uint32_t bytes = (ip[at + 1] + 1u) * EXTENSION_UNIT;
    if (bytes > length - at) return -EINVAL;
    /* With segments left the final destination is somewhere in this header; its type says where (RFC 8200, 8.1). */
    if (next == ROUTING && ip[at + 3] != 0) return -EOPNOTSUPP;
    next = ip[at];
    at += bytes;
  }
  if (next == FRAGMENT) return -EOPNOTSUPP;
  t->ipv6 = true;
  t->protocol = next;
  t->address_sum = add_words(0, ip + 8, 32);
  t->start = at;
  return 0;
}

/* Reads the transport header of `length` bytes at `l4`, offsets from there. */
static int find_payload(const uint8_t* l4, uint32_t length, struct transport* t) {
  uint32_t header;
  switch (t->protocol) {
    case TCP:
      if (length < TCP_BYTES) return -EINVAL;
      header = (l4[12] >> 4) * 4u;
      if (header < TCP_BYTES || header > length) return -EINVAL;
      t->checksum = 16;
      break;
    case UDP:
      header = UDP_BYTES;
      if (length < header || load16(l4 + 4) != length) return -EINVAL;
      t->checksum = 6;
      break;
    case ICMPV6:
      if (!t->ipv6) return -EOPNOTSUPP;
      header = ICMPV6_BYTES;
      if (length < header) return -EINVAL;
      t->checksum = 2;
      break;
    default:
      return -EOPNOTSUPP;
  }
  t->payload = t->start + header;
  return 0;
}

/* Finds the transport header behind up to two VLAN tags. Returns 0 or a negative errno. */
static int find_transport(const struct vswitch_frame* frame, struct transport* t) {
  const uint8_t* data = frame->data;
  *t = (struct transport){0};
  uint32_t l3 = ETHERNET_BYTES;
  if (frame->length < l3) return -EINVAL;
  uint16_t ethertype = load16(data + l3 - 2);
  for (int tags = 0; tags < MAX_TAGS && (ethertype == ETHER_VLAN || ethertype == ETHER_QINQ); ++tags) {
    l3 += TAG_BYTES;
    if (frame->length < l3) return -EINVAL;
    ethertype = load16(data + l3 - 2);
  }
  const uint32_t length = frame->length - l3;
  int result = -EOPNOTSUPP;
  if (ethertype == ETHER_IPV4) result = find_in_ipv4(data + l3, length, t);
  if (ethertype == ETHER_IPV6) result = find_in_ipv6(data + l3, length, t);
  if (result != 0) return result;
  t->start += l3;
  return find_payload(data + t->start, frame->length - t->start, t);
}

static void leave_checksum(struct vswitch_frame* frame, const struct transport* t) {
  const uint32_t length = frame->length - t->start;
  const uint8_t pseudo[8] = {0, 0, 0, t->protocol, 0, (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length};
  const uint16_t sum = fold(add_words(t->address_sum, pseudo, sizeof(pseudo)));
  memcpy((uint8_t*)frame->data + t->start + t->checksum, &sum, sizeof(sum));
  frame->offload = (struct vswitch_offload){
      .flags = VSWITCH_OFFLOAD_NEEDS_CSUM, .csum_start = (uint16_t)t->start, .csum_offset = t->checksum};
}

int vswitch_frame_partial_checksum(struct vswitch_frame* frame) {
  struct transport t;
  const int result = find_transport(frame, &t);
  if (result == 0) leave_checksum(frame, &t);
  return result;
}

int vswitch_frame_segment(struct vswitch_frame* frame, uint16_t segment_bytes) {
  struct transport t;
  const int result = segment_bytes == 0 ? -EINVAL : find_transport(frame, &t);
  if (result != 0) return result;
  if (t.protocol == ICMPV6) return -EOPNOTSUPP;
  const uint32_t payload = frame->length - t.payload;
  const bool whole = payload <= segment_bytes;
  if (!whole && t.payload > VSWITCH_RING_HEADER_BYTES) return -EOPNOTSUPP;
  if (payload > VSWITCH_RING_MAX_SEGMENTS * segment_bytes) return -EMSGSIZE;
  leave_checksum(frame, &t);
  if (whole) return 0;
  frame->offload.gso_size = segment_bytes;
  frame->offload.gso_type = VSWITCH_GSO_UDP_L4;
  if (t.protocol == TCP) {
    const uint8_t flags = ((const uint8_t*)frame->data)[t.start + 13];
    frame->offload.gso_type =
        (uint8_t)((t.ipv6 ? VSWITCH_GSO_TCP6 : VSWITCH_GSO_TCP4) | ((flags & TCP_CWR) != 0 ? VSWITCH_GSO_ECN : 0u));
  }
  return 0;
}

enum vswitch_checksum vswitch_frame_checksum(const struct vswitch_frame* frame) {
  if ((frame->offload.flags & VSWITCH_OFFLOAD_NEEDS_CSUM) != 0) return VSWITCH_CHECKSUM_PARTIAL;
  return (frame->offload.flags & VSWITCH_OFFLOAD_DATA_VALID) != 0 ? VSWITCH_CHECKSUM_VALID : VSWITCH_CHECKSUM_UNKNOWN;
}

uint16_t vswitch_frame_segment_bytes(const struct vswitch_frame* frame) {
  return frame->offload.gso_type == VSWITCH_GSO_NONE ? 0 : frame->offload.gso_size;
}

int vswitch_frame_finish(const struct vswitch_frame* frame, void* out, uint32_t room) {
  const struct vswitch_offload offload = frame->offload;
  const bool partial = (offload.flags & VSWITCH_OFFLOAD_NEEDS_CSUM) != 0;
  const uint32_t field = (uint32_t)offload.csum_start + offload.csum_offset;
  if (offload.gso_type != VSWITCH_GSO_NONE) return -EOPNOTSUPP;
  if (partial && field + sizeof(uint16_t) > frame->length) return -EINVAL;
  if (room < frame->length) return -ENOBUFS;
  memcpy(out, frame->data, frame->length);
  if (!partial) return 0;
  uint8_t* bytes = out;
  uint16_t checksum = (uint16_t)~fold(add_words(0, bytes + offload.csum_start, frame->length - offload.csum_start));
  if (checksum == 0) checksum = 0xffff; /* its other spelling: 0 says "no checksum" in UDP */
  memcpy(bytes + field, &checksum, sizeof(checksum));
  return 0;
}
