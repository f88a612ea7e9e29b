"""The protocol under somebody else's input and output: a node on asyncio's streams, which uses r2box.proto alone.

    python own_loop.py PORT

It links to the node that listens at PORT, offers the service `upper` there, and says hello to that node's own command.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from r2box.proto.link.handshake import LocalPeer
from r2box.proto.link.link import DOWN, Link
from r2box.proto.link.stream import Stream
from r2box.proto.routing.router import Router
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire.outcome import Outcome
from r2box.proto.wire.route import Message


class Host:
    """What a node needs done for it.  It passes no descriptors and takes no clients, so half of that is nothing."""

    def __init__(self) -> None:
        self.node = Router(LocalPeer("guest", os.urandom(16), software="own_loop"), self)
        self.work = asyncio.Event()  # somebody has something to say
        self.linked = asyncio.Event()
        self.alarm_at = float("inf")

    def now(self) -> float:
        return time.monotonic()

    def wake(self, link: Link) -> None:
        self.work.set()

    def up(self, link: Link) -> None:
        self.linked.set()

    def alarm(self, when: float) -> None:
        self.alarm_at = when
        self.work.set()

    def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None:
        stream.far = End(stream, bytes.upper)
        stream.accept()

    def down(self, link: Link, reason: str) -> None:
        print("down:", reason, file=sys.stderr)

    def nothing(self, *arguments: Any) -> None:
        return

    suspended = resumed = fd_relay = request = discard = note = news = nothing


class End:
    """One end of a tunnel: it writes `data`, or if there is none, what it reads, `changed`."""

    def __init__(self, stream: Stream | None = None, changed: Any = None, data: bytes = b"") -> None:
        self.stream, self.changed, self.data = stream, changed, data
        self.came = b""
        self.at_end = changed is None  # all that we have to write is there
        self.said_end = False
        self.over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def readable(self) -> None:
        while self.stream is not None:
            piece = self.stream.pull(1 << 16)
            if piece is None:
                return
            if self.changed is None:
                self.came += piece
            elif piece:
                self.data += self.changed(bytes(piece))
            else:
                self.at_end = True
            self.stream.readable()

    def pull(self, limit: int) -> bytes | None:
        piece, self.data = self.data[:limit], self.data[limit:]
        if piece or self.said_end or not self.at_end:
            return piece or None
        self.said_end = True
        if self.changed is not None:  # a service says how it ended; this one well
            asyncio.get_running_loop().call_soon(self.finish)
        return b""

    def more(self) -> bool:
        return bool(self.data) or (self.at_end and not self.said_end)

    def stop(self) -> None:
        self.data, self.at_end = b"", True

    def accept(self) -> None:
        assert self.stream is not None
        self.stream.readable()

    def finish(self) -> None:
        if self.stream is not None:
            self.stream.close(Outcome())
            self.close(Outcome())

    def close(self, outcome: Outcome) -> None:
        self.stream = None
        if not self.over.done():
            self.over.set_result(outcome)


async def carry(host: Host, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes from the link to the wire, and the clock."""
    while link.state != DOWN:
        buffers, _ = link.produce(time.monotonic())
        if buffers:
            writer.writelines([bytes(buffer) for buffer in buffers])
            await writer.drain()
            continue
        due = min(link.deadline() or float("inf"), host.alarm_at, time.monotonic() + 60)
        host.work.clear()
        try:
            await asyncio.wait_for(host.work.wait(), max(0.0, due - time.monotonic()))
        except asyncio.TimeoutError:
            pass  # it is time for what was due
        now = time.monotonic()
        if host.alarm_at <= now:
            host.alarm_at = float("inf")
            host.node.tick(now)
        link.tick(now)
    writer.close()


async def listen(link: Link, reader: asyncio.StreamReader) -> None:
    """Bytes from the wire to the link, which may use the buffer until it has settled."""
    while data := await reader.read(1 << 16):
        link.receive(bytearray(data), time.monotonic())
        link.settle()
    link.eof(time.monotonic())


async def main(port: int) -> None:
    host = Host()
    host.node.add_service(ServiceEntry("upper", None))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    link = Link(host.node, host.node.local_peer, time.monotonic())
    carrying = asyncio.create_task(carry(host, link, reader, writer))
    listening = asyncio.create_task(listen(link, reader))
    await asyncio.wait_for(host.linked.wait(), 10)
    print("linked to", link.address, flush=True)
    end = End(data=b"hello")
    end.stream = host.node.open("service/own", Message((link.address,), (), b""), end, lambda stream: None)
    host.work.set()
    outcome = await asyncio.wait_for(end.over, 10)
    print(end.came.decode(), outcome.is_clean, flush=True)
    await listening
    await carrying


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
