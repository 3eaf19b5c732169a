"""The Internet checksum beside memcpy() and the kernel's: one process, no daemon, the switch's own code."""

from lab import Lab
from report import Samples
from rings import TENANT_CPU, Program

SIZES = (64, 256, 1500, 9000, 65536)


def offload_checksum(options):
    samples = Samples("offload_checksum", options.fifo)
    with Lab() as lab:
        for _ in range(options.runs):
            arguments = ["--seconds", options.seconds / 10, "--cpu", TENANT_CPU, *(["--fifo"] if options.fifo else [])]
            for case, rate in Program(lab, "checksum_speed", *arguments).result().items():
                samples.add(case, "GB/s", rate)
    samples.emit()
    samples.ratio("ratio-copy-1500", "copy-1500", "memcpy-1500")
    samples.ratio("ratio-add-1500", "add-1500", "memcpy-1500")
    for size in SIZES:
        if f"kernel-csum-partial-{size}" in samples.values:  # what BPF may do differs from kernel to kernel
            samples.ratio(f"ratio-kernel-{size}", f"add-{size}", f"kernel-csum-partial-{size}")
