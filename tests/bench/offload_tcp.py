"""TCP between kinds of port, with and without offloads, beside kernel macvlan and a Linux bridge with veth.

    green (ring_tcp.cpp) ring --+
    red  [eth0] 198.18.0.11   --+-- vswitchd -- host ------- [w0] wire
    blue [eth0] 198.18.0.12   --+

    red  [eth0] 198.18.0.11 --+
                              +-- macvlan | bridge -- host ------- [w0] wire
    blue [eth0] 198.18.0.12 --+

What is behind an eth0 is an ordinary socket (tcp_end.cpp). Both ends compare every byte they receive.
"""

import itertools
from contextlib import ExitStack

from lab import ring_port, tap_port
from report import BenchError, Samples, say
from rings import SWITCH_CPU, TENANT_CPU, Program, configuration
from tap import CLIENT_CPU, SERVER_CPU, TENANTS, Bridge, Macvlan, Way, bad_checksums, wait_for_echo

RING_MAC, RING_V4 = "02:00:00:00:00:13", "198.18.0.13"
MODES = {"on": True, "off": False}
THROUGH_SWITCH = ("tap-ring", "ring-tap", "tap-tap")
KERNEL = {"macvlan": Macvlan, "bridge-veth": Bridge}
PEERS = {"on": ("macvlan", "bridge-veth"), "off": ("bridge-veth",)}  # macvlan's offloads are fixed on
MOST_AGAIN = 0.05  # of the bytes sent by a ring's end: above that, something loses frames


def offload_tcp(options):
    samples = Samples("offload_tcp", options.fifo)
    with ExitStack() as stack:
        ways = [(mode, name, way(stack, offloads)) for mode, offloads in MODES.items()
                for name, way in (("vswitch", _Switch), *((peer, _kernel(KERNEL[peer])) for peer in PEERS[mode]))]
        for _ in range(options.runs):
            for mode, name, way in ways:
                for case, measure in way.cases(name).items():
                    samples.add(f"{case}-{mode}", "Gbit/s", measure(options))
    samples.emit()
    for mode, peers in PEERS.items():
        for peer, case in itertools.product(peers, THROUGH_SWITCH):
            samples.ratio(f"ratio-{case}-{peer}-{mode}", f"{case}-{mode}", f"{peer}-{mode}")


class _Switch(Way):
    """As with macvlan and the bridge one socket end has CPU 1 for itself. All that is user space shares CPU 0: the
    worker and a ring's end; of two ordinary sockets, as in tap_tcp, the one that receives is beside the worker."""

    def __init__(self, stack, offloads):
        super().__init__(stack)
        self.offloads = offloads
        self.socket = f"{self.lab.folder}/green.sock"
        ports = {f"{name}/p": tap_port(self.site[name], *identity, offloads=offloads)
                 for name, identity in TENANTS.items()}
        ports["green/p"] = ring_port(self.socket, RING_MAC, ips=[f"{RING_V4}/24"])
        self.lab.daemon(self.site.host, configuration(ports, cpus=(SWITCH_CPU,)))

    def cases(self, _):
        return {"tap-ring": self.tap_ring, "ring-tap": self.ring_tap, "tap-tap": self.tap_tap}

    def tap_ring(self, options):
        return transfer(self, lambda: self.ring(options),
                        lambda: end(self, "blue", TENANT_CPU, *_sending(RING_V4, options)))

    def ring_tap(self, options):
        return transfer(self, lambda: end(self, "blue", TENANT_CPU),
                        lambda: self.ring(options, *_sending(TENANTS["blue"][1], options)))

    def tap_tap(self, options):
        return between_tenants(self, options, source_cpu=TENANT_CPU, sink_cpu=SWITCH_CPU)

    def ring(self, options, *arguments):
        return Program(self.lab, "ring_tcp", "--socket", self.socket, "--offloads", "yes" if self.offloads else "no",
                       "--cpu", SWITCH_CPU, *(["--fifo"] if options.fifo else []), *arguments)


def _kernel(kind):
    """macvlan or the bridge, with `offloads` as an argument; macvlan has no choice."""

    class Kernel(kind):
        def __init__(self, stack, offloads):
            super().__init__(stack)
            if not offloads:
                devices = [(self.site[name], "eth0") for name in TENANTS]
                devices += [(self.site.host, link) for link in self.site.host.links() if link.startswith("to-")]
                for netns, device in devices:  # those called to-... are the bridge's
                    _turn_off(netns, device)

        def cases(self, name):
            return {name: lambda options: between_tenants(self, options, CLIENT_CPU, SERVER_CPU)}

    return Kernel


def _turn_off(netns, device):
    """What makes frames bigger than the MTU or leaves checksums undone, one by one: not every device can do without
    each. (A limit of one segment a frame, `gso_max_segs`, would be something else: it slows TCP itself down, which
    otherwise cuts its frames last of all.)"""
    for feature in ("tso", "gso", "tx", "gro", "rx"):
        netns.run("ethtool", "-K", device, feature, "off", check=False)


def between_tenants(way, options, source_cpu, sink_cpu):
    address = TENANTS["blue"][1]
    wait_for_echo(way.site["red"], address)
    return transfer(way, lambda: end(way, "blue", sink_cpu),
                    lambda: end(way, "red", source_cpu, *_sending(address, options)))


def end(way, name, cpu, *arguments):
    return Program(way.lab, "tcp_end", "--netns", way.site[name].path, "--cpu", cpu, *arguments)


def _sending(address, options):
    return "--connect", address, "--seconds", options.seconds


def transfer(way, start_sink, start_source):
    """Gbit/s that the sink got from its first to its last byte; all that was sent, and as it was sent."""
    namespaces = [way.site[name] for name in TENANTS]
    bad, again = bad_checksums(*namespaces), _segments_again(namespaces)
    sink = start_sink().wait_ready()
    source = start_source()
    sent, received = source.result(), sink.result()
    if received["received"] != sent["sent"] or received["wrong"] or not received["seconds"]:
        raise BenchError(f"sent {sent}, received {received}")
    if bad_checksums(*namespaces) != bad or received.get("bad_checksums") or sent.get("bad_checksums"):
        raise BenchError(f"bad checksums: sent {sent}, received {received}")
    bytes_again = sent.get("bytes_again", 0)
    say(f"    {bytes_again} bytes again by a ring, {_segments_again(namespaces) - again} segments by sockets")
    if bytes_again > MOST_AGAIN * sent["sent"]:
        raise BenchError(f"too much was sent again: {sent}")
    return received["received"] * 8e-9 / received["seconds"]


def _segments_again(namespaces):
    return sum(netns.counter("Tcp", "RetransSegs") for netns in namespaces)
