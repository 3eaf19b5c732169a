#!/usr/bin/env python3
"""The same frames through kernel macvlan and through vswitchd, on the same topology; deliveries side by side.

    tenant A ---+
    tenant B ---+--- host [lan0] ------- [w0] wire
    tenant C ---+

A, B and C are macvlan children of lan0 in one run, tap ports of vswitchd in the next, ring ports in the third. Every
difference from the kernel must be one of differences.py, and each of those must occur. A cell tells how many copies arrived ("-": none; "!" behind it: a copy
was altered). "host" counts what the host's network stack accepts, not what a packet tap on lan0 sees.

usage: macvlan_differential.py [--verbose]
"""

import sys
from pathlib import Path

from frames import COLUMNS, FRAMES, MAC, SCENARIOS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from differences import DIFFERENCES  # noqa: E402
from lab import Lab, Site, configuration, ring_port, tap_port  # noqa: E402
from raw import PACKET_OTHERHOST, PACKET_OUTGOING, TEST_ETHERTYPE, RawSocket, collect  # noqa: E402
from ring import RingClient  # noqa: E402


def deliveries(site, tenants):
    """{(frame class, column): cell}; `tenants` are the sockets of the tenants by name, closed at the end."""
    # The host's socket is the one that its network stack would be: it sees what is left for an ethertype.
    sockets = {"wire": RawSocket(site.wire, "w0"), "host": RawSocket(site.host, "lan0", TEST_ETHERTYPE), **tenants}
    try:
        collect(sockets, quiet=0.2)
        sent = {}
        for number, frame_class in enumerate(FRAMES):
            if frame_class.sender in sockets:
                sent[frame_class.name] = frame_class.frame(number)
                sockets[frame_class.sender].send(sent[frame_class.name])
        got = collect(sockets, quiet=0.35)
    finally:
        for socket in sockets.values():
            socket.close()
    cells = {}
    for frame_class in FRAMES:
        if frame_class.name in sent:
            for column in (c for c in COLUMNS if c in sockets and c != frame_class.sender):
                cells[frame_class.name, column] = cell(sent[frame_class.name], column, got[column])
    return cells


def cell(frame, column, received):
    strange = (PACKET_OTHERHOST, PACKET_OUTGOING) if column == "host" else (PACKET_OUTGOING,)
    copies = [data for data, kind in received if data[-16:] == frame[-16:] and kind not in strange]
    if not copies:
        return "-"
    return f"{len(copies)}{'' if all(c == frame for c in copies) else '!'}"


def kernel_deliveries(scenario):
    """Through children that `ip link add type macvlan` makes."""
    with Lab() as lab:
        site = Site(lab, *scenario.tenants, addresses=False)
        for name, mode in scenario.modes.items():
            site.host.ip("link", "add", "link", "lan0", "name", "child", "type", "macvlan", "mode", mode,
                         *(["nodst"] if scenario.nodst and mode == "source" else []))
            site.host.ip("link", "set", "child", "address", MAC[name])
            for mac in scenario.source_macs if mode == "source" else ():
                site.host.ip("link", "set", "child", "type", "macvlan", "macaddr", "add", mac)
            site.host.ip("link", "set", "child", "netns", site[name].name, "name", "eth0")
            site[name].ip("link", "set", "eth0", "up")
        return deliveries(site, netdevs(site))


def netdevs(site):
    return {name: RawSocket(netns, "eth0") for name, netns in site.tenants.items()}


def vswitch_deliveries(scenario, kind):
    """Through ports of vswitchd: kind "tap" or "ring"."""
    with Lab() as lab:
        site = Site(lab, *scenario.tenants, addresses=False)
        ports = {}
        for name, mode in scenario.modes.items():
            keys = {"mode": mode}
            if mode == "source":
                keys |= {"source_macs": list(scenario.source_macs), **({"nodst": True} if scenario.nodst else {})}
            if scenario.trusted:
                keys["trusted"] = True
            socket = f"{lab.folder}/{name}.sock"
            ports[f"{name}/port"] = (tap_port(site[name], MAC[name], **keys) if kind == "tap"
                                     else ring_port(socket, MAC[name], **keys))
        daemon = lab.daemon(site.host, configuration(ports))
        tenants = (netdevs(site) if kind == "tap"
                   else {name: RingClient(f"{lab.folder}/{name}.sock") for name in scenario.tenants})
        cells = deliveries(site, tenants)
        daemon.stop()
        return cells


def compare(scenario, occurred, verbose):
    """Prints the table of one scenario; returns its unexplained differences."""
    tables = {"kernel macvlan": kernel_deliveries(scenario), "vswitch tap": vswitch_deliveries(scenario, "tap"),
              "vswitch ring": vswitch_deliveries(scenario, "ring")}
    kernel, *others = tables.values()
    columns = [c for c in COLUMNS if any(column == c for _, column in kernel)]
    width = 5 * len(columns) + 3
    modes = " ".join(f"{name}={mode}" for name, mode in scenario.modes.items())
    print(f"\n{scenario.name}  ({modes})\n{'':32s}{''.join(f'{t:{width}s}' for t in tables)}")
    print(f"{'':32s}{''.join(''.join(f'{c:5s}' for c in columns) + '   ' for _ in tables)}")
    unexplained = []
    for frame_class in FRAMES:
        notes, differs = set(), False
        for column in columns:
            was = kernel.get((frame_class.name, column), "")
            for title, table in zip(list(tables)[1:], others):
                now = table.get((frame_class.name, column), "")
                if was == now:
                    continue
                known = [d for d in DIFFERENCES if d.matches(scenario.name, frame_class.name, column, was, now)]
                occurred.update(known)
                notes.update(d.why for d in known)
                if not known:
                    differs = True
                    unexplained.append(f"{scenario.name}: {frame_class.name}: {column}: kernel {was}, {title} {now}")
        text = "".join("".join(f"{t.get((frame_class.name, c), ''):5s}" for c in columns) + "   " for t in tables.values())
        mark = "DIFFERS" if differs else "*" if notes else ""
        print(f"{frame_class.name:32s}{text}{mark}{' ' + '; '.join(sorted(notes)) if verbose and notes else ''}".rstrip())
    return unexplained


def main():
    verbose = "--verbose" in sys.argv[1:]
    occurred, unexplained = set(), []
    for scenario in SCENARIOS:
        unexplained += compare(scenario, occurred, verbose)
    print("\n* differences on purpose:")
    for difference in DIFFERENCES:
        print(f"  {difference.scenario}: {difference.frame}: {difference.why}")
    stale = [d for d in DIFFERENCES if d not in occurred]
    for text in unexplained:
        print(f"UNEXPLAINED {text}")
    for difference in stale:
        print(f"DID NOT OCCUR {difference}")
    print(f"{len(SCENARIOS)} scenarios, {len(FRAMES)} frame classes: "
          f"{len(unexplained)} unexplained differences, {len(stale)} listed ones that did not occur")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
