"""A switch with ring ports r0, r1, ... and the programs that attach to them.

    r0 --+
    r1 --+-- vswitchd (worker on CPU 0) -- [lan0] ------- [w0] wire
    ...  |
    rN --+       tenants: one process on CPU 1
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from lab import BUILD, SLOW, CommandError, Lab, Site
from report import BenchError

SWITCH_CPU, TENANT_CPU = 0, 1
MTU = 2000  # above all sizes measured


def mac_of(port, which=0):
    """As mac_of() in frames.h."""
    return f"02:00:{port >> 8:02x}:{port & 255:02x}:{which >> 8:02x}:{which & 255:02x}"


def ring_ports(folder, count, macs=1, first=0, **ring):
    """Ports of tenants.json, {"tI/p": port}, each with `macs` addresses."""
    ports = {}
    for i in range(first, first + count):
        more = {"macs": [mac_of(i, which) for which in range(1, macs)]} if macs > 1 else {}
        ports[f"t{i}/p"] = {"uplink": "lan", "mac": mac_of(i), **more,
                            "attach": {"kind": "ring", "socket": f"{folder}/r{i}", **ring}}
    return ports


def configuration(ports, cpus=(SWITCH_CPU,)):
    tenants = {}
    for name, port in ports.items():
        tenant, port_name = name.split("/")
        tenants.setdefault(tenant, {"ports": {}})["ports"][port_name] = port
    return {"workers": {"cpus": list(cpus), "idle": "adaptive"}, "uplinks": {"lan": {"netdev": "lan0"}},
            "tenants": tenants}


class Program:
    """One of this folder's programs. The first line it prints says that it is ready, the last one is its result."""

    def __init__(self, lab, name, *arguments):
        command = [BUILD / "tests/bench" / name, *arguments]
        self.name = name
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        lab.stack.callback(self.close)

    def wait_ready(self):
        line = self.process.stdout.readline()
        if not line:
            self._fail()
        return self

    def result(self, timeout=60):
        """What it found when it has ended by itself."""
        try:
            output, self.errors = self.process.communicate(timeout=timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._fail()
        if self.process.returncode:
            raise CommandError(f"{self.name}: exit {self.process.returncode}\n{self.errors}")
        return json.loads(output.strip().splitlines()[-1])

    def stop(self):
        """Ends it by SIGTERM; what it found."""
        self.process.terminate()
        return self.result()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()
        self.process.stderr.close()

    def _fail(self):
        self.process.kill()
        _, errors = self.process.communicate()
        raise CommandError(f"{self.name} did not do its work: {errors}")


class Rings:
    """A lab with a switch that has ring ports; and tenants for them."""

    def __init__(self, stack, fifo=False):
        self.lab = stack.enter_context(Lab())
        self.fifo = fifo
        self.site = Site(self.lab, addresses=False, mtu=MTU)
        self.folder = self.new_folder()

    def new_folder(self):
        return tempfile.mkdtemp(prefix="s", dir=self.lab.folder)

    def start(self, ports):
        self.daemon = self.lab.daemon(self.site.host, configuration(ports))
        self.realtime(self.daemon.pid)
        return self.daemon

    def realtime(self, pid):
        """All threads of the daemon, if all that is pinned is to run so; the control thread, pinned nowhere, above the
        others, or a tenant that polls would keep it from ever running."""
        if self.fifo:
            for task in Path(f"/proc/{pid}/task").iterdir():
                priority = 51 if int(task.name) == pid else 50
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(priority))

    def program(self, name, *arguments, cpu=TENANT_CPU, folder=None):
        placement = ["--cpu", cpu, *(["--fifo"] if self.fifo else [])]
        return Program(self.lab, name, "--folder", folder or self.folder, *placement, *arguments)

    def flow(self, seconds, *arguments, folder=None, patience=60):
        """Traffic for a moment, checked."""
        program = self.program("ring_flow", "--seconds", seconds, *arguments, folder=folder)
        return check(program.result(timeout=seconds + patience))

    def drops(self, port):
        """Why frames of a port were dropped, and how many."""
        return self.counters(port)["drops"]

    def counters(self, port):
        ports = {entry["name"]: entry for entry in self.daemon.ctl("stats")["ports"]}
        return ports[port]


def check(found):
    """No frame with wrong bytes, none overtaken."""
    if found["wrong"] or found["reordered"]:
        raise BenchError(f"{found['wrong']} wrong frames, {found['reordered']} out of order: {found}")
    return found
