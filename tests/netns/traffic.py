"""Traffic that counts: iperf3 between namespaces, and numbered frames of which none may be lost or overtaken."""

import json
import multiprocessing
import signal
import struct
import subprocess
import time

from lab import SLOW, UPLINK, wait_until
from raw import TEST_ETHERTYPE, RawSocket, ethernet

FORK = multiprocessing.get_context("fork")

# Of the segments of one TCP connection. A software NIC is slower than TCP at its start: what the uplink has no room for
# is dropped.
RETRANSMITTED = 0.1 if UPLINK == "verbs" else 0.01


class Iperf:
    """What one run of iperf3 measured."""

    def __init__(self, report, bad_checksums):
        self.gbits = report["end"]["sum_received"]["bits_per_second"] / 1e9
        sent = report["end"]["sum_sent"]
        self.segments = sent["bytes"] / 1400
        self.retransmits = sent.get("retransmits", 0)
        self.bad_checksums = bad_checksums

    def __str__(self):
        return f"{self.gbits:.2f} Gbit/s, {self.retransmits} retransmissions, {self.bad_checksums} bad checksums"


def iperf(lab, client, server, address, seconds=2, reverse=False):
    """TCP from `client` to `address` in `server` (reverse=True: from server to client)."""
    before = client.counter("Tcp", "InCsumErrors") + server.counter("Tcp", "InCsumErrors")
    listener = lab.popen(server, "iperf3", "-s", "-1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: ":5201" in server.run("ss", "-Hltn").stdout, "iperf3 does not listen")
    try:
        done = client.run("iperf3", "-J", "-c", address, "-t", seconds, *(["-R"] if reverse else []), check=False,
                          timeout=seconds + 30)
        report = json.loads(done.stdout)
        if done.returncode:
            raise AssertionError(f"iperf3: {report.get('error', done.stderr)}")
    finally:
        listener.terminate()
        listener.wait()
    after = client.counter("Tcp", "InCsumErrors") + server.counter("Tcp", "InCsumErrors")
    return Iperf(report, after - before)


class CountedFlow:
    """Numbered frames from one interface to another at a steady rate, in two processes of their own.

        with CountedFlow(...) as flow:
            ...
        flow.sent, flow.lost, flow.reordered
    """

    BURST, PAUSE = 4, 0.001  # about 4,000 frames a second: a late wake-up of some 100 ms still fits into the queues
    LEAST = 1001  # frames, however soon the block ends

    def __init__(self, sender, sender_mac, receiver, receiver_mac, device="eth0", flow_id=1,
                 sender_device=None):
        # A queue of the interface that overflows while this process is not scheduled would look like a lost frame.
        sender_device = sender_device or device
        for netns, name in ((sender, sender_device), (receiver, device)):
            netns.ip("link", "set", name, "txqueuelen", 10000)
        self.head = ethernet(receiver_mac, sender_mac)[:14] + struct.pack("!I", flow_id)
        self.source, self.sink = RawSocket(sender, sender_device), RawSocket(receiver, device, TEST_ETHERTYPE)
        self.stop, self.total, self.result = FORK.Event(), FORK.Queue(), FORK.Queue()
        self.processes = [FORK.Process(target=t, daemon=True) for t in (self._receive, self._send)]

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *exception):
        self.stop.set()
        try:
            if exception[0] is None:
                self.sent, self.received, self.reordered = self.result.get(timeout=60 * SLOW)
                self.lost = self.sent - self.received
        finally:
            for process in self.processes:
                process.terminate()
                process.join()
            self.source.close()
            self.sink.close()
        return False

    def _send(self):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        number = 0
        while not self.stop.is_set() or number < self.LEAST:
            for _ in range(self.BURST):
                self.source.send((self.head + struct.pack("!Q", number)).ljust(60, b"\0"))
                number += 1
            time.sleep(self.PAUSE)
        self.total.put(number)

    def _receive(self):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        received = reordered = 0
        highest, total, quiet_since = -1, None, None
        while True:
            item = self.sink.receive()
            if item is not None:
                if item[0].startswith(self.head):
                    number = struct.unpack_from("!Q", item[0], len(self.head))[0]
                    received += 1
                    reordered += number <= highest
                    highest = max(highest, number)
                    quiet_since = None
                continue
            if total is None and self.stop.is_set():
                total = self.total.get()
            quiet_since = quiet_since or time.monotonic()
            if total is not None and (received >= total or time.monotonic() - quiet_since > 1.0 * SLOW):
                self.result.put((total, received, reordered))
                return
            time.sleep(0.0005)
