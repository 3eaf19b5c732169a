/* A tenant that answers ARP, IPv6 neighbour solicitations and pings for the addresses of its port (`ips` in
 * tenants.json).
 *
 * cc ping_responder.c $(pkg-config --cflags --libs vswitch) */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vswitch/vswitch.h>

enum { BATCH = 64, ETH = 14, ND_BYTES = 32 /* a neighbour advertisement with one address option */ };

static volatile sig_atomic_t stopped;
static void stop(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

/* RFC 1071, over `bytes` bytes. In network byte order. */
static uint16_t checksum(const uint8_t* data, size_t bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes; ++i) sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

/* Whether `address` (4 or 16 bytes) is one of the port's. */
static bool is_ours(const struct vswitch_port_info* info, const uint8_t* address, size_t bytes) {
  for (uint32_t i = 0; i < info->address_count; ++i) {
    if (info->addresses[i].length == bytes && memcmp(info->addresses[i].bytes, address, bytes) == 0) return true;
  }
  return false;
}

/* Each of these turns the request in `frame` into its answer, behind the Ethernet header, and returns the answer's
 * length; 0: nothing to answer. Nothing is read behind `length`. */

static size_t answer_arp(uint8_t* frame, size_t length, const struct vswitch_port_info* info) {
  struct ether_arp arp;
  if (length < ETH + sizeof(arp)) return 0;
  memcpy(&arp, frame + ETH, sizeof(arp));
  if (ntohs(arp.ea_hdr.ar_op) != ARPOP_REQUEST || arp.ea_hdr.ar_hln != 6 || arp.ea_hdr.ar_pln != 4) return 0;
  if (!is_ours(info, arp.arp_tpa, 4)) return 0;
  uint8_t asked[4];
  memcpy(asked, arp.arp_tpa, sizeof(asked));
  arp.ea_hdr.ar_op = htons(ARPOP_REPLY);
  memcpy(arp.arp_tha, arp.arp_sha, 6);
  memcpy(arp.arp_tpa, arp.arp_spa, 4);
  memcpy(arp.arp_sha, info->mac, 6);
  memcpy(arp.arp_spa, asked, 4);
  memcpy(frame + ETH, &arp, sizeof(arp));
  return ETH + sizeof(arp);
}

static size_t answer_ipv4(uint8_t* frame, size_t length, const struct vswitch_port_info* info) {
  uint8_t* ip = frame + ETH;
  if (length < ETH + 20) return 0;
  const size_t header = (size_t)(ip[0] & 0x0f) * 4;
  const size_t total = (size_t)(ip[2] << 8 | ip[3]);
  const bool fragment = ((ip[6] & 0x3f) | ip[7]) != 0;
  if (ip[0] >> 4 != 4 || header < 20 || total < header + 8 || total > length - ETH) return 0;
  uint8_t* icmp = ip + header;
  if (fragment || ip[9] != IPPROTO_ICMP || icmp[0] != ICMP_ECHO || !is_ours(info, ip + 16, 4)) return 0;
  uint8_t asked[4];
  memcpy(asked, ip + 16, 4);
  memcpy(ip + 16, ip + 12, 4);
  memcpy(ip + 12, asked, 4);
  ip[8] = 64;
  memset(ip + 10, 0, 2);
  const uint16_t ip_sum = checksum(ip, header);
  memcpy(ip + 10, &ip_sum, 2);
  icmp[0] = ICMP_ECHOREPLY;
  memset(icmp + 2, 0, 2);
  const uint16_t icmp_sum = checksum(icmp, total - header);
  memcpy(icmp + 2, &icmp_sum, 2);
  return ETH + total;
}

/* RFC 4861 section 7.2.4: tells who asked our MAC. @return bytes of the answer's ICMPv6 message */
static size_t advertise(uint8_t* ip, size_t payload, const struct vswitch_port_info* info) {
  static const uint8_t unspecified[16];
  uint8_t* icmp = ip + 40;
  if (payload < 24 || ip[7] != 255 || !is_ours(info, icmp + 8, 16)) return 0;
  const bool probing = memcmp(ip + 8, unspecified, 16) == 0; /* duplicate address detection: the answer is for all */
  if (probing) {
    inet_pton(AF_INET6, "ff02::1", ip + 24);
  } else {
    memcpy(ip + 24, ip + 8, 16);
  }
  memcpy(ip + 8, icmp + 8, 16);
  icmp[0] = ND_NEIGHBOR_ADVERT;
  memset(icmp + 4, 0, 4);
  icmp[4] = probing ? 0x20 : 0x60; /* override, solicited */
  icmp[24] = ND_OPT_TARGET_LINKADDR;
  icmp[25] = 1;
  memcpy(icmp + 26, info->mac, 6);
  return ND_BYTES;
}

/* All but the checksum. */
static size_t answer_ipv6(uint8_t* frame, size_t length, const struct vswitch_port_info* info) {
  uint8_t* ip = frame + ETH;
  if (length < ETH + 40 + 8) return 0;
  size_t payload = (size_t)(ip[4] << 8 | ip[5]);
  if (ip[0] >> 4 != 6 || payload < 8 || payload > length - ETH - 40 || ip[6] != IPPROTO_ICMPV6) return 0;
  uint8_t* icmp = ip + 40;
  if (icmp[0] == ND_NEIGHBOR_SOLICIT) {
    payload = advertise(ip, payload, info);
    if (payload == 0) return 0;
    ip[7] = 255;
  } else if (icmp[0] == ICMP6_ECHO_REQUEST && is_ours(info, ip + 24, 16)) {
    uint8_t asked[16];
    memcpy(asked, ip + 24, 16);
    memcpy(ip + 24, ip + 8, 16);
    memcpy(ip + 8, asked, 16);
    icmp[0] = ICMP6_ECHO_REPLY;
    ip[7] = 64;
  } else {
    return 0;
  }
  ip[4] = (uint8_t)(payload >> 8);
  ip[5] = (uint8_t)payload;
  return ETH + 40 + payload;
}

/* `frame` has room for ETH + 40 + ND_BYTES at least, the longest answer that is longer than its question. */
static size_t answer(uint8_t* frame, size_t length, const struct vswitch_port_info* info) {
  if (length < ETH) return 0;
  const unsigned type = (unsigned)(frame[12] << 8 | frame[13]);
  const size_t answered = type == ETHERTYPE_ARP    ? answer_arp(frame, length, info)
                          : type == ETHERTYPE_IP   ? answer_ipv4(frame, length, info)
                          : type == ETHERTYPE_IPV6 ? answer_ipv6(frame, length, info)
                                                   : 0;
  memcpy(frame, frame + 6, 6);
  memcpy(frame + 6, info->mac, 6);
  return answered;
}

static void serve(struct vswitch_port* port) {
  static uint8_t scratch[VSWITCH_RING_MAX_FRAME + ND_BYTES];
  struct vswitch_frame in[BATCH];
  struct vswitch_port_info info;
  while (!stopped) {
    if (vswitch_wait(port, 0, 1000) != 1) continue; /* time to look at `stopped` */
    vswitch_info(port, &info);                      /* again each time: another attachment may have other addresses */
    const uint32_t count = vswitch_rx_peek(port, 0, in, BATCH);
    for (uint32_t i = 0; i < count; ++i) {
      const size_t asked = in[i].length < VSWITCH_RING_MAX_FRAME ? in[i].length : VSWITCH_RING_MAX_FRAME;
      memcpy(scratch, in[i].data, asked);
      struct vswitch_frame out = {.length = (uint32_t)answer(scratch, asked, &info)};
      if (out.length == 0 || vswitch_tx_reserve(port, 0, &out, 1) != 1) continue; /* no room: as if it was lost */
      memcpy(out.data, scratch, out.length);
      /* ICMPv6 leaves its checksum to whoever needs it; ARP and ICMP are finished, and stay so. */
      vswitch_frame_partial_checksum(&out);
      vswitch_tx_commit(port, 0, &out, 1);
    }
    vswitch_rx_release(port, 0, count);
  }
}

static void usage(FILE* to) {
  fprintf(to,
          "usage: ping_responder [--token TOKEN] [--socket] SOCKET\n"
          "Answers ARP, neighbour solicitations and pings for the addresses of the ring port at SOCKET.\n");
}

int main(int argc, char** argv) {
  static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                          {"token", required_argument, NULL, 't'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  struct vswitch_options wanted = {.size = sizeof(wanted)};
  const char* socket = NULL;
  for (int option; (option = getopt_long(argc, argv, "s:t:h", options, NULL)) != -1;) {
    if (option == 's') {
      socket = optarg;
    } else if (option == 't') {
      wanted.token = optarg;
    } else {
      usage(option == 'h' ? stdout : stderr);
      return option == 'h' ? 0 : 2;
    }
  }
  if (socket == NULL && optind < argc) socket = argv[optind++];
  if (socket == NULL || optind != argc) {
    usage(stderr);
    return 2;
  }
  const struct sigaction action = {.sa_handler = stop}; /* without SA_RESTART: vswitch_wait() returns */
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct vswitch_port* port;
  if (vswitch_attach(socket, &wanted, &port) != 0) {
    fprintf(stderr, "ping_responder: %s\n", vswitch_attach_error());
    return 1;
  }
  struct vswitch_port_info info;
  vswitch_info(port, &info);
  if (info.address_count == 0) fprintf(stderr, "ping_responder: %s has no \"ips\": nothing to answer for\n", info.name);
  serve(port);
  vswitch_detach(port);
  return 0;
}
