"""How fast frames go from ring to ring: through the switch, beside the same rings with no switch between them."""

from contextlib import ExitStack

from report import BenchError, Samples
from rings import SWITCH_CPU, Rings, ring_ports

MACS = 1024


def ring_forward(options):
    samples = Samples("ring_forward", options.fifo)
    raw = Samples("ring_raw", options.fifo)
    with ExitStack() as stack:
        rings = Rings(stack, options.fifo)
        many = rings.new_folder()
        # Ports 0 and 1 have one address each, ports 2 and 3 have 1,024.
        rings.start({**ring_ports(rings.folder, 2), **ring_ports(many, 2, macs=MACS, first=2)})
        for _ in range(options.runs):
            # Next to case 64, as its raw twin is: what is compared is measured side by side.
            samples.add(f"macs-{MACS}-64", "Mpps",
                        forward(rings, options.seconds, "--first", 2, "--macs", MACS, folder=many))
            for size in (64, 256, 1518):
                samples.add(f"{size}", "Mpps", forward(rings, options.seconds, "--size", size))
                raw.add(f"raw-{size}", "Mpps", bare(rings, options.seconds, size))
            samples.add("one-hop-64", "ns", one_hop(rings, options.seconds))
            direct(raw, rings, options.seconds)
        if wrong := {name: drops for name in ("t0/p", "t2/p") if (drops := rings.drops(name))}:
            raise BenchError(f"the switch refused good frames: {wrong}")
    samples.emit()
    raw.emit()
    samples.values.update(raw.values)
    for size in (64, 256, 1518):
        samples.ratio(f"ratio-{size}", f"{size}", f"raw-{size}")
    samples.ratio(f"ratio-macs-{MACS}", f"macs-{MACS}-64", "64")


def ring_raw(options):
    samples = Samples("ring_raw", options.fifo)
    with ExitStack() as stack:
        rings = Rings(stack, options.fifo)
        for _ in range(options.runs):
            for size in (64, 256, 1518):
                samples.add(f"raw-{size}", "Mpps", bare(rings, options.seconds, size))
            direct(samples, rings, options.seconds)
    samples.emit()


def forward(rings, seconds, *arguments, folder=None):
    found = rings.flow(seconds, *arguments, folder=folder)
    missing = found["sent"] - found["received"]
    if missing > found["sent"] / 100:
        raise BenchError(f"{missing} frames of {found['sent']} were lost")
    return found["mpps"]


def bare(rings, seconds, size, discard=False):
    """The same tenant on the same CPU; the bare loop where the switch's worker was."""
    folder = rings.new_folder()
    loop = rings.program("ring_bare", *(["--discard"] if discard else []), cpu=SWITCH_CPU, folder=folder).wait_ready()
    found = rings.flow(seconds, "--size", size, *(["--one-way"] if discard else []), folder=folder)
    taken = loop.result()["frames"]
    if taken != found["sent"] or not discard and found["received"] != taken:
        raise BenchError(f"{taken} frames were taken: {found}")
    return found["mpps"]


def direct(samples, rings, seconds):
    for size in (64, 1518):
        samples.add(f"direct-{size}", "Mpps", bare(rings, seconds, size, discard=True))


def one_hop(rings, seconds):
    found = rings.program("ring_hop", "--seconds", seconds).result(timeout=seconds + 30)
    if found["lost"] or found["reordered"] or found["wrong"]:
        raise BenchError(f"frames went wrong: {found}")
    return found["hop_ns"]
