"""A wire with a given rate, delay and buffer, between two TCP connections of this machine; and a meter of bytes.

    relay LISTEN CONNECT RATE DELAY DEPTH

    LISTEN, CONNECT  ports of 127.0.0.1; each connection to the first is carried on to the second
    RATE             bytes a second in each direction; 0: no limit
    DELAY            seconds in each direction, half the round trip
    DEPTH            bytes that wait in front of the wire in each direction, before the sender is made to wait

Each direction is a queue, a wire, and a flight.  What is read at time t begins to leave when the wire is free, keeps it
busy for size / RATE, and arrives DELAY after its last byte has left.  When more than DEPTH waits, no more is read; no
byte is ever lost.  So whoever fills the queue waits DEPTH / RATE longer for everything: that is the deep buffer of a
modem, which a sender has to avoid by itself.  What is read at once is a millisecond of the wire, at least one packet.

Every line on stdin is answered by how many bytes have gone each way so far: [there, back].
"""

from __future__ import annotations

import collections
import json
import os
import select
import socket
import sys
import time

PACKET = 1448
LARGEST = 256 * 1024
KERNEL = 256 * 1024  # what the kernel may hold in front of our queue: little, so that DEPTH is what counts


class Direction:
    """From one socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket, rate: float, delay: float, depth: int) -> None:
        self.source = source
        self.target = target
        self.count = 0
        self._rate = rate
        self._delay = delay
        self._depth = depth
        self._size = min(max(PACKET, int(rate / 1000)), LARGEST) if rate else LARGEST
        self._free_at = 0.0  # when the wire has nothing left to send
        self._flying: collections.deque[tuple[float, memoryview]] = collections.deque()
        self._held = 0  # bytes in the queue and in flight
        self._most = depth + int(rate * delay) if rate else LARGEST
        self._ended = False
        self.is_done = False

    def may_read(self, now: float) -> bool:
        if self._ended or self._held > self._most:
            return False
        return not self._rate or (self._free_at - now) * self._rate < self._depth

    def wakes_at(self, now: float) -> float | None:
        """When there is something to do without being told by a socket."""
        times: list[float] = []
        if self._flying and self._flying[0][0] > now:
            times.append(self._flying[0][0])
        if self._rate and not self._ended and not self.may_read(now):
            times.append(max(now + 0.0005, self._free_at - self._depth / self._rate))
        return min(times) if times else None

    def wants_to_write(self, now: float) -> bool:
        return bool(self._flying) and self._flying[0][0] <= now

    def read(self, now: float) -> None:
        try:
            data = self.source.recv(self._size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._ended = not data
        self.count += len(data)
        self._held += len(data)
        if self._rate:
            self._free_at = max(self._free_at, now) + len(data) / self._rate
            self._flying.append((self._free_at + self._delay, memoryview(data)))
        else:
            self._flying.append((now + self._delay, memoryview(data)))

    def write(self, now: float) -> None:
        """Hand over all that has arrived."""
        while self._flying and self._flying[0][0] <= now:
            when, data = self._flying.popleft()
            try:
                if not data:
                    self.is_done = True
                    return self.target.shutdown(socket.SHUT_WR)
                done = self.target.send(data)
            except BlockingIOError:
                done = 0
            except OSError:  # nobody reads any more: the sender is to hear of it
                self._flying.clear()
                self._ended = self.is_done = True
                return self.source.close()
            self._held -= done
            if done < len(data):
                return self._flying.appendleft((when, data[done:]))


def tune(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Relay:
    def __init__(self, listen: int, connect: int, rate: float, delay: float, depth: int) -> None:
        self._connect = connect
        self._wire = rate, delay, depth
        self._listener = socket.create_server(("127.0.0.1", listen))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        self._pairs: list[tuple[Direction, Direction]] = []
        self._gone = [0, 0]  # bytes of connections that have ended

    def run(self) -> None:
        """Until stdin ends."""
        while True:
            for pair in [pair for pair in self._pairs if pair[0].is_done and pair[1].is_done]:
                self._close(pair)
            now = time.monotonic()
            ways = [way for pair in self._pairs for way in pair]
            readers = {way.source.fileno(): way for way in ways if way.may_read(now)}
            writers = {way.target.fileno(): way for way in ways if way.wants_to_write(now)}
            times = [when for when in (way.wakes_at(now) for way in ways) if when is not None]
            timeout = max(0.0, min(times) - now) if times else None
            fixed = [0, self._listener.fileno()]
            readable, writable, _ = select.select([*fixed, *readers], list(writers), [], timeout)
            now = time.monotonic()
            for file in readable:
                if file == 0:
                    if not self._answer():
                        return
                elif file == fixed[1]:
                    self._accept()
                else:
                    readers[file].read(now)
            for file in writable:
                writers[file].write(now)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        try:
            far.connect(("127.0.0.1", self._connect))
        except OSError:
            far.close()
            return near.close()
        tune(near)
        tune(far)
        self._pairs.append((Direction(near, far, *self._wire), Direction(far, near, *self._wire)))

    def _close(self, pair: tuple[Direction, Direction]) -> None:
        for number, way in enumerate(pair):
            self._gone[number] += way.count
            way.source.close()
        self._pairs.remove(pair)

    def _answer(self) -> bool:
        if not os.read(0, 4096):
            return False
        counts = [self._gone[number] + sum(pair[number].count for pair in self._pairs) for number in (0, 1)]
        os.write(1, json.dumps(counts).encode() + b"\n")
        return True


if __name__ == "__main__":
    words = sys.argv[1:]
    Relay(int(words[0]), int(words[1]), float(words[2]), float(words[3]), int(words[4])).run()
