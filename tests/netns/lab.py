"""Network namespaces, cables, raw sockets and a running vswitchd for the tests in this folder.

Everything a Lab makes carries the process id in its name and goes away with the Lab, on every way out of it:
exceptions, SIGINT, SIGTERM. Only namespaces of the Lab are touched; the machine's own interfaces never are.

    with Lab() as lab:
        host, wire = lab.netns("host"), lab.netns("wire")
        lab.veth(host, "lan0", wire, "w0")
        daemon = lab.daemon(host, config)
"""

import atexit
import ctypes
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VSWITCH_BUILD", ROOT / "build" / "dev")).resolve()
# Sanitizers and loaded machines make everything slower; timeouts scale with this, expectations never do.
SLOW = float(os.environ.get("VSWITCH_TEST_SLOW", "1"))
# The driver of the uplink in all scenarios of this folder; "verbs" gives the host a software RDMA NIC (tests/softnic).
UPLINK = os.environ.get("VSWITCH_TEST_UPLINK", "auto")
NEUTRAL_NIC = os.environ.get("VSWITCH_TEST_NIC") == "neutral"  # it is not an mlx5
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_serial = 0


class CommandError(Exception):
    """A command failed; says which and what it printed."""


def run(*command, check=True, timeout=60, **kwargs):
    """Runs a command, returns the CompletedProcess; raises CommandError with its output when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout * SLOW, **kwargs)
    if check and done.returncode:
        raise CommandError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def cpu_seconds(pid):
    """CPU time of all threads of a process so far; not of the NIC that is modelled by one of them."""
    ticks = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, fields = (task / "stat").read_text().rsplit(")", 1)
        if not name.endswith("(softnic"):
            ticks += sum(int(field) for field in fields.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_until(condition, what, timeout=10.0, interval=0.02):
    """Polls until `condition()` is true; its value is returned."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up after {timeout * SLOW:.0f} s: {what}")
        time.sleep(interval)


@contextmanager
def inside(netns_path):
    """The calling thread is in that network namespace within the block."""
    with ExitStack() as stack:
        back = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, back)
        there = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, there)
        _setns(there)
        try:
            yield
        finally:
            _setns(back)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")


class NetNs:
    """A named network namespace of the lab."""

    def __init__(self, name):
        self.name = name
        self.path = f"/run/netns/{name}"
        self.nic = None  # the SoftNic that daemons here use

    def inside(self):
        return inside(self.path)

    def command(self, *command):
        """The command line that runs `command` here. (nsenter, not ip-netns-exec: that one remounts /sys.)"""
        return ["nsenter", f"--net={self.path}", *map(str, command)]

    def with_nic(self, *command):
        """`command`, so that it sees the software NIC if there is one here."""
        return self.nic.program(*command) if self.nic else list(command)

    def run(self, *command, **kwargs):
        return run(*self.command(*command), **kwargs)

    def popen(self, *command, **kwargs):
        return subprocess.Popen(self.command(*command), **kwargs)

    def ip(self, *arguments, **kwargs):
        return run("ip", "-n", self.name, *arguments, **kwargs)

    def links(self):
        """Interfaces by name, as `ip -d -j link` tells them."""
        return {link["ifname"]: link for link in json.loads(self.ip("-d", "-j", "link").stdout)}

    def sysctl(self, key, value=None):
        path = Path("/proc/sys") / key.replace(".", "/")
        with self.inside():
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def counter(self, group, name):
        """A counter of /proc/net/snmp or /proc/net/netstat here, such as ("Tcp", "InCsumErrors")."""
        with self.inside():
            text = Path("/proc/thread-self/net/snmp").read_text() + Path("/proc/thread-self/net/netstat").read_text()
        lines = [line.split() for line in text.splitlines() if line.startswith(group + ":")]
        return int(dict(zip(lines[0], lines[1]))[name])

    def quiet(self):
        """No IPv6 chatter: what a raw socket sees is what the test sent."""
        self.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        self.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        return self


