#ifndef SOFTNIC_H
#define SOFTNIC_H

/* For a program that links or preloads libsoftnic.so: a NIC inside this process, without a daemon, and a cable in
 * memory whose far end is the program itself. Any number of contexts of this process may open the device. */

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct softnic_memory_wire;

struct softnic_memory_wire_options {
  const char* directory; /* of the device, made if missing: board, sysfs */
  const char* device;    /* RDMA device, for example mlx5_0 */
  const char* netdev;    /* TAP to create in the caller's network namespace, the kernel's netdev */
  uint8_t mac[6];        /* of the netdev */
  uint32_t mtu;          /* of the netdev and of the wire */
  uint32_t seed;         /* of random completion batches; 0: completions are written at once */
  uint32_t poison;       /* 1: overwrite what is the NIC's; 0: do not, for benchmarks */
};

/* Makes the device and sets SYSFS_PATH to its tree: before libibverbs is used for the first time. Returns NULL and sets
 * errno, with the reason on stderr. */
struct softnic_memory_wire* softnic_open_memory_wire(const struct softnic_memory_wire_options* options);

/* Unplugs the device: nobody can open it any more. Contexts that have it open keep it without a far end. */
void softnic_close_memory_wire(struct softnic_memory_wire* wire);

/* Sends a frame to the NIC. Returns 1; 0: the wire is full, or the frame too long. One thread. */
int softnic_memory_wire_send(struct softnic_memory_wire* wire, const void* frame, uint32_t bytes);

/* Shows the oldest frame that the NIC sent; it stays where it is until softnic_memory_wire_drop(). Returns its length;
 * 0: there is none. One thread. */
uint32_t softnic_memory_wire_peek(struct softnic_memory_wire* wire, const void** frame);
void softnic_memory_wire_drop(struct softnic_memory_wire* wire);

/* A counter of core/board.h by its name; 0 where there is none of that name. Any thread. */
uint64_t softnic_memory_wire_counter(const struct softnic_memory_wire* wire, const char* name);

/* Rounds of work that the contexts of this process have ended. A context that is alone has written the completions of
 * all that it counted before, once two more have ended. Any thread. */
uint64_t softnic_memory_wire_rounds(const struct softnic_memory_wire* wire);

#ifdef __cplusplus
}
#endif

#endif
