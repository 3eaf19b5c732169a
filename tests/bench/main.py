#!/usr/bin/env python3
"""Runs the benchmarks; see run.sh and README.md."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from lab import CommandError  # noqa: E402
from report import BenchError, say  # noqa: E402
from rings import SWITCH_CPU, TENANT_CPU  # noqa: E402
import harm  # noqa: E402
import offload_checksum  # noqa: E402
import offload_gso  # noqa: E402
import offload_tcp  # noqa: E402
import ring_speed  # noqa: E402
import scale  # noqa: E402
import tap  # noqa: E402
import uplink_verbs  # noqa: E402

BENCHES = {"ring_forward": ring_speed.ring_forward, "ring_raw": ring_speed.ring_raw, "ports_scale": scale.ports_scale,
           "tap_tcp": tap.tap_tcp, "idle": scale.idle, "neighbour": harm.neighbour, "reattach": harm.reattach,
           "offload_gso": offload_gso.offload_gso, "offload_checksum": offload_checksum.offload_checksum,
           "offload_tcp": offload_tcp.offload_tcp, "uplink_verbs": uplink_verbs.uplink_verbs}


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--fifo", action="store_true")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.seconds <= 0 or options.runs < 1:
        parser.error("--seconds and --runs must be positive")
    missing = {SWITCH_CPU, TENANT_CPU} - os.sched_getaffinity(0)
    if missing:
        sys.exit(f"benchmarks run on CPUs {SWITCH_CPU} and {TENANT_CPU}; this process may not use {sorted(missing)}")
    failed = 0
    # ring_forward measures what ring_raw does, run by run beside its own.
    for name in options.names or [name for name in BENCHES if name != "ring_raw"]:
        say(f"== {name}")
        try:
            BENCHES[name](options)
        except (BenchError, CommandError, TimeoutError) as error:  # the others may work
            say(f"{name}: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
