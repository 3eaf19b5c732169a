"""A software RDMA NIC inside a network namespace, for Python tests.

    with Lab() as lab:
        host, nic_ns, wire = (lab.netns(name).quiet() for name in ("host", "nic", "wire"))
        lab.veth(nic_ns, "cable0", wire, "w0", ...)
        nic = SoftNic(lab, host, wire=(nic_ns, "cable0"), kernel="lan0")
        nic.run("ibv_devinfo")
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))
from lab import BUILD, run, wait_until  # noqa: E402

SOFTNIC = BUILD / "tests" / "softnic" / "softnic"
DROPS = ("drop_rule", "drop_no_buffer", "drop_length", "drop_protection", "drop_queue_state", "drop_cq_overrun",
         "drop_channel_full")


class SoftNic:
    """`softnic serve` in a namespace; ends with the lab. `wire`: namespace and netdev of the cable's end. `neutral`:
    programs run on the drop-in libibverbs, which knows no mlx5."""

    def __init__(self, lab, netns, wire, kernel, *options, name="mlx5_0", neutral=False):
        self.netns = netns
        self.run_words = (SOFTNIC, "run", "--neutral") if neutral else (SOFTNIC, "run")
        self.lab = lab
        self.folder = Path(tempfile.mkdtemp(prefix="nic", dir=lab.folder))
        self.serve_words = (SOFTNIC, "serve", self.folder, "--name", name,
                            "--port", f"wire={wire[1]}@{wire[0].name},kernel={kernel}", *options)
        self.plug()

    def plug(self):
        """The NIC is there from now on; counters start at 0."""
        self.process = self.lab.popen(self.netns, *self.serve_words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True)
        self.lab.stack.callback(self.process.stdout.close)
        first = self.process.stdout.readline()
        if first != "ready\n":
            raise AssertionError(f"softnic serve: {first}{self.process.stdout.read()}")

    def unplug(self):
        """The NIC and its netdev are gone until plug()."""
        self.process.terminate()
        self.process.wait()

    def program(self, *program):
        """The command line that runs `program` so that it sees this NIC, wherever it is called."""
        return [*self.run_words, self.folder, "--", *program]

    def command(self, *program):
        """The command line that runs `program` in the NIC's namespace so that it sees this NIC."""
        return self.netns.command(*self.program(*program))

    def run(self, *program, **kwargs):
        return run(*self.command(*program), **kwargs)

    def popen(self, lab, *program, **kwargs):
        return lab.popen(self.netns, *self.run_words, self.folder, "--", *program, **kwargs)

    def counters(self):
        lines = run(SOFTNIC, "counters", self.folder).stdout.splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    def link(self, port, state):
        run(SOFTNIC, "link", self.folder, port, state)

    def fault(self, *words):
        run(SOFTNIC, "fault", self.folder, *words)

    def settled(self):
        """The counters once they stand still: every frame has arrived or was dropped."""
        state = {"last": None}

        def same():
            now = self.counters()
            stands, state["last"] = now == state["last"], now
            return stands
        wait_until(same, "the NIC's counters stand still", interval=0.1)
        return state["last"]
