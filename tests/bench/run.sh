#!/bin/bash
# Runs benchmarks and prints one JSON object a line on stdout; what is going on is said on stderr. Needs root.
#
# usage: tests/bench/run.sh [NAME...] [--seconds S] [--runs N] [--fifo]
#   NAME       ring_forward, ring_raw, ports_scale, tap_tcp, idle, neighbour, reattach, offload_gso,
#              offload_checksum, offload_tcp, uplink_verbs; none: all of them
#   --seconds  how long each measurement takes (1)
#   --runs     how many there are of each, interleaved; the median is what counts (5)
#   --fifo     pinned processes and the daemon run as SCHED_FIFO 50, which the line's env says
# VSWITCH_BUILD names a finished build directory; without it the preset `release` is built.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
for argument in "$@"; do
  if [ "$argument" = -h ] || [ "$argument" = --help ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
  fi
done
if [ "$(id -u)" -ne 0 ]; then
  echo "tests/bench/run.sh makes network namespaces: run it as root" >&2
  exit 1
fi
if [ -z "${VSWITCH_BUILD:-}" ]; then
  export VSWITCH_BUILD=$root/build/release
  [ -f "$VSWITCH_BUILD/build.ninja" ] || cmake --preset release >&2
  cmake --build --preset release -j "${VSWITCH_JOBS:-$(nproc)}" --target \
    vswitchd vswitchctl ring_flow ring_hop ring_bare ring_hostile tap_copier gso_speed checksum_speed ring_tcp tcp_end \
    uplink_verbs >&2
fi
exec python3 -B tests/bench/main.py "$@"
