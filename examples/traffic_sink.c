/* A tenant that counts what traffic_source sends it, and says what was lost or came out of order.
 *
 * cc traffic_sink.c $(pkg-config --cflags --libs vswitch) */
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
static const uint8_t marker[] = {0x88, 0xb5, 'v', 's', 'w', '1'}; /* as traffic_source writes it */

static volatile sig_atomic_t stopped;
static void stop(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

/* One flow: that of `src`. */
struct flow {
  uint8_t src[6];
  bool known; /* src is set: by --src, or from the first frame */
  uint64_t frames;
  uint64_t bytes;
  uint64_t reordered; /* came after one with a higher number */
  uint64_t first;
  uint64_t highest;
  uint64_t other; /* frames that are not this flow's */
  double begin;
  double end;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void usage(FILE* to) {
  fprintf(to,
          "usage: traffic_sink [options] SOCKET\n"
          "Counts the frames of one traffic_source at the ring port at SOCKET and prints a line of JSON at the end.\n"
          "  --src MAC      whose frames (those of the first that comes)\n"
          "  --count N      stop after N frames\n"
          "  --seconds S    stop after S seconds (neither: when interrupted)\n"
          "  --queue N      queue pair (0)\n"
          "  --token TOKEN  the port's token\n");
}

__attribute__((noreturn)) static void refuse(const char* option, const char* value) {
  fprintf(stderr, "traffic_sink: --%s %s: not a valid value\n", option, value);
  usage(stderr);
  exit(2);
}

static double number(const char* option, const char* text, double least, double most) {
  char* end;
  const double value = strtod(text, &end);
  if (*text == '\0' || *end != '\0' || !(value >= least && value <= most)) refuse(option, text);
  return value;
}

static void take(struct flow* flow, const struct vswitch_frame* frame) {
  const uint8_t* data = frame->data;
  const bool ours = frame->length >= SHORTEST && memcmp(data + 12, marker, sizeof(marker)) == 0;
  if (ours && !flow->known) {
    memcpy(flow->src, data + 6, 6);
    flow->known = true;
  }
  if (!ours || memcmp(flow->src, data + 6, 6) != 0) {
    ++flow->other;
    return;
  }
  uint64_t sequence;
  memcpy(&sequence, data + 18, sizeof(sequence));
  sequence = le64toh(sequence);
  if (flow->frames == 0) {
    flow->first = flow->highest = sequence;
    flow->begin = now();
  } else if (sequence > flow->highest) {
    flow->highest = sequence;
  } else {
    ++flow->reordered;
    if (sequence < flow->first) flow->first = sequence;
  }
  ++flow->frames;
  flow->bytes += frame->length;
}

static void print(const struct flow* flow) {
  const uint64_t span = flow->frames == 0 ? 0 : flow->highest - flow->first + 1;
  const double seconds = flow->end - flow->begin;
  printf(
      "{\"received\": %llu, \"bytes\": %llu, \"lost\": %llu, \"reordered\": %llu, \"other\": %llu, "
      "\"seconds\": %.3f, \"frames_per_second\": %.0f}\n",
      (unsigned long long)flow->frames, (unsigned long long)flow->bytes,
      (unsigned long long)(span > flow->frames ? span - flow->frames : 0), (unsigned long long)flow->reordered,
      (unsigned long long)flow->other, seconds, seconds > 0 ? (double)flow->frames / seconds : 0);
}

static void run(struct vswitch_port* port, uint32_t queue, uint64_t count, double seconds, struct flow* flow) {
  struct vswitch_frame frames[BATCH];
  const double start = now();
  while (!stopped && (count == 0 || flow->frames < count)) {
    const double left = seconds == 0 ? 1 : seconds - (now() - start);
    if (left <= 0) break;
    if (vswitch_wait(port, queue, left < 1 ? (int)(left * 1000) + 1 : 1000) != 1) continue;
    for (uint32_t n; !stopped && (n = vswitch_rx_peek(port, queue, frames, BATCH)) != 0;) {
      for (uint32_t i = 0; i < n; ++i) take(flow, &frames[i]);
      vswitch_rx_release(port, queue, n);
      if (flow->frames != 0) flow->end = now();
      if ((count != 0 && flow->frames >= count) || (seconds != 0 && now() - start > seconds)) break;
    }
  }
}

int main(int argc, char** argv) {
  static const struct option options[] = {{"src", required_argument, NULL, 's'},
                                          {"count", required_argument, NULL, 'c'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {"queue", required_argument, NULL, 'q'},
                                          {"token", required_argument, NULL, 'k'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  struct vswitch_options wanted = {.size = sizeof(wanted)};
  struct flow flow = {0};
  uint64_t count = 0;
  double seconds = 0;
  uint32_t queue = 0;
  for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
    if (option == 's') {
      int end = 0;
      uint8_t* m = flow.src;
      if (sscanf(optarg, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &end) !=
              6 ||
          optarg[end] != '\0') {
        refuse("src", optarg);
      }
      flow.known = true;
    } else if (option == 'c') {
      count = (uint64_t)number("count", optarg, 1, 1e18);
    } else if (option == 't') {
      seconds = number("seconds", optarg, 0.001, 1e9);
    } else if (option == 'q') {
      queue = (uint32_t)number("queue", optarg, 0, VSWITCH_RING_MAX_QUEUES - 1);
    } else if (option == 'k') {
      wanted.token = optarg;
    } else {
      usage(option == 'h' ? stdout : stderr);
      return option == 'h' ? 0 : 2;
    }
  }
  if (optind + 1 != argc) {
    usage(stderr);
    return 2;
  }
  const struct sigaction action = {.sa_handler = stop};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct vswitch_port* port;
  if (vswitch_attach(argv[optind], &wanted, &port) != 0) {
    fprintf(stderr, "traffic_sink: %s\n", vswitch_attach_error());
    return 1;
  }
  struct vswitch_port_info info;
  vswitch_info(port, &info);
  if (queue >= info.queues) {
    fprintf(stderr, "traffic_sink: --queue %u: %s has %u queue pairs\n", queue, info.name, info.queues);
    vswitch_detach(port);
    return 2;
  }
  run(port, queue, count, seconds, &flow);
  vswitch_detach(port);
  print(&flow);
  return 0;
}