class Vswitchd:
    """A running daemon."""

    def __init__(self, lab, netns, config, extra=(), folder=None):
        self.netns = netns
        self.folder = Path(folder or tempfile.mkdtemp(prefix="d", dir=lab.folder))
        self.config_path = self.folder / "tenants.json"
        self.control = self.folder / "control.sock"
        self.log_path = self.folder / "log"
        self.write_config(config)
        self.log = open(self.log_path, "ab")
        command = [BUILD / "vswitch/daemon/vswitchd", "--config", self.config_path, "--control", self.control, *extra]
        self.process = netns.popen(*netns.with_nic(*command), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def write_config(self, config):
        self.config_path.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    def wait_ready(self):
        """Returns when the control socket answers; raises with the log when the daemon ended instead."""
        def ready():
            if self.process.poll() is not None:
                raise CommandError(f"vswitchd ended with {self.process.returncode}:\n{self.log_text()}")
            return self.control.exists() and self.ctl("version", check=False, parse=False).returncode == 0
        try:
            wait_until(ready, "vswitchd is not ready", timeout=15)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log_text()}") from None
        return self

    def ctl_command(self, *arguments):
        return [BUILD / "vswitch/ctl/vswitchctl", "--control", self.control, *arguments]

    def ctl(self, *arguments, check=True, parse=True):
        """vswitchctl's answer as Python values (parse=False: the CompletedProcess)."""
        done = self.netns.run(*self.ctl_command("--json", *arguments), check=check)
        return json.loads(done.stdout) if parse else done

    def stop(self, how=signal.SIGTERM, expect=0):
        """Ends the daemon and waits; SIGTERM must end it with status 0."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(timeout=20 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"vswitchd did not stop on signal {how}:\n{self.log_text()}") from None
        if how == signal.SIGTERM and status != expect:
            raise CommandError(f"vswitchd ended with {status}, not {expect}:\n{self.log_text()}")
        return status

    def kill(self):
        return self.stop(signal.SIGKILL)

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def close(self):
        """At the end of a test: a daemon that still runs must stop cleanly, and no sanitizer may have spoken."""
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.log.close()
        text = self.log_text()
        if "Sanitizer" in text or "runtime error:" in text:
            raise CommandError(f"a sanitizer found something:\n{text}")
        if "softnic: violation" in text:
            raise CommandError(f"the NIC's interface was used wrongly:\n{text}")


class Lab:
    """Owns what a scenario makes, and removes it."""

    def __init__(self):
        global _serial
        _serial += 1
        self.prefix = f"vsw{os.getpid()}x{_serial}"
        self.stack = ExitStack()
        self.folder = None

    def __enter__(self):
        if os.geteuid() != 0:
            raise PermissionError("the tests make network namespaces: run them as root")
        self.root_links = _links_of_this_namespace()
        # Path of a Unix socket: at most 107 bytes, so a short folder.
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="vsw", dir="/tmp"))
        # unittest runs no clean-up after an interrupt; the interpreter's end does.
        atexit.register(self.stack.close)
        signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *exception):
        atexit.unregister(self.stack.close)
        self.stack.close()
        left = [path.name for path in Path("/run/netns").glob(f"{self.prefix}-*")]
        assert not left, f"namespaces left behind: {left}"
        assert _links_of_this_namespace() == self.root_links, "the machine's own interfaces changed"
        return False

    def netns(self, name):
        netns = NetNs(f"{self.prefix}-{name}")
        run("ip", "netns", "add", netns.name)
        self.stack.callback(run, "ip", "netns", "del", netns.name, check=False)
        netns.ip("link", "set", "lo", "up")
        return netns

    def veth(self, left, left_name, right, right_name, left_mac=None, right_mac=None, mtu=1500):
        """A cable between two namespaces, up at both ends."""
        left.ip("link", "add", left_name, "mtu", mtu, *(["address", left_mac] if left_mac else []), "type", "veth",
                "peer", "name", right_name, "mtu", mtu, *(["address", right_mac] if right_mac else []), "netns",
                right.name)
        left.ip("link", "set", left_name, "up")
        right.ip("link", "set", right_name, "up")
        for netns, name in ((left, left_name), (right, right_name)):
            wait_until(lambda n=netns, i=name: n.links()[i]["operstate"] == "UP", f"{name} has no carrier")

    def address(self, netns, device, *addresses):
        for address in addresses:
            nodad = ["nodad"] if ipaddress.ip_interface(address).version == 6 else []
            netns.ip("addr", "add", address, "dev", device, *nodad)

    def daemon(self, netns, config, extra=(), folder=None, ready=True):
        daemon = Vswitchd(self, netns, config, extra, folder)
        self.stack.callback(daemon.close)
        return daemon.wait_ready() if ready else daemon

    def popen(self, netns, *command, **kwargs):
        """A process inside a namespace that ends with the lab at the latest."""
        process = netns.popen(*command, **kwargs)
        self.stack.callback(_end, process)
        return process


def _end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _links_of_this_namespace():
    return sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link").stdout))


# -- Leaving things as found ------------------------------------------------------------------------------------------

def snapshot(*namespaces, folder=None):
    """What a daemon could leave behind in these namespaces: netdevs and their settings, filter entries, multicast
    memberships, promiscuity, packet sockets, addresses, routes; and files in `folder`."""
    state = {}
    for netns in namespaces:
        with netns.inside():
            packet_sockets = len(Path("/proc/thread-self/net/packet").read_text().splitlines()) - 1
        state[netns.name] = {
            "links": {name: _lasting(link) for name, link in netns.links().items()},
            "fdb": sorted(json.dumps(e, sort_keys=True) for e in json.loads(
                run("bridge", "-n", netns.name, "-j", "fdb").stdout or "[]")),
            "memberships": sorted(
                (device["ifname"], m.get("link") or m.get("address"), m.get("users", 1))
                for device in json.loads(netns.ip("-j", "maddr").stdout) for m in device.get("maddr", [])),
            "addresses": sorted((d["ifname"], a["local"], a["prefixlen"]) for d in json.loads(
                netns.ip("-j", "addr").stdout) for a in d["addr_info"]),
            "routes": sorted(netns.ip("route", "show", "table", "all").stdout.splitlines()),
            "packet sockets": packet_sockets,
        }
    if folder is not None:
        state["files"] = sorted(p.name for p in Path(folder).iterdir())
    return state


def _lasting(link):
    """The part of a link's description that traffic alone does not change."""
    keep = ("flags", "mtu", "address", "promiscuity", "allmulti", "qdisc", "operstate", "txqlen", "master", "num_tx_queues")
    return {key: link.get(key) for key in keep}


