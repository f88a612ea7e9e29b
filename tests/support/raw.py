"""The wire by hand, from r2-protocol(7): a client that can send what r2box would not.

    varint, field, frame    values as bytes
    Frames                  bytes as frames
    RawLink                 a link over a stream socket, from the preamble on
    RawClient               a client on a control socket, which may send descriptors
    run                     drives many links at once, each at its own rate

Nothing here imports r2box, so that a fault of its codec cannot hide itself.  Sizes are bytes, rates bytes a second, and
times seconds of `time.monotonic`.
"""

from __future__ import annotations

import array
import collections
import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence

MAGIC = bytes.fromhex("b272320d0a1a0a00")
HELLO, READY, BYE, PING, PONG, MESSAGE, OPEN, ACCEPT, DATA, CREDIT, FIN, STOP, CLOSE = range(1, 14)
REACH = 0x80
ASK_PING, ASK_LIST, ASK_TUNNEL, IS_LISTING, IS_ERROR = 0x01, 0x02, 0x03, 0x41, 0x48
NAMES = {HELLO: "HELLO", READY: "READY", BYE: "BYE", PING: "PING", PONG: "PONG", MESSAGE: "MESSAGE", OPEN: "OPEN",
         ACCEPT: "ACCEPT", DATA: "DATA", CLOSE: "CLOSE", REACH: "REACH"}  # fmt: skip
MAX_CREDIT = (1 << 28) - 1
CHUNK = 1 << 18  # bytes to read at once
DIAL = 10.0  # seconds for a handshake
STUCK = 10.0  # seconds in which a neighbour that takes nothing more has stopped

