"""TCP between kernel netdevs: through the switch, beside kernel macvlan, a Linux bridge with veth, and a bare copier.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd | macvlan | bridge -- host ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+

The copier (tap_copier.cpp) has the same two TAP netdevs and no switch between them: what TAP itself costs.
"""

import itertools
import json
import subprocess
from contextlib import ExitStack

from lab import WIRE_V4, WIRE_V6, Lab, Site, cpu_seconds, tap_port, wait_until
from report import BenchError, Samples
from rings import Program, configuration

TENANTS = {"red": ("02:00:00:00:00:11", "198.18.0.11", "fd00::11"),
           "blue": ("02:00:00:00:00:12", "198.18.0.12", "fd00::12")}
STREAMS = (1, 4)
PATIENCE_SECONDS = 30
# iperf3's client runs on CPU 0, its server on CPU 1, and so does what has a process of its own between them: the switch's
# worker, the copier. macvlan and the bridge work in the context of the sender.
CLIENT_CPU, SERVER_CPU = 0, 1


def tap_tcp(options):
    samples = Samples("tap_tcp")
    with ExitStack() as stack:
        ways = {"vswitch": _Vswitch(stack), "macvlan": Macvlan(stack), "bridge-veth": Bridge(stack),
                "copier": _Copier(stack)}
        for _ in range(options.runs):
            for streams, reverse, version in itertools.product(STREAMS, (False, True), (4, 6)):
                suffix = f"{streams}{'-reverse' if reverse else ''}{'-v6' if version == 6 else ''}"
                for name, way in ways.items():
                    _measure(samples, name, suffix, way, options, streams, reverse, version)
    samples.emit()
    for streams in STREAMS:
        for peer in ("macvlan", "bridge-veth", "copier"):
            samples.ratio(f"ratio-{peer}-{streams}", f"vswitch-tap-tap-{streams}", f"{peer}-{streams}")
        samples.ratio(f"ratio-copier-cpu-{streams}", f"vswitch-tap-tap-{streams}-cpu", f"copier-{streams}-cpu")


def _measure(samples, name, suffix, way, options, streams, reverse, version):
    """Tenant to tenant, and where there is a wire tenant to wire; CPU time of the process between them, if there is one."""
    between, wire = way.peers(version)
    tap_tap, tap_wire = way.names(name)
    before = way.cpu_seconds()
    rate = _iperf(way, way.site["blue"], between, options, streams, reverse)
    samples.add(f"{tap_tap}-{suffix}", "Gbit/s", rate)
    if before is not None:
        gigabytes = rate * max(1, round(options.seconds)) / 8
        samples.add(f"{tap_tap}-{suffix}-cpu", "s/GB", (way.cpu_seconds() - before) / gigabytes)
    if tap_wire is not None:
        samples.add(f"{tap_wire}-{suffix}", "Gbit/s", _iperf(way, way.site.wire, wire, options, streams, reverse))


class Way:
    """Two tenants and a wire peer, somehow connected."""

    def __init__(self, stack):
        self.lab = stack.enter_context(Lab())
        self.site = Site(self.lab, *TENANTS)

    def peers(self, version):
        """Addresses of blue and of the wire peer."""
        return (TENANTS["blue"][1], WIRE_V4) if version == 4 else (TENANTS["blue"][2], WIRE_V6)

    def names(self, name):
        """What the cases tenant to tenant and tenant to wire are called; None: there is no such case."""
        return name, f"{name}-wire"

    def cpu_seconds(self):
        """CPU time so far of the process between the tenants; None: there is none."""
        return None

    def address(self, name):
        netns, (_, v4, v6) = self.site[name], TENANTS[name]
        self.lab.address(netns, "eth0", f"{v4}/24", f"{v6}/64")
        netns.ip("link", "set", "eth0", "up")


class _Vswitch(Way):
    def __init__(self, stack):
        super().__init__(stack)
        ports = {f"{name}/p": tap_port(self.site[name], *identity) for name, identity in TENANTS.items()}
        self.daemon = self.lab.daemon(self.site.host, configuration(ports, cpus=(SERVER_CPU,)))

    def names(self, name):
        return f"{name}-tap-tap", f"{name}-tap-wire"

    def cpu_seconds(self):
        return cpu_seconds(self.daemon.pid)


class _Copier(Way):
    def __init__(self, stack):
        super().__init__(stack)
        self.program = Program(self.lab, "tap_copier", "--left", self.site["red"].path, "--right",
                               self.site["blue"].path, "--cpu", SERVER_CPU).wait_ready()
        for name, (mac, _, _) in TENANTS.items():
            self.site[name].ip("link", "set", "eth0", "address", mac)
            self.address(name)

    def names(self, name):
        return name, None

    def cpu_seconds(self):
        return cpu_seconds(self.program.process.pid)


class Macvlan(Way):
    def __init__(self, stack):
        super().__init__(stack)
        for name, (mac, _, _) in TENANTS.items():
            self.site.host.ip("link", "add", "link", "lan0", "name", "eth0", "address", mac, "netns",
                              self.site[name].name, "type", "macvlan", "mode", "bridge")
            self.address(name)


class Bridge(Way):
    def __init__(self, stack):
        super().__init__(stack)
        host = self.site.host
        host.ip("link", "add", "br0", "type", "bridge", "stp_state", "0")
        host.ip("addr", "flush", "dev", "lan0")
        host.ip("link", "set", "lan0", "master", "br0")
        host.ip("link", "set", "br0", "up")
        for name, (mac, _, _) in TENANTS.items():
            self.lab.veth(host, f"to-{name}", self.site[name], "eth0", right_mac=mac)
            host.ip("link", "set", f"to-{name}", "master", "br0")
            self.address(name)


def _iperf(way, server, address, options, streams, reverse):
    """Gbit/s that the receiver got, in one TCP measurement from red to `address` in `server`, or back."""
    client = way.site["red"]
    wait_for_echo(client, address)
    bad = bad_checksums(client, server)
    listener = way.lab.popen(server, "taskset", "-c", SERVER_CPU, "iperf3", "-s", "-1", stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ":5201" in server.run("ss", "-Hltn").stdout, "iperf3 does not listen")
        done = client.run("taskset", "-c", CLIENT_CPU, "iperf3", "-J", "-c", address, "-P", streams,
                          "-t", max(1, round(options.seconds)), *(["-R"] if reverse else []), check=False,
                          timeout=options.seconds + PATIENCE_SECONDS)
        report = json.loads(done.stdout)
        if done.returncode:
            raise BenchError(f"iperf3: {report.get('error', done.stderr)}")
    finally:
        listener.terminate()
        listener.wait()
    if bad_checksums(client, server) != bad:
        raise BenchError(f"bad checksums at {address}")
    return report["end"]["sum_received"]["bits_per_second"] / 1e9


def wait_for_echo(client, address):
    wait_until(lambda: client.run("ping", "-n", "-c", "1", "-W", "1", address, check=False).returncode == 0,
               f"no echo from {address}")


def bad_checksums(*namespaces):
    return sum(netns.counter("Tcp", "InCsumErrors") for netns in namespaces)
