"""What a benchmark prints: one JSON object a line, with where and how it was measured."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

from lab import BUILD


class BenchError(Exception):
    """What was measured is not what should have been: the figure would be worthless."""


def say(text):
    """For whoever watches; results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


class Samples:
    """Values of a benchmark's cases, in the order in which cases first came, and what they were measured on."""

    def __init__(self, bench, fifo=False):
        self.bench = bench
        self.fifo = fifo
        self.values = {}
        self.units = {}

    def add(self, case, unit, value):
        self.values.setdefault(case, []).append(value)
        self.units[case] = unit
        say(f"  {self.bench} {case}: {rounded(value)} {unit}")

    def ratio(self, case, numerator, denominator):
        """Adds a case: the ratio of two cases' medians; its min and max are those of single runs side by side."""
        above, below = self.values[numerator], self.values[denominator]
        if not all(below):
            raise BenchError(f"{denominator}: a run measured nothing; is the machine busy with something else?")
        pairs = [a / b for a, b in zip(above, below, strict=True)]
        self._print(case, f"{numerator}/{denominator}", statistics.median(above) / statistics.median(below), pairs)

    def emit(self):
        for case, values in self.values.items():
            self._print(case, self.units[case], statistics.median(values), values)

    def _print(self, case, unit, median, values):
        print(json.dumps({"bench": self.bench, "case": case, "unit": unit, "median": rounded(median),
                          "min": rounded(min(values)), "max": rounded(max(values)), "runs": len(values),
                          "env": environment(self.fifo)}), flush=True)


def rounded(value):
    return float(f"{value:.4g}")


def environment(fifo):
    cache = _cmake_cache()
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0],
            "compiler": _compiler(cache), "build": cache.get("CMAKE_BUILD_TYPE", ""),
            "page": os.sysconf("SC_PAGE_SIZE"), "fifo": fifo}


def _cpu_model():
    match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return match[1] if match else platform.machine()


def _cmake_cache():
    text = (BUILD / "CMakeCache.txt").read_text()
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.M))


def _compiler(cache):
    return subprocess.run([cache["CMAKE_CXX_COMPILER"], "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]
