"""What tenants that misbehave, or die, cost the others."""

import time
from contextlib import ExitStack

from report import BenchError, Samples
from rings import Rings, ring_ports

# The pair beside the hostile one. Its tenant sleeps between ticks, so that the hostile process gets the rest of CPU 1;
# the rings are deep enough for a tick that comes late: what is lost is lost by the switch.
RATE = 2_000_000
DEEP = {"ring_frames": 32768, "arena_bytes": 4 << 20}
# So slow that a tenant or daemon that the scheduler leaves waiting for half a second loses nothing in those rings.
STEADY_RATE = 50_000
HOSTILE_PORT = 2


def neighbour(options):
    samples = Samples("neighbour", options.fifo)
    with ExitStack() as stack:
        rings = Rings(stack, options.fifo)
        rings.start({**ring_ports(rings.folder, 2, **DEEP), **ring_ports(rings.folder, 2, first=HOSTILE_PORT)})
        for _ in range(options.runs):
            for how, reasons in (("spoof", {"spoofed_mac"}), ("unread", {"dest_full"}),
                                 ("garbage", {"ring_corrupt", "bad_descriptor", "malformed"})):
                before = _neighbour(rings, options)
                during, rate = _beside(rings, options, how, reasons)
                samples.add(f"before-{how}", "Mpps", before)
                samples.add(f"during-{how}", "Mpps", during)
                samples.add(f"hostile-{how}", "Mpps dropped", rate)
    samples.emit()
    for how in ("spoof", "unread", "garbage"):
        samples.ratio(f"ratio-{how}", f"during-{how}", f"before-{how}")


def _neighbour(rings, options):
    return rings.flow(options.seconds, "--rate", RATE)["mpps"]


def _beside(rings, options, how, reasons):
    """The pair's rate while its neighbour misbehaves, and how many frames of that one the switch had to refuse."""
    hostile = rings.program("ring_hostile", "--how", how, "--first", HOSTILE_PORT, "--last").wait_ready()
    dropped, began = _dropped(rings, reasons), time.monotonic()
    during = _neighbour(rings, options)
    dropped, took = _dropped(rings, reasons) - dropped, time.monotonic() - began
    hostile.stop()
    if dropped == 0:
        raise BenchError(f"the hostile tenant ({how}) never ran or did no harm: none of its frames was dropped for "
                         f"{sorted(reasons)}; is the machine busy with something else?")
    return during, dropped / took / 1e6


def _dropped(rings, reasons):
    return sum(frames for port in (HOSTILE_PORT, HOSTILE_PORT + 1)
               for reason, frames in rings.drops(f"t{port}/p").items() if reason in reasons)


def reattach(options):
    samples = Samples("reattach", options.fifo)
    with ExitStack() as stack:
        rings = Rings(stack, options.fifo)
        ports = {**ring_ports(rings.folder, 2, **DEEP), **ring_ports(rings.folder, 2, first=2)}
        for _ in range(options.runs):
            rings.start(ports)
            _kill_tenant(samples, rings)
            _kill_daemon(samples, rings, ports)
            rings.daemon.stop()
    samples.emit()


def _kill_tenant(samples, rings):
    """kill -9 of the tenant of ports 2 and 3, which starts again at once; the one of 0 and 1 must not notice."""
    neighbour_flow = rings.program("ring_flow", "--rate", STEADY_RATE, "--seconds", 60).wait_ready()
    victim = ["ring_flow", "--first", 2, "--rate", 500_000]
    first = rings.program(*victim, "--seconds", 60).wait_ready()
    time.sleep(0.3)
    killed = time.monotonic_ns()
    first.kill()
    again = rings.program(*victim, "--seconds", 0.3).wait_ready()
    found = again.result()
    samples.add("tenant-killed", "ms until its traffic flows again", (found["first_arrival_ns"] - killed) / 1e6)
    beside = neighbour_flow.stop()
    samples.add("tenant-killed-neighbour", "frames lost", beside["sent"] - beside["received"] + beside["reordered"])


def _kill_daemon(samples, rings, ports):
    """kill -9 of the daemon, which starts again at once; its tenants stay."""
    flow = rings.program("ring_flow", "--first", 2, "--rate", STEADY_RATE, "--seconds", 60).wait_ready()
    time.sleep(0.3)
    killed = time.monotonic_ns()
    rings.daemon.kill()
    rings.start(ports)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not rings.counters("t3/p")["tx_frames"]:
        time.sleep(0.01)
    time.sleep(0.1)
    found = flow.stop()
    if found["silence_to_ns"] < killed:
        raise BenchError(f"no traffic after the daemon started again: {found}")
    samples.add("daemon-killed", "ms until traffic flows again", (found["silence_to_ns"] - killed) / 1e6)
