"""A neighbour that a test plays frame by frame, beside a station of a mesh."""

from __future__ import annotations

from typing import Any

from r2box.proto.link import link as links
from r2box.proto.link.link import DOWN, UP, Link
from r2box.proto.link.resume import HALF, NONCE
from r2box.proto.link.sender import MARK
from r2box.proto.link.stream import INITIAL_WINDOW
from r2box.proto.wire import frames as wire
from support.mesh import Station

Frame = tuple[int, int, bytes]


def open_payload(path: str = "echo", window: int = INITIAL_WINDOW, **more: Any) -> bytes:
    return wire.OPEN_FIELDS.encode(path=tuple(path.split("/")), origin=("child/1",), window=window, **more)


class Raw:
    """A neighbour that a test plays frame by frame; with `resume_timeout` the node, and `up`, offer a session."""

    def __init__(
        self, station: Station, name: str = "mallory", *, expect: str | None = None, resume_timeout: int = 0,
        **hello: Any,
    ) -> None:
        self.station = station
        self.mesh = station.mesh
        self.resume_timeout = resume_timeout
        random = self.mesh.random.randbytes(NONCE + HALF) if resume_timeout else b""
        node = station.node
        self.link = Link(
            node, node.local_peer, self.mesh.now, expect=expect, random=random, resume_timeout=resume_timeout
        )
        self.said = 0  # bytes
        self.heard: list[Frame] = []
        self._decoder = wire.FrameDecoder()
        self.hello = {"oldest": 1, "newest": 1, "address": name, "instance": name.encode().ljust(16, b"."), **hello}

    def greet(self) -> Raw:
        self.feed(wire.MAGIC)
        self.say((wire.HELLO, 0, wire.HELLO_FIELDS.encode(**self.hello)))
        return self

    def up(self) -> Raw:
        self.greet()
        offer = wire.READY_FIELDS.encode(resume_timeout=self.resume_timeout, secret=HALF * b"s")
        self.say((wire.READY, 0, offer if self.resume_timeout else b""))
        assert self.link.state == UP, self.link.reason
        self.listen()
        return self

    def feed(self, data: bytes) -> None:
        self.said += len(data)
        buffer = bytearray(data)
        self.link.receive(buffer, self.mesh.now)
        self.mesh.idle()
        self.link.settle()
        buffer[:] = b"\xee" * len(buffer)

    def say(self, *frames: Frame) -> None:
        self.feed(b"".join(wire.encode_frame(*frame) for frame in frames))

    def play(self, data: bytes) -> None:
        """A piece of what `recorded` has."""
        self.feed(data)
        self.listen()
        if self.link.state == UP and not any(kind == wire.OPEN for kind, _, _ in self.heard):
            self.station.tunnel(f"{self.link.address}/echo", b"there and back")  # which the recording answers

    def ping(self, count: int = 1) -> None:
        """Marks that tell how many bytes came before them."""
        size = len(wire.encode_frame(wire.PING, 0, bytes(MARK)))
        self.say(*((wire.PING, 0, mark(self.said + number * size, number)) for number in range(count)))

    def pong(self) -> None:
        """Answer the PING that was heard last."""
        self.say((wire.PONG, 0, [payload for kind, _, payload in self.heard if kind == wire.PING][-1]))

    def listen(self) -> list[Frame]:
        """What the node has to say, all of it; the new frames."""
        new: list[Frame] = []
        while self.link.has_output:
            buffers, _ = self.link.produce(self.mesh.now)
            for buffer in buffers:
                new += [(kind, route, bytes(payload)) for kind, route, payload in self._decoder.feed(bytes(buffer))]
        self.heard += new
        return new

    def farewell(self) -> str:
        """The link is down; the reason that we are told, which the node's own side has too."""
        self.listen()
        assert self.link.state == DOWN
        assert self.heard[-1][0] == wire.BYE
        fields = wire.BYE_FIELDS.decode(self.heard[-1][2])
        assert fields["code"] == wire.FAULT
        assert not self.link.is_orderly
        text: str = fields["text"]
        assert self.station.log[-1] == f"down {self.link.address}: {text}"
        assert not self.link.streams
        assert self.link.deadline() == 0
        return text.removesuffix(f" ({links.LOSSY})")


def mark(place: int, number: int) -> bytes:
    """The payload of a PING with `place` bytes before it."""
    return place.to_bytes(8, "big") + number.to_bytes(8, "big")


def kinds(frames: list[Frame]) -> list[str]:
    return [wire.FRAMES[kind][0] for kind, _, _ in frames]


# -- what a neighbour must not do --------------------------------------------------------------------------------------

OPENED = (wire.OPEN, 2, open_payload())
