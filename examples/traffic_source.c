/* A tenant that sends numbered frames: a counted flow for traffic_sink, at a rate or as fast as it can.
 *
 * cc traffic_source.c $(pkg-config --cflags --libs vswitch) */
#include <endian.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vswitch/vswitch.h>

enum { BATCH = 64, SHORTEST = 26 };
static const uint8_t marker[] = {0x88, 0xb5, 'v', 's', 'w', '1'}; /* the experimental ethertype, then who we are */

static volatile sig_atomic_t stopped;
static void stop(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

struct settings {
  const char* socket;
  const char* token;
  uint64_t count; /* 0: no limit */
  double seconds; /* 0: no limit */
  double rate;    /* frames a second, 0: as fast as it goes */
  uint32_t size;
  uint32_t queue;
  uint8_t dst[6];
  uint8_t src[6];
  bool has_src;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void usage(FILE* to) {
  fprintf(to,
          "usage: traffic_source --dst MAC [options] SOCKET\n"
          "Sends numbered frames from the ring port at SOCKET and prints a line of JSON at the end.\n"
          "  --dst MAC      whom to\n"
          "  --src MAC      source address (the port's)\n"
          "  --count N      stop after N frames\n"
          "  --seconds S    stop after S seconds (10, unless --count is given)\n"
          "  --rate N       frames a second (as fast as it goes)\n"
          "  --size N       bytes of a frame, without FCS: 26 to 65600 (64)\n"
          "  --queue N      queue pair (0)\n"
          "  --token TOKEN  the port's token\n");
}

__attribute__((noreturn)) static void refuse(const char* option, const char* value) {
  fprintf(stderr, "traffic_source: --%s %s: not a valid value\n", option, value);
  usage(stderr);
  exit(2);
}

static double number(const char* option, const char* text, double least, double most) {
  char* end;
  const double value = strtod(text, &end);
  if (*text == '\0' || *end != '\0' || !(value >= least && value <= most)) refuse(option, text);
  return value;
}

static void parse_mac(const char* option, const char* text, uint8_t mac[6]) {
  int end = 0;
  if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5],
             &end) != 6 ||
      text[end] != '\0') {
    refuse(option, text);
  }
}

static struct settings parse(int argc, char** argv) {
  static const struct option options[] = {
      {"dst", required_argument, NULL, 'd'},   {"src", required_argument, NULL, 's'},
      {"count", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 't'},
      {"rate", required_argument, NULL, 'r'},  {"size", required_argument, NULL, 'z'},
      {"queue", required_argument, NULL, 'q'}, {"token", required_argument, NULL, 'k'},
      {"help", no_argument, NULL, 'h'},        {0}};
  struct settings s = {.size = 64};
  bool has_dst = false;
  for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
    switch (option) {
      case 'd':
        parse_mac("dst", optarg, s.dst);
        has_dst = true;
        break;
      case 's':
        parse_mac("src", optarg, s.src);
        s.has_src = true;
        break;
      case 'c':
        s.count = (uint64_t)number("count", optarg, 1, 1e18);
        break;
      case 't':
        s.seconds = number("seconds", optarg, 0.001, 1e9);
        break;
      case 'r':
        s.rate = number("rate", optarg, 0.001, 1e9);
        break;
      case 'z':
        s.size = (uint32_t)number("size", optarg, SHORTEST, VSWITCH_RING_MAX_FRAME);
        break;
      case 'q':
        s.queue = (uint32_t)number("queue", optarg, 0, VSWITCH_RING_MAX_QUEUES - 1);
        break;
      case 'k':
        s.token = optarg;
        break;
      default:
        usage(option == 'h' ? stdout : stderr);
        exit(option == 'h' ? 0 : 2);
    }
  }
  if (!has_dst || optind + 1 != argc) {
    usage(stderr);
    exit(2);
  }
  s.socket = argv[optind];
  if (s.count == 0 && s.seconds == 0) s.seconds = 10;
  return s;
}

/* Frames that may be sent at `elapsed` seconds, at most a batch; sleeps a little when none is due. */
static uint32_t due(const struct settings* s, uint64_t sent, double elapsed) {
  uint64_t frames = BATCH;
  if (s->rate != 0) {
    const double owed = elapsed * s->rate - (double)sent;
    if (owed < 1) {
      const double pause = (1 - owed) / s->rate;
      const struct timespec nap = {.tv_nsec = pause > 0.01 ? 10000000 : (long)(pause * 1e9)};
      if (pause > 0.0002) nanosleep(&nap, NULL);
      return 0;
    }
    if (owed < BATCH) frames = (uint64_t)owed;
  }
  if (s->count != 0 && s->count - sent < frames) frames = s->count - sent;
  return (uint32_t)frames;
}

static void run(struct vswitch_port* port, const struct settings* s) {
  struct vswitch_frame frames[BATCH];
  uint64_t sent = 0;
  uint64_t full = 0; /* times there was no room */
  const double start = now();
  double elapsed = 0;
  while (!stopped && (s->count == 0 || sent < s->count) && (s->seconds == 0 || elapsed < s->seconds)) {
    elapsed = now() - start;
    const uint32_t wanted = due(s, sent, elapsed);
    for (uint32_t i = 0; i < wanted; ++i) frames[i].length = s->size;
    const uint32_t reserved = wanted == 0 ? 0 : vswitch_tx_reserve(port, s->queue, frames, wanted);
    if (reserved < wanted) ++full;
    for (uint32_t i = 0; i < reserved; ++i) {
      uint8_t* to = frames[i].data;
      const uint64_t sequence = htole64(sent++);
      memcpy(to, s->dst, 6);
      memcpy(to + 6, s->src, 6);
      memcpy(to + 12, marker, sizeof(marker));
      memcpy(to + 18, &sequence, sizeof(sequence));
    }
    vswitch_tx_commit(port, s->queue, frames, reserved);
  }
  elapsed = now() - start;
  printf("{\"sent\": %llu, \"bytes\": %llu, \"seconds\": %.3f, \"frames_per_second\": %.0f, \"full\": %llu}\n",
         (unsigned long long)sent, (unsigned long long)sent * s->size, elapsed,
         elapsed > 0 ? (double)sent / elapsed : 0, (unsigned long long)full);
}

int main(int argc, char** argv) {
  struct settings s = parse(argc, argv);
  const struct sigaction action = {.sa_handler = stop};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  const struct vswitch_options options = {.size = sizeof(options), .token = s.token};
  struct vswitch_port* port;
  if (vswitch_attach(s.socket, &options, &port) != 0) {
    fprintf(stderr, "traffic_source: %s\n", vswitch_attach_error());
    return 1;
  }
  struct vswitch_port_info info;
  vswitch_info(port, &info);
  if (s.queue >= info.queues) {
    fprintf(stderr, "traffic_source: --queue %u: %s has %u queue pairs\n", s.queue, info.name, info.queues);
    vswitch_detach(port);
    return 2;
  }
  if (!s.has_src) memcpy(s.src, info.mac, sizeof(s.src));
  run(port, &s);
  /* What is still in the ring is lost with the attachment: give the switch a moment to take it. */
  const struct timespec moment = {.tv_nsec = 50000000};
  nanosleep(&moment, NULL);
  vswitch_detach(port);
  return 0;
}
