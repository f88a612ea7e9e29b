"""Honest traffic through a daemon, in a process of its own: a paced stream and an echo, measured by one loop.

    python3 -m support.rehearsal.honest R2BOX SEND_SOCKET TAKE_SOCKET TAKER ECHO RATE

R2BOX is the built file, whose library gives the tunnels: from the daemon at SEND_SOCKET to the service `sink`, which
this process offers itself at TAKE_SOCKET, of the node TAKER, and to the service ECHO.  A line on stdin ends a phase:
then one line of JSON comes out, with the figures since the last.  The end of stdin ends the process.

One thread and one selector, so that nothing waits for an interpreter; all times are of the monotonic clock.
"""

from __future__ import annotations

import collections
import json
import os
import selectors
import socket
import sys
import threading
import time
from typing import Any

EVERY = 0.02  # seconds between two echoes
SIZE = 64  # bytes of one
TICK = 0.005  # seconds between two pieces of the stream
CATCH_UP = 0.5  # seconds of the stream that may be made up for when it could not be sent
PIECE = bytes(1 << 17)


class Traffic:
    """Both, over these three sockets."""

    def __init__(self, out: socket.socket, back: socket.socket, echo: socket.socket, rate: float) -> None:
        self.out, self.back, self.echo, self.rate = out, back, echo, rate
        for sock in (out, back, echo):
            sock.setblocking(False)
        now = time.monotonic()
        self._due = now  # up to this time the stream was sent
        self._next = self._echo_due = now  # when more of it, and of the echo, is sent
        self._asked: collections.deque[float] = collections.deque()
        self._odd = 0  # bytes of an echo that is not whole yet
        self._left = 0  # of one that could not be sent whole
        self.broken: list[str] = []
        self._room = bytearray(1 << 20)
        self.begin(now)

    def begin(self, now: float) -> None:
        self.began = now
        self.trips: list[float] = []
        self.taken: collections.Counter[int] = collections.Counter()

    def fail(self, what: str, error: object) -> None:
        self.broken.append(f"{what}: {error}")

    def step(self, now: float) -> float:
        """Send what is due; seconds until more is."""
        if not self.broken and now >= self._next:
            self._next = now + TICK
            self._send_stream(now)
        if not self.broken and now >= self._echo_due:
            self._echo_due = max(self._echo_due + EVERY, now - EVERY)
            self._send_echo(now)
        return max(min(self._next, self._echo_due) - time.monotonic(), 0)

    def _send_stream(self, now: float) -> None:
        self._due = max(self._due, now - CATCH_UP)
        while (size := int((now - self._due) * self.rate)) >= 1 << 12:
            try:
                self._due += self.out.send(PIECE[:size]) / self.rate
            except BlockingIOError:
                return
            except OSError as error:
                self.fail("stream", error)
                return

    def _send_echo(self, now: float) -> None:
        try:
            self._left = (self._left or SIZE) - self.echo.send(bytes(self._left or SIZE))
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("echo", error)
            return
        if not self._left:
            self._asked.append(now)

    def read(self, sock: socket.socket) -> None:
        try:
            size = sock.recv_into(self._room)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("stream" if sock is self.back else "echo", error)
            return
        now = time.monotonic()
        if not size:
            self.fail("stream" if sock is self.back else "echo", "end")
        elif sock is self.back:
            self.taken[int(now - self.began)] += size
        else:
            whole, self._odd = divmod(self._odd + size, SIZE)
            for _ in range(whole):
                self.trips.append(now - self._asked.popleft())

    def figures(self) -> dict[str, Any]:
        """Of the phase that ends now.  Echoes that are still out count with the time that they have taken so far."""
        now = time.monotonic()
        seconds = now - self.began
        trips = sorted([*self.trips, *(now - asked for asked in self._asked if now - asked > EVERY)])
        whole = [self.taken[number] for number in range(int(seconds))] or [0]
        found = {
            "seconds": seconds, "rate": sum(self.taken.values()) / seconds, "worst": min(whole),
            "echoes": len(trips), "broken": self.broken,
            **{name: trips[min(int(len(trips) * share), len(trips) - 1)] if trips else 0.0
               for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        }  # fmt: skip
        self.begin(now)
        return found

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        for sock in (self.back, self.echo):
            selector.register(sock, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            wait = self.step(time.monotonic())
            for key, _ in selector.select(wait if not self.broken else None):
                if key.fd == 0:
                    if not os.read(0, 1 << 10):
                        return
                    print(json.dumps(self.figures()), flush=True)
                elif not self.broken:
                    self.read(key.fileobj)  # type: ignore[arg-type]
            if self.broken:
                for sock in (self.back, self.echo):
                    if sock.fileno() in {key.fd for key in selector.get_map().values()}:
                        selector.unregister(sock)


def main(words: list[str]) -> None:
    box, send, take, taker, echo, rate = words
    sys.path.insert(0, box)
    import r2box

    service = r2box.serve("sink", socket=take)
    dialled: list[socket.socket] = []
    dialler = threading.Thread(target=lambda: dialled.append(r2box.dial(f"{taker}/sink", socket=send, timeout=20)))
    dialler.start()
    back, _ = next(service)  # which takes only while it is asked
    dialler.join()
    out = dialled[0]
    there = r2box.dial(echo, socket=send, timeout=20)
    print("ready", flush=True)
    Traffic(out, back, there, float(rate)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
