"""The verbs uplink on a software NIC, in one process with the switch and its tenant (uplink_verbs.cpp).

What is measured is our driver, the switch and libmlx5, not a NIC: there is no PCIe, and what the NIC wrote lies in the
cache of the core that its model runs on.
"""

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from callgrind import by_object
from lab import BUILD, Lab, run
from report import BenchError, Samples
from rings import SWITCH_CPU, TENANT_CPU, Program

MODES = ("direct", "staged")
COUNTED_FRAMES = 2048  # by callgrind, of each case
LIBRARIES = ("libmlx5", "libibverbs", "libc")


def arguments(folder, mode):
    return ["--folder", folder, "--cpu", SWITCH_CPU, "--nic-cpu", TENANT_CPU, "--mode", mode]


def uplink_verbs(options):
    samples = Samples("uplink_verbs", options.fifo)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        cases = {}
        for _ in range(options.runs):
            for mode in MODES:
                cases[mode] = speeds(lab, samples, options, mode)
        for mode in MODES:
            for case in cases[mode]:
                instructions(lab, samples, mode, case)
    samples.emit()


def speeds(lab, samples, options, mode):
    """One run of all cases of a mode; their names."""
    folder = tempfile.mkdtemp(prefix="u", dir=lab.folder)
    found = Program(lab, "uplink_verbs", *arguments(folder, mode), "--seconds", options.seconds / 5,
                    *(["--fifo"] if options.fifo else [])).result(timeout=60 + 30 * options.seconds)
    for result in found["cases"]:
        if not result["frames"]:
            raise BenchError(f"{result['case']}: every turn was interrupted; is the machine busy with something else?")
        samples.add(result["case"], "Mpps", result["mpps"])
        samples.add(f"{result['case']}-cycles", "cycles/frame", result["cycles"])
    samples.add("clock", "ns/turn", found["clock_ns"])
    return [result["case"] for result in found["cases"]]


def instructions(lab, samples, mode, case):
    """Counts instructions of the steps alone, by who executed them."""
    folder = tempfile.mkdtemp(prefix="u", dir=lab.folder)
    output = Path(folder) / "callgrind.out"
    program = BUILD / "tests/bench/uplink_verbs"
    # LD_BIND_NOW: what the dynamic linker does at first calls is nobody's.
    done = run(
        "valgrind", "--tool=callgrind", "--fair-sched=yes", "--collect-atstart=no", "--toggle-collect=*timed_steps*",
        f"--callgrind-out-file={output}", program, *arguments(folder, mode), "--case", case,
        "--frames", COUNTED_FRAMES, timeout=300, env={**os.environ, "LD_BIND_NOW": "1"})
    frames = json.loads(done.stdout.strip().splitlines()[-1])["cases"][0]["stepped"]
    counted = by_object(output.read_text())
    total = sum(counted.values())
    if not total:
        raise BenchError(f"{case}: callgrind counted nothing")
    samples.add(f"{case}-instructions", "instr/frame", total / frames)
    shares = {"ours": sum(cost for name, cost in counted.items() if name.endswith(program.name))}
    for library in LIBRARIES:
        shares[library] = sum(cost for name, cost in counted.items() if Path(name).name.startswith(f"{library}."))
    if rest := total - sum(shares.values()):
        shares["rest"] = rest
    for name, cost in shares.items():
        samples.add(f"{case}-instructions-{name}", "instr/frame", cost / frames)
