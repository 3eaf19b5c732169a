"""What ports cost that are only there: rates with 2 to 4,096 of them, and a switch with nothing to do."""

import resource
import time
from contextlib import ExitStack
from pathlib import Path

from lab import Lab, Site, tap_port
from report import BenchError, Samples, say
from rings import Rings, configuration, ring_ports

PORTS = (2, 64, 1024, 4096)
DESCRIPTORS_PER_PORT = 4  # of the daemon: listener, doorbell, wake-up, client
IDLE_SECONDS = 5


def ports_scale(options):
    samples = Samples("ports_scale", options.fifo)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for count in PORTS:
        if count * DESCRIPTORS_PER_PORT + 100 > limit:
            raise BenchError(f"{count} ports need {count * DESCRIPTORS_PER_PORT} descriptors, the hard limit is "
                             f"{limit}: raise it (ulimit -Hn)")
    with ExitStack() as stack:
        # All the daemons side by side, so that runs can alternate; those without traffic sleep.
        switches = {count: _switch(stack, options, count) for count in PORTS}
        for _ in range(options.runs):
            for count, rings in switches.items():
                one = _rate(rings, options, count, 1)
                samples.add(f"pair-{count}", "Mpps", one)
                samples.add(f"pair-{count}-ns", "ns/frame", 1e3 / one)
            for count, rings in switches.items():
                samples.add(f"spread-{count}", "Mpps", _rate(rings, options, count, count // 2))
        largest = PORTS[-1]
        _idle_with_all_attached(samples, options, switches[largest], largest)
    samples.emit()
    for count in PORTS[1:]:
        samples.ratio(f"ratio-{count}", f"pair-{count}", f"pair-{PORTS[0]}")


def _switch(stack, options, count):
    rings = Rings(stack, options.fifo)
    say(f"  starting a switch with {count} ports")
    began = time.monotonic()
    rings.start(ring_ports(rings.folder, count))
    say(f"  it is up after {time.monotonic() - began:.1f} s")
    return rings


def _rate(rings, options, count, active):
    warm_up = 0.5 + active / 1000  # all pages of all arenas have to be there
    found = rings.flow(options.seconds, "--ports", count, "--active-pairs", active, "--warm-up", warm_up, patience=180)
    if found["lost"] > found["sent"] / 100:
        raise BenchError(f"{found['lost']} frames of {found['sent']} were lost")
    return found["mpps"]


def _idle_with_all_attached(samples, options, rings, count):
    """Every port attached by a tenant that sends hardly anything: once a second, to keep it simple."""
    seconds = max(options.seconds, IDLE_SECONDS)
    flow = rings.program("ring_flow", "--ports", count, "--rate", 1, "--seconds", 3600).wait_ready()
    for _ in range(min(options.runs, 3)):
        time.sleep(1)
        samples.add(f"idle-{count}-ring", "% of a core", _cpu_share(rings.daemon, seconds))
    flow.stop()


def idle(options):
    samples = Samples("idle")
    seconds = max(options.seconds, IDLE_SECONDS)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        site = Site(lab, "red", "blue")
        ports = ring_ports(lab.folder, 2)
        for i, name in enumerate(("red", "blue"), 1):
            ports[f"{name}/p"] = tap_port(site[name], f"02:00:00:00:01:1{i}", f"198.18.0.1{i}", f"fd00::1{i}")
        daemon = lab.daemon(site.host, configuration(ports))
        time.sleep(2)  # the namespaces' neighbour discovery
        for _ in range(options.runs):
            samples.add("idle-2-ring-2-tap", "% of a core", _cpu_share(daemon, seconds))
    samples.emit()


def _cpu_share(daemon, seconds):
    """Of all the daemon's threads together."""
    before, began = _cpu_ns(daemon.pid), time.monotonic_ns()
    time.sleep(seconds)
    return 100 * (_cpu_ns(daemon.pid) - before) / (time.monotonic_ns() - began)


def _cpu_ns(pid):
    """From schedstat, which counts nanoseconds: the ticks of /proc/PID/stat are too coarse for a switch that sleeps."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
