"""Raw Ethernet frames through AF_PACKET sockets, VLAN tags and packet types included."""

import socket
import struct
import time

from lab import SLOW

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 1, 8, 23
PACKET_MR_PROMISC = 1
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x10, 0x40
PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST, PACKET_OUTGOING = range(5)

TEST_ETHERTYPE = 0x88b5  # IEEE 802 local experimental


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def tag(vid, pcp=0, tpid=0x8100):
    """An 802.1Q tag as it stands in a frame."""
    return struct.pack("!HH", tpid, pcp << 13 | vid)


def ethernet(dst, src, payload=b"", ethertype=TEST_ETHERTYPE, tags=b""):
    """One frame, padded to the minimum of 60 bytes."""
    frame = mac_bytes(dst) + mac_bytes(src) + tags + struct.pack("!H", ethertype) + payload
    return frame.ljust(60, b"\0")


class RawSocket:
    """All frames of one interface. Tags that the kernel keeps beside a frame are put back into it."""

    def __init__(self, netns, device, protocol=ETH_P_ALL, promiscuous=False):
        """@param protocol ETH_P_ALL taps the device; an ethertype gets what the network stack itself would"""
        with netns.inside():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            if protocol == ETH_P_ALL:
                self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
            if promiscuous:
                index = socket.if_nametoindex(device)
                self.socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP,
                                       struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b""))
            self.socket.bind((device, protocol))
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, frame):
        self.socket.send(frame)

    def receive(self):
        """(frame, packet type) or None."""
        try:
            data, ancillary, _, address = self.socket.recvmsg(70000, socket.CMSG_SPACE(20))
        except BlockingIOError:
            return None
        for level, kind, value in ancillary:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value[:20])
                if status & TP_STATUS_VLAN_VALID:
                    tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data, address[2]

    def read_all(self):
        """Everything that is there now: [(frame, packet type), ...]."""
        return list(iter(self.receive, None))


def collect(sockets, quiet=0.25, timeout=10.0):
    """Everything that arrives at {name: RawSocket or RingClient} until nothing has come for `quiet` seconds (longer where
    all is slow): {name: [(frame, packet type), ...]}."""
    got = {name: [] for name in sockets}
    start = last = time.monotonic()
    while time.monotonic() - last < quiet * SLOW:
        for name, one in sockets.items():
            while (item := one.receive()) is not None:
                got[name].append(item)
                last = time.monotonic()
        if last - start > timeout * SLOW:
            raise TimeoutError("frames keep coming")
        time.sleep(0.005)
    return got


def exchange(sockets, sender, frame, quiet=0.25):
    """Sends one frame; returns {name: [frame, ...]} of the copies that others received of it, by its payload."""
    payload = frame[-40:]
    sockets[sender].send(frame)
    got = collect(sockets, quiet)
    return {name: [f for f, _ in frames if f[-40:] == payload] for name, frames in got.items() if name != sender}
