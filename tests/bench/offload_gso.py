"""Software segmentation and merging on the way into a ring port: one process, no daemon, the switch's own code."""

from contextlib import ExitStack

from lab import Lab
from report import Samples
from rings import TENANT_CPU, Program


def offload_gso(options):
    samples = Samples("offload_gso", options.fifo)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for _ in range(options.runs):
            arguments = ["--seconds", options.seconds / 5, "--cpu", TENANT_CPU, *(["--fifo"] if options.fifo else [])]
            for case, rate in Program(lab, "gso_speed", *arguments).result().items():
                samples.add(case, "Gbit/s", rate)
    samples.emit()
    for case in ("gso-64k-1448", "gso-64k-1448-partial", "gso-64k-8948", "uso-64k-1472"):
        samples.ratio(f"ratio-{case}", case, "copy-64k")
    samples.ratio("ratio-gro-64x1514", "gro-64x1514", "copy-64x1514")
