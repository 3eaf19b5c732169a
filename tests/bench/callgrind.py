"""Instructions by object, out of a file that callgrind wrote."""

import re
from collections import Counter

NAMED = re.compile(r"(c?)ob=\((\d+)\)(?: (.*))?$")
COST = re.compile(r"[+\-*\d]\S* (\d+)$")


def by_object(text):
    """{path of the executable or library: instructions executed in it}. The format: manual of valgrind, "Callgrind Format
    Specification": a name stands behind its number once; the line after `calls=` is what the called one cost."""
    names, costs = {}, Counter()
    current, is_call = None, False
    for line in text.splitlines():
        if named := NAMED.match(line):
            called, number, name = named.groups()
            if name is not None:
                names[number] = name
            if not called:
                current = number
        elif line.startswith("calls="):
            is_call = True
        elif cost := COST.match(line):
            if not is_call:
                costs[current] += int(cost[1])
            is_call = False
    return {names[number]: cost for number, cost in costs.items()}
