"""A tenant on a ring port, through the real libvswitch."""

import ctypes
import functools
import os
from pathlib import Path

from lab import BUILD

# A sanitized library cannot be loaded into an unsanitized Python: then the environment names another build's.
LIBRARY = Path(os.environ.get("VSWITCH_CLIENT_LIBRARY", BUILD / "ports/client/libvswitch.so"))
BATCH = 64
FEATURE_CSUM, FEATURE_TSO4 = 1, 2
NEEDS_CSUM = 1


class Offload(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint8), ("gso_type", ctypes.c_uint8), ("gso_size", ctypes.c_uint16),
                ("csum_start", ctypes.c_uint16), ("csum_offset", ctypes.c_uint16)]


class Frame(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("offload", Offload)]


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("features", ctypes.c_uint32), ("token", ctypes.c_char_p),
                ("timeout_ms", ctypes.c_int32), ("reserved", ctypes.c_uint32)]


class Address(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint8), ("prefix_length", ctypes.c_uint8), ("bytes", ctypes.c_uint8 * 16)]


class Info(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 128), ("mac", ctypes.c_uint8 * 6), ("vlan", ctypes.c_uint16),
                ("mtu", ctypes.c_uint32), ("queues", ctypes.c_uint32), ("ring_frames", ctypes.c_uint32),
                ("arena_bytes", ctypes.c_uint32), ("features", ctypes.c_uint32), ("attached", ctypes.c_uint32),
                ("attachments", ctypes.c_uint64), ("address_count", ctypes.c_uint32), ("addresses", Address * 8)]


@functools.cache
def library():
    """libvswitch, loaded once, with the types of its functions."""
    loaded = ctypes.CDLL(str(LIBRARY))
    pointer, u32 = ctypes.c_void_p, ctypes.c_uint32
    loaded.vswitch_attach.argtypes = [ctypes.c_char_p, ctypes.POINTER(Options), ctypes.POINTER(pointer)]
    loaded.vswitch_attach_error.restype = ctypes.c_char_p
    loaded.vswitch_detach.argtypes = [pointer]
    loaded.vswitch_info.argtypes = [pointer, ctypes.POINTER(Info)]
    for name in ("vswitch_tx_reserve", "vswitch_rx_peek"):
        getattr(loaded, name).argtypes = [pointer, u32, ctypes.POINTER(Frame), u32]
        getattr(loaded, name).restype = u32
    loaded.vswitch_tx_commit.argtypes = [pointer, u32, ctypes.POINTER(Frame), u32]
    loaded.vswitch_rx_release.argtypes = [pointer, u32, u32]
    loaded.vswitch_wait.argtypes = [pointer, u32, ctypes.c_int]
    loaded.vswitch_set_features.argtypes = [pointer, u32]
    loaded.vswitch_frame_partial_checksum.argtypes = [ctypes.POINTER(Frame)]
    loaded.vswitch_frame_segment.argtypes = [ctypes.POINTER(Frame), ctypes.c_uint16]
    return loaded


class RingClient:
    """An attached ring port; sends and receives as a RawSocket does. Queue pair 0, or the one given."""

    def __init__(self, path, token=None, features=0):
        self.library = library()
        self.port = ctypes.c_void_p()
        options = Options(size=ctypes.sizeof(Options), features=features, token=token and token.encode(),
                          timeout_ms=5000)
        status = self.library.vswitch_attach(str(path).encode(), ctypes.byref(options), ctypes.byref(self.port))
        if status:
            raise OSError(-status, self.library.vswitch_attach_error().decode(), str(path))
        self.frames = (Frame * BATCH)()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.port:
            self.library.vswitch_detach(self.port)
            self.port = ctypes.c_void_p()

    def info(self):
        info = Info()
        self.library.vswitch_info(self.port, ctypes.byref(info))
        return info

    def set_features(self, features):
        status = self.library.vswitch_set_features(self.port, features)
        if status:
            raise OSError(-status, os.strerror(-status))

    def send(self, frame, queue=0, segment=0):
        """Sends one frame; raises BlockingIOError when there is no room. @param segment unfinished, to be cut into
        segments of so many payload bytes"""
        self.frames[0].length = len(frame)
        if self.library.vswitch_tx_reserve(self.port, queue, self.frames, 1) != 1:
            raise BlockingIOError("no room in the ring")
        ctypes.memmove(self.frames[0].data, frame, len(frame))
        self.frames[0].length = len(frame)
        if segment:
            status = self.library.vswitch_frame_segment(self.frames, segment)
            if status:
                raise OSError(-status, os.strerror(-status))
        self.library.vswitch_tx_commit(self.port, queue, self.frames, 1)

    def receive(self, queue=0):
        """(frame, offload flags) or None."""
        if self.library.vswitch_rx_peek(self.port, queue, self.frames, 1) != 1:
            return None
        frame = ctypes.string_at(self.frames[0].data, self.frames[0].length)
        flags = self.frames[0].offload.flags
        self.library.vswitch_rx_release(self.port, queue, 1)
        return frame, flags

    def wait(self, timeout_ms, queue=0):
        return self.library.vswitch_wait(self.port, queue, timeout_ms)

    def look(self):
        """As a tenant that reads all it gets, for a moment; what is known then. (Who leaves a frame unread is never
        told of more.)"""
        while self.wait(10) == 1:
            self.receive()
        return self.info()
