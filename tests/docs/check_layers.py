#!/usr/bin/env python3
"""Includes point down only: fails on every #include that the order of layers does not allow.

The order (README.md draws it): base knows nothing of ours; net knows base; core knows net; and so on up to the daemon,
which knows everything. A file of a layer may always include its own layer.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT_INCLUDE = "ports/client/include"

# Longest prefix decides which layer a file belongs to.
LAYERS = {
    "vswitch/base/": "base",
    "vswitch/net/": "net",
    "vswitch/core/": "core",
    "vswitch/daemon/": "daemon",
    "vswitch/daemon/control_client.": "control client",
    "vswitch/daemon/unix_socket.": "control client",
    "vswitch/daemon/version.": "control client",
    "vswitch/ctl/": "ctl",
    "netlink/": "netlink",
    "config/": "config",
    "ports/client/": "client",
    "ports/registry.": "registry",
    "examples/": "examples",
    "tests/": "tests",
    "tests/softnic/": "softnic",
}
EVERYTHING = None

# What each layer may include besides itself. A value of core/spec.h alone is written as the file.
ALLOWED = {
    "base": set(),
    "net": {"base"},
    "core": {"base", "net"},
    "netlink": {"base", "net"},
    "config": {"base", "net", "vswitch/core/spec.h"},
    "port": {"base", "net", "core", "netlink"},
    "port ring": {"base", "net", "core", "netlink", "client"},
    "registry": {"base", "net", "core", "port", "port ring"},
    "client": set(),
    "control client": {"base"},
    "daemon": {"base", "net", "core", "netlink", "config", "registry", "port", "port ring", "client", "control client"},
    "ctl": {"base", "config", "control client"},
    "examples": {"client"},
    "tests": EVERYTHING,
    "softnic": set(),  # usable without vswitch, and no help to it in its own tests
}

# The tenant's library depends on libc alone: no header of another library may appear in it. C++ standard headers are
# for its header-only C++ wrapper.
LIBC_HEADER = re.compile(r"^(?:[a-z0-9_]+|(?:sys|linux|asm|bits|arpa|net|netinet)/[\w./-]+\.h|[a-z0-9_]+\.h)$")
LIBRARIES_WITHOUT_FOLDER = {"liburing.h", "numa.h", "pcap.h", "zlib.h", "cap-ng.h", "seccomp.h"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def sources():
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(f for f in set(listed) if f.endswith((".h", ".hpp", ".c", ".cpp")) and (ROOT / f).is_file())


def layer_of(path):
    """The layer of a file of the repository, or None where it belongs to none."""
    prefixes = [p for p in LAYERS if path.startswith(p)]
    if prefixes:
        return LAYERS[max(prefixes, key=len)]
    kind = re.match(r"ports/(\w+)/", path)
    if kind:
        return "port ring" if kind[1] == "ring" else "port"
    return None


def resolve(includer, quoted, name):
    """Path of the included file inside the repository, or None for a system header."""
    folders = ["", CLIENT_INCLUDE]
    if quoted:
        folders.insert(0, str(Path(includer).parent))
    for folder in folders:
        candidate = ROOT / folder / name
        if candidate.is_file():
            return str(candidate.resolve().relative_to(ROOT))
    # A generated header does not lie in the tree; its layer is told by its path.
    return name if quoted or layer_of(name) else None


def same_kind_of_port(a, b):
    """Whether two files of layer "port" lie in the same folder below ports/."""
    return a.split("/")[:2] == b.split("/")[:2]


def problem(includer, quoted, name):
    """What is wrong with one include, or None."""
    layer = layer_of(includer)
    if layer is None:
        return "the file belongs to no layer of the house"
    target = resolve(includer, quoted, name)
    if target is None:
        if layer == "client" and (not LIBC_HEADER.match(name) or name in LIBRARIES_WITHOUT_FOLDER):
            return f"{layer} may include headers of libc only"
        return None
    target_layer = layer_of(target)
    if target_layer is None:
        # A header beside its includer that is generated at build time.
        return None if quoted and "/" not in name else f"{target} belongs to no layer of the house"
    allowed = ALLOWED[layer]
    if allowed is EVERYTHING or target in allowed:
        return None
    if target_layer == layer:
        return None if layer != "port" or same_kind_of_port(includer, target) else "one kind of port includes another"
    return None if target_layer in allowed else f"{layer} may not include {target_layer}"


def check():
    """Yields "file:line: text" for every include that points the wrong way."""
    for file in sources():
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            wrong = problem(file, match[1] == '"', match[2])
            if wrong:
                yield f"{file}:{number}: {wrong}: {match[2]}"


def self_test():
    """The rule itself, on includes that must pass and must not."""
    good = [
        ("vswitch/core/table.h", True, "vswitch/net/mac.h"),
        ("config/load.h", True, "vswitch/core/spec.h"),
        ("ports/tap/tap_port.h", True, "vswitch/core/port.h"),
        ("vswitch/daemon/main.cpp", True, "vswitch/core/port.h"),
        ("ports/client/ring.c", False, "sys/socket.h"),
    ]
    bad = [
        ("vswitch/base/fd.h", True, "vswitch/net/mac.h"),
        ("vswitch/net/mac.h", True, "vswitch/core/port.h"),
        ("vswitch/core/table.h", True, "netlink/link.h"),
        ("vswitch/core/table.h", True, "ports/registry.h"),
        ("config/load.h", True, "vswitch/core/port.h"),
        ("ports/tap/tap_port.h", True, "ports/af_packet/af_packet_uplink.h"),
        ("ports/client/ring.c", True, "vswitch/base/fd.h"),
        ("ports/client/ring.c", False, "nlohmann/json.hpp"),
        ("ports/client/ring.c", False, "liburing.h"),
        ("vswitch/ctl/main.cpp", True, "vswitch/core/port.h"),
        ("tests/softnic/core/offload.h", True, "vswitch/net/checksum.h"),
    ]
    for case in good:
        assert problem(*case) is None, f"wrongly refused: {case}: {problem(*case)}"
    for case in bad:
        assert problem(*case) is not None, f"wrongly allowed: {case}"


def main():
    self_test()
    wrong = list(check())
    print("\n".join(wrong) if wrong else f"includes of {len(sources())} files point down only")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
