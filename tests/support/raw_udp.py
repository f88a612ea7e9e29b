"""Packets over UDP by hand, from r2-protocol(7), PACKETS: all that is raw about UDP is here.

    packet, data, ack, parse    one packet as bytes, and back
    UdpPeer                     one side of a reliable stream in packets, as far as loopback needs it
    sources                     sockets that send from many loopback addresses

Nothing here imports r2box.  `opening` is what a sender begins with, and `shown` what it sends again when the listener
has answered with a cookie, which only who gets what is sent to its address can do.
"""

from __future__ import annotations

import binascii
import os
import random
import select
import socket
import struct
import time
import zlib

from .raw import MAGIC, RawLink

SYNC = b"\xc1\x9e"
DATA, ACK, GONE, COOKIE = 1, 2, 3, 4
BODY = 1182  # bytes of a body at most
PAYLOAD = BODY - 8  # of DATA
SMALL = 1100  # of it, behind a cookie
AGAIN = 0.3  # seconds until a packet is sent again
WINDOW = 1 << 20  # bytes in flight: loopback and its socket buffers take this


def packet(kind: int, sender: int, receiver: int, body: bytes = b"") -> bytes:
    head = struct.pack(">HII", kind << 12 | len(body), sender, receiver)
    whole = SYNC + head + struct.pack(">H", binascii.crc_hqx(head, 0xFFFF)) + body
    return whole + struct.pack("<I", zlib.crc32(whole))


def data(sender: int, receiver: int, tx: int, offset: int, payload: bytes) -> bytes:
    return packet(DATA, sender, receiver, struct.pack(">II", tx & 0xFFFFFFFF, offset & 0xFFFFFFFF) + payload)


def ack(sender: int, receiver: int, tx: int, offset: int, window: int = 4096) -> bytes:
    clock = int(time.monotonic() * 125000) & 0xFFFFFFFF
    return packet(ACK, sender, receiver, struct.pack(">IIHHI", tx, clock, 0, window, offset))


def opening(sender: int) -> bytes:
    """The first packet of somebody who says no more than a preamble."""
    return data(sender, 0, 0, 0, MAGIC)


def shown(sock: socket.socket, sender: int, limit: float = 1.0) -> bytes:
    """The cookie that the listener wants to see before whatever is sent to it; nothing if it wants none."""
    sock.send(opening(sender))
    if not select.select([sock], [], [], limit)[0]:
        return b""
    kind, _, _, body = parse(sock.recv(2048))
    return packet(COOKIE, sender, 0, body) if kind == COOKIE else b""


def smallest() -> bytes:
    """18 bytes that are a packet."""
    return packet(DATA, random.randrange(1, 1 << 32), 0)


def parse(raw: bytes) -> tuple[int, int, int, bytes]:
    """(kind, sender, receiver, body) of a datagram with one whole packet."""
    assert raw[:2] == SYNC, f"no packet: {raw[:16]!r}"
    kind_size, sender, receiver = struct.unpack_from(">HII", raw, 2)
    return kind_size >> 12, sender, receiver, raw[14 : 14 + (kind_size & 0xFFF)]


def connected(port: int, source: str = "") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if source:
        sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def loopback(dice: random.Random) -> str:
    """One of the 16 million addresses of this host, and none that anybody honest uses."""
    return f"127.{dice.randrange(10, 250)}.{dice.randrange(250)}.{dice.randrange(1, 250)}"


class UdpPeer:
    """A reliable stream to the listener at `port`.  `sock` is an end of a socketpair on which a RawLink speaks."""

    def __init__(self, port: int, source: str = "") -> None:
        self.udp = connected(port, source)
        self.me = int.from_bytes(os.urandom(4), "big") | 1
        self.them = 0
        self.sock, self._inner = socket.socketpair()
        self._inner.setblocking(False)
        self._tx = self._acked = self._sent = 0  # numbers of packets, of bytes
        self._kept = bytearray()  # from `_acked` on
        self._taken = 0  # bytes of the neighbour's stream
        self._late: dict[int, bytes] = {}
        self._cookie = b""  # the packet that shows it
        self._moved = time.monotonic()
        self.is_over = False

    def turn(self, seconds: float) -> None:
        """What has come either way is passed on."""
        readable, _, _ = select.select([self.udp, self._inner], [], [], seconds)
        if self._inner in readable and len(self._kept) < WINDOW:
            more = self._inner.recv(1 << 16)
            self.is_over = self.is_over or not more
            self._kept += more
        for _ in range(64):
            try:
                raw = self.udp.recv(2048)
            except BlockingIOError:
                break
            except OSError:
                self.is_over = True
                break
            self._take(raw)
        self._send()

    def _take(self, raw: bytes) -> None:
        kind, sender, _, body = parse(raw)
        self.them = self.them or sender
        if kind == DATA:
            tx, offset = struct.unpack_from(">II", body)
            self._late[offset] = body[8:]
            while self._taken in self._late:
                piece = self._late.pop(self._taken)
                self._taken += len(piece)
                if not piece:
                    break
                self._inner.sendall(piece)
            self.udp.send(ack(self.me, self.them, tx, self._taken))
        elif kind == ACK:
            offset = struct.unpack_from(">I", body, 12)[0]
            if offset > self._acked:
                del self._kept[: offset - self._acked]
                self._acked, self._moved = offset, time.monotonic()
                self._sent = max(self._sent, offset)
        elif kind == GONE:
            self.is_over = True
        elif kind == COOKIE:
            self._cookie = packet(COOKIE, self.me, 0, body)
            self._sent = self._acked

    def _send(self) -> None:
        now = time.monotonic()
        if self._sent > self._acked and now - self._moved > AGAIN:
            self._sent, self._moved = self._acked, now
        for _ in range(32):  # no more than a socket's buffer has room for
            most = PAYLOAD if self.them else SMALL  # there is a cookie in front
            piece = bytes(self._kept[self._sent - self._acked :][:most])
            if not piece:
                break
            lead = b"" if self.them else self._cookie
            self.udp.send(lead + data(self.me, self.them, self._tx, self._sent, piece))
            self._tx += 1
            self._sent += len(piece)

    def close(self) -> None:
        for sock in (self.udp, self._inner):
            sock.close()


def dial(name: str, port: int, source: str = "", limit: float = 10.0) -> tuple[RawLink, UdpPeer]:
    """A link over UDP, up.  `turn` of the peer moves its bytes.  ConnectionError as RawLink.greet."""
    peer = UdpPeer(port, source)
    link = RawLink(name, peer.sock)
    link.send(MAGIC + link.hello())
    until = time.monotonic() + limit
    said_ready = False
    while not (said_ready and link.heard[2]):
        if link.reason or peer.is_over or time.monotonic() > until:
            raise ConnectionError(link.reason or "no handshake in time")
        peer.turn(0.01)
        link.read()
        if link.heard[1] and not said_ready:
            said_ready = True
            link.send(link.ready())
    link.is_up = True
    return link, peer