def difference(before, after, path=""):
    """Lines that tell how two snapshots differ; empty when they do not."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for key in sorted({*before, *after}, key=str):
            lines += difference(before.get(key), after.get(key), f"{path}/{key}")
        return lines
    return [] if before == after else [f"{path}: was {before}, is {after}"]


# -- The usual topology -----------------------------------------------------------------------------------------------

HOST_MAC, WIRE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:ff"
HOST_V4, HOST_V6 = "198.18.0.1", "fd00::1"
WIRE_V4, WIRE_V6 = "198.18.0.254", "fd00::fe"


def ring_port(socket, mac, **keys):
    """A port of tenants.json: a ring that processes attach to through the Unix socket at path `socket`."""
    port = {"uplink": "lan", "type": "macvlan", "mac": mac, **keys}
    port["attach"] = {"kind": "ring", "socket": str(socket), **port.pop("ring", {})}
    return port


def tap_port(netns, mac, v4=None, v6=None, **keys):
    """A port of tenants.json: the netdev eth0 inside `netns`."""
    ips = [a for a in (v4 and f"{v4}/24", v6 and f"{v6}/64") if a]
    port = {"uplink": "lan", "type": "macvlan", "mac": mac, **({"ips": ips} if ips else {}), **keys}
    port["attach"] = {"kind": "tap", "netns": netns.path, "name": "eth0", **port.pop("tap", {})}
    return port


def configuration(ports, netdev="lan0", **workers):
    """tenants.json from {"tenant/port": port}."""
    tenants = {}
    for name, port in ports.items():
        tenant, port_name = name.split("/")
        tenants.setdefault(tenant, {"ports": {}})["ports"][port_name] = port
    return {"workers": workers, "uplinks": {"lan": {"netdev": netdev, "driver": UPLINK if netdev == "lan0" else "auto"}}, "tenants": tenants}


class Site:
    """A host whose lan0 leads to a peer on the wire, both with addresses, and namespaces of tenants. lan0 is one end of
    a veth pair or, where the uplink's driver is "verbs", the kernel's netdev of a software NIC (options: `nic`)."""

    def __init__(self, lab, *tenants, mtu=1500, addresses=True, nic=()):
        self.lab = lab
        self.host, self.wire = lab.netns("host"), lab.netns("wire")
        self.tenants = {name: lab.netns(name) for name in tenants}
        for netns in (self.host, self.wire, *self.tenants.values()):
            if addresses:
                netns.sysctl("net.ipv6.conf.default.accept_dad", 0)
            else:
                netns.quiet()
        if UPLINK == "verbs":
            self.plug_nic(mtu, nic)
        else:
            lab.veth(self.host, "lan0", self.wire, "w0", HOST_MAC, WIRE_MAC, mtu)
        if addresses:
            lab.address(self.host, "lan0", f"{HOST_V4}/24", f"{HOST_V6}/64")
            lab.address(self.wire, "w0", f"{WIRE_V4}/24", f"{WIRE_V6}/64")

    def plug_nic(self, mtu, options):
        sys.path.insert(0, str(ROOT / "tests" / "softnic"))
        from nic import SoftNic  # it needs this module
        cable = self.lab.netns("nic").quiet()
        self.lab.veth(cable, "cable0", self.wire, "w0", None, WIRE_MAC, mtu)
        self.host.nic = SoftNic(self.lab, self.host, (cable, "cable0"), "lan0", "--mac", HOST_MAC, "--mtu", mtu, *options,
                                neutral=NEUTRAL_NIC)

    def __getitem__(self, tenant):
        return self.tenants[tenant]

    def snapshot(self, folder=None):
        return snapshot(self.host, self.wire, *self.tenants.values(), folder=folder)


def ping(netns, address, count=3, size=56, fails=False, dont_fragment=False):
    """Pings; all echoes must come back (fails=True: none may)."""
    done = netns.run("ping", "-n", "-c", count, "-i", "0.05", "-W", int(2 * SLOW) if not fails else 1, "-s", size,
                     *(["-M", "do"] if dont_fragment else []), address, check=False)
    match = re.search(r"(\d+) received", done.stdout)
    received = int(match[1]) if match else 0
    if received != (0 if fails else count):
        raise AssertionError(f"{received} of {count} echoes from {address} in {netns.name}:\n{done.stdout}{done.stderr}")