_chunk = bytearray(CHUNK)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag: int, value: bytes | str | int) -> bytes:
    data = varint(value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    return varint(tag) + varint(len(data)) + data


def frame(kind: int, route: int = 0, payload: bytes = b"") -> bytes:
    return bytes((kind,)) + varint(route) + varint(len(payload)) + payload


def fields(data: bytes) -> dict[int, bytes]:
    """By tag; of one that comes twice, the last."""
    found, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        size, at = read_varint(data, at)
        found[tag] = data[at : at + size]
        at += size
    return found


def message(path: str, body: bytes, origin: str = "", descriptors: int = 0) -> bytes:
    payload = (field(1, path) if path else b"") + (field(2, origin) if origin else b"") + field(3, body)
    return frame(MESSAGE, 0, payload + (field(4, descriptors) if descriptors else b""))


def body(kind: int, id: int, rest: bytes = b"") -> bytes:
    return varint(kind) + varint(id) + rest


def open_frame(label: int, path: str, window: int = 1 << 18) -> bytes:
    return frame(OPEN, label << 1, (field(1, path) if path else b"") + field(3, window))


def reach(address_identity: bytes, services: Sequence[str] = (), number: int = 0) -> bytes:
    """The first REACH of a node: itself, and that this is all."""
    entry = field(5, address_identity[:8]) + b"".join(field(6, name) for name in services)
    return frame(REACH, 0, (field(1, number) if number else b"") + field(2, 3) + field(3, entry))


def read_varint(data: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """(number, place behind it); IndexError where it is cut off."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


class Frames:
    """Takes bytes in any pieces; `feed` gives the frames that are complete, (kind, route, payload).

    The payload of DATA is passed over and given as its size, so that a download costs little.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skip = 0  # bytes of DATA that are still to come
        self.place = 0  # bytes before the last frame that `feed` gave, from the preamble on
        self._has_magic = False

    def feed(self, data: memoryview) -> list[tuple[int, int, bytes | int]]:
        found: list[tuple[int, int, bytes | int]] = []
        if self._skip:
            size = min(self._skip, len(data))
            self._skip -= size
            data = data[size:]
        self._rest += data
        rest, at, end = self._rest, 0, len(self._rest)
        if not self._has_magic:
            if end < len(MAGIC):
                return found
            assert rest[: len(MAGIC)] == MAGIC, f"no preamble: {bytes(rest[:16])!r}"
            at, self._has_magic = len(MAGIC), True
        while at < end:
            try:
                route, body_at = read_varint(rest, at + 1)
                size, body_at = read_varint(rest, body_at)
            except IndexError:
                break
            kind = rest[at]
            if kind == DATA:
                found.append((kind, route, size))
                self._skip = max(body_at + size - end, 0)
                at = min(body_at + size, end)
                continue
            if body_at + size > end:
                break
            found.append((kind, route, bytes(rest[body_at : body_at + size])))
            at = body_at + size
        del rest[:at]
        return found


class RawLink:
    """One link as the node `name`, over `sock`; `greet` before all else.

    `heard` counts the frames that came, by kind.  `answers_pings` False: it acknowledges nothing.  `delay`: PONGs
    go out so much later.  `reads` False: nothing is taken from the socket.  `parses` False: what comes is dropped
    unseen.
    `source()` gives the next bytes to send, at most `rate` of them a second.
    """

    is_client = False

    def __init__(self, name: str, sock: socket.socket, patience: int = 0) -> None:
        self.name = name
        self.sock = sock
        self.instance = os.urandom(16)
        self.patience = patience
        self.sent = self.written = 0  # bytes that were given to `send`, and those that the system has taken
        self.received = 0
        self.heard: collections.Counter[int] = collections.Counter()
        self.answers_pings = self.reads = self.parses = True
        self.closes_first = False  # every CLOSE that comes is an answer to one of ours
        self.delay = 0.0
        self.window = 0  # what comes is granted again, for each route
        self.source: Callable[[], bytes] | None = None
        self.rate = 1e9
        self.on_frame: Callable[[int, int, bytes | int], None] | None = None
        self.reason = ""  # why it has ended
        self.is_up = False
        self._began = 0.0
        self._given = 0  # bytes by `source`
        self._out: collections.deque[memoryview] = collections.deque()
        self._pongs: collections.deque[tuple[float, bytes]] = collections.deque()
        self._credit: collections.Counter[int] = collections.Counter()
        self._frames = Frames()
        sock.setblocking(False)

    # -- the handshake -------------------------------------------------------------------------------------------

    def hello(self) -> bytes:
        payload = field(1, 1) + field(2, 1) + (field(3, self.name) if self.name else b"") + field(4, self.instance)
        payload += field(5, 1) + field(6, 1) if self.is_client else b""
        return frame(HELLO, 0, payload + field(7, "raw") + field(8, os.urandom(32)))

    def ready(self) -> bytes:
        return frame(READY, 0, field(1, self.patience) + field(2, os.urandom(16)) if self.patience else b"")

    def greet(self, limit: float = DIAL) -> RawLink:
        """Until the link is up.  ConnectionError with the neighbour's reason, or when it takes too long."""
        self.send(MAGIC + self.hello())
        until = time.monotonic() + limit
        said_ready = False
        while not (said_ready and self.heard[READY]):
            if self.reason or not self.wait(until):
                raise ConnectionError(self.reason or "no handshake in time")
            if self.heard[HELLO] and not said_ready:
                said_ready = True
                self.send(self.ready())
        self.is_up = True
        return self

    # -- out -----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Now as far as it goes, and the rest with the next `step`."""
        self.sent += len(data)
        if data and not self.reason:
            self._out.append(memoryview(data))
            self.flush()

    def flush(self) -> bool:
        """Whether nothing is left."""
        try:
            while self._out:
                size = self.sock.send(self._out[0])
                self.written += size
                if size < len(self._out[0]):
                    self._out[0] = self._out[0][size:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(error.strerror or str(error))
        return True

    @property
    def is_blocked(self) -> bool:
        return bool(self._out)

    def step(self, now: float) -> None:
        """What is due is sent."""
        while self._pongs and self._pongs[0][0] <= now:
            self.send(frame(PONG, 0, self._pongs.popleft()[1]))
        if self._out and not self.flush():
            return
        if self.source is None or self.reason:
            return
        self._began = self._began or now
        if self._given <= self.rate * (now - self._began):
            data = self.source()
            self._given += len(data)
            self.send(data)

    def turn_deaf(self) -> None:
        """Read nothing any more, and have the system keep little of what comes."""
        self.reads = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)

    def pings(self, count: int) -> bytes:
        """So many PING frames in a row, each with the number of bytes before it."""
        size = len(frame(PING, 0, bytes(16)))
        head = frame(PING, 0, bytes(16))[:-16]
        return b"".join(head + struct.pack(">QQ", self.sent + number * size, number) for number in range(count))

    def passes_mark(self, until: float) -> bool:
        """Send a PING and drop all that comes before its PONG: then the neighbour has looked at all that was sent."""
        mark = os.urandom(8)
        self.send(frame(PING, 0, struct.pack(">Q", self.sent) + mark))
        tail = b""
        while not self.reason and (left := until - time.monotonic()) > 0:
            self.flush()
            if select.select([self.sock], [], [], min(left, 0.05))[0]:
                try:
                    more = self.sock.recv(CHUNK)
                except OSError as error:
                    self._end(error.strerror or str(error))
                    break
                if not more:
                    self._end("closed")
                if mark in tail + more:
                    return True
                tail = more[-len(mark) :]
        return False

    # -- in ------------------------------------------------------------------------------------------------------

    def wait(self, until: float) -> bool:
        """Read what comes next; False when nothing has come in time."""
        left = max(until - time.monotonic(), 0)
        readable, _, _ = select.select([self.sock], [self.sock] if self._out else [], [], left)
        self.step(time.monotonic())
        if readable:
            self.read()
        return bool(readable) or time.monotonic() < until

    def read(self) -> None:
        try:
            size = self.sock.recv_into(_chunk)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not size:
            self._end("closed")
            return
        self.received += size
        if self.parses:
            for kind, route, payload in self._frames.feed(memoryview(_chunk)[:size]):
                self._take(kind, route, payload)

    def _take(self, kind: int, route: int, payload: bytes | int) -> None:
        self.heard[kind] += 1
        if kind == DATA:
            assert isinstance(payload, int)
            self._credit[route] += payload
            if self.window and self._credit[route] >= self.window // 4:
                self.send(frame(CREDIT, route ^ 1, varint(self._credit.pop(route))))
        elif kind == PING and self.answers_pings:
            assert isinstance(payload, bytes)
            if self.delay:
                self._pongs.append((time.monotonic() + self.delay, payload))
            else:
                self.send(frame(PONG, 0, payload))
        elif kind == CLOSE:
            self.closed(route)
        elif kind == BYE:
            assert isinstance(payload, bytes)
            self.reason = fields(payload).get(2, b"").decode(errors="replace") or "ended"
        if self.on_frame is not None:
            self.on_frame(kind, route, payload)

    def closed(self, route: int) -> None:
        """Answer a CLOSE of the neighbour, unless it is itself the answer to one of ours."""
        if not self.closes_first:
            self.send(frame(CLOSE, route ^ 1))

    def _end(self, why: str) -> None:
        self.reason = self.reason or why
        self._out.clear()

    def close(self) -> None:
        """Cut, without BYE."""
        self._end("closed here")
        self.sock.close()


class RawClient(RawLink):
    """A client on the control socket at `path`."""

    is_client = True

    def __init__(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        super().__init__("", sock)

    def greet(self, limit: float = DIAL) -> RawClient:
        """As a client does: a descriptor goes along, so that others may."""
        self.sock.setblocking(True)
        self.pass_along(MAGIC + self.hello(), [self.sock.fileno()])
        self.sock.setblocking(False)
        until = time.monotonic() + limit
        while not self.heard[HELLO]:
            if self.reason or not self.wait(until):
                raise ConnectionError(self.reason or "no handshake in time")
        self.send(self.ready())
        while not self.heard[READY]:
            if self.reason or not self.wait(until):
                raise ConnectionError(self.reason or "no handshake in time")
        self.is_up = True
        return self

    def pass_along(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Send `data` with copies of the descriptors beside its first byte."""
        self.sent += len(data)
        rights = array.array("i", descriptors).tobytes()
        size = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        assert size == len(data), "a control message was cut"


def dial(name: str, port: int, source: str = "", patience: int = 0, limit: float = DIAL) -> RawLink:
    """A link to the listener at `port`, up; from the loopback address `source` if one is given."""
    sock = socket.create_connection(("127.0.0.1", port), limit, (source, 0) if source else None)
    return RawLink(name, sock, patience).greet(limit)


def run(links: Iterable[RawLink], until: float, most: int = 0) -> None:
    """Drive the links until then, or until none is left.

    With `most`, also until the system has taken so many bytes of them, or none for `STUCK`.
    """
    selector = selectors.DefaultSelector()
    watched: dict[RawLink, int] = {}
    links = list(links)
    written = 0
    moved = time.monotonic()
    while (now := time.monotonic()) < until and not (most and (written >= most or now > moved + STUCK)):
        if written != (written := sum(link.written for link in links)):
            moved = now
        for link in links:
            if not link.reason:
                link.step(now)
            wanted = 0 if link.reason else selectors.EVENT_READ * link.reads | selectors.EVENT_WRITE * link.is_blocked
            if wanted != watched.get(link, 0):
                if watched.get(link):
                    selector.unregister(link.sock)
                if wanted:
                    selector.register(link.sock, wanted, link)
                watched[link] = wanted
        if all(link.reason for link in links):
            break
        if not any(watched.values()):
            time.sleep(0.01)
            continue
        for key, events in selector.select(0.005):
            if events & selectors.EVENT_READ:
                key.data.read()
    selector.close()
