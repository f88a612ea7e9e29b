"""Programs that hold many tunnels at once, by r2box's library, or as many TCP connections.  Run by path.

    library DIST serve NAME SOCKET MODE     offer a service; MODE: echo, or flood (write as much as is taken)
    library - serve PORT MODE               the same on a port of 127.0.0.1
    library DIST client                     do what is asked, line by line

Both are one process with one epoll, because ten thousand threads would measure themselves.  The client is asked in JSON
and answers in JSON:

    ["open", WHERE, COUNT, THREADS]    open so many tunnels, each of so many threads one after the other: seconds;
                                       0: by one session, several at a time
    ["exchange"]                       each sends its number and gets it back: [how many were right, seconds]
    ["read", SECONDS]                  read from all of them as fast as they come: [bytes of each]
    ["close"]                          close all: seconds
    ["churn", WHERE, COUNT]            open, exchange and close one after the other: seconds

WHERE is [PATH, SOCKET], or [PORT].  The library is the one in the built archive, as somebody imports it who has that.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

BLOCK = memoryview(bytes(65536))
PATIENCE = 60.0


def library() -> Any:
    sys.path.insert(0, os.path.join(sys.argv[1], "r2box"))
    return importlib.import_module("r2box")


def dial(where: list[Any]) -> socket.socket:
    """A tunnel, or what stands for it."""
    if len(where) == 1:
        sock = socket.create_connection(("127.0.0.1", where[0]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    made: socket.socket = library_once().dial(where[0], socket=where[1])
    return made


def dial_all(where: list[Any], count: int) -> Iterator[socket.socket]:
    """So many tunnels by one session, which has some on the way at any time."""
    with library_once().Session(where[1]) as session:
        yield from session.dial_all([where[0]] * count)


def accepted(words: list[str]) -> Iterator[socket.socket]:
    """Those that others open."""
    if sys.argv[1] == "-":
        listener = socket.create_server(("127.0.0.1", int(words[0])), backlog=4096)
        while True:
            yield listener.accept()[0]
    for sock, _origin in library_once().serve(words[0], socket=words[1]):
        yield sock


def once(function: Callable[[], Any]) -> Callable[[], Any]:
    found: list[Any] = []

    def call() -> Any:
        if not found:
            found.append(function())
        return found[0]

    return call


library_once = once(library)


# -- the service ---------------------------------------------------------------------------------------------------


class Service:
    """Sockets, and what is done when one is ready."""

    def __init__(self, floods: bool) -> None:
        self._floods = floods
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}

    def add(self, sock: socket.socket) -> None:
        self._socks[sock.fileno()] = sock
        self._poll.register(sock, select.EPOLLIN | select.EPOLLRDHUP | (select.EPOLLOUT if self._floods else 0))

    def run(self) -> None:
        while True:
            for file, events in self._poll.poll(maxevents=1024):
                sock = self._socks[file]
                try:
                    is_open = self._flood(sock, events) if self._floods else self._echo(sock)
                except BlockingIOError:
                    continue
                except OSError:
                    is_open = False
                if not is_open:
                    self._poll.unregister(file)
                    self._socks.pop(file).close()

    @staticmethod
    def _echo(sock: socket.socket) -> bool:
        data = sock.recv(65536, socket.MSG_DONTWAIT)
        sock.sendall(data)
        return bool(data)

    @staticmethod
    def _flood(sock: socket.socket, events: int) -> bool:
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
            return False
        sock.send(BLOCK, socket.MSG_DONTWAIT)
        return True


def serve(words: list[str]) -> None:
    service = Service(words[-1] == "flood")
    threading.Thread(target=service.run, daemon=True).start()
    for sock in accepted(words):
        service.add(sock)


# -- the client ----------------------------------------------------------------------------------------------------


class Client:
    def __init__(self) -> None:
        self._socks: list[socket.socket] = []

    def open(self, where: list[Any], count: int, threads: int) -> float:
        if not threads:
            start = time.perf_counter()
            self._socks = list(dial_all(where, count))
            return time.perf_counter() - start
        made: list[list[socket.socket]] = [[] for _ in range(threads)]
        problems: list[BaseException] = []

        def work(number: int) -> None:
            try:
                made[number].extend(dial(where) for _ in range(number, count, threads))
            except BaseException as error:
                problems.append(error)

        start = time.perf_counter()
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - start
        self._socks = [sock for some in made for sock in some]
        if problems:
            raise problems[0]
        return seconds

    def exchange(self) -> list[float]:
        start = time.perf_counter()
        for number, sock in enumerate(self._socks):
            sock.settimeout(PATIENCE)
            sock.sendall(number.to_bytes(8, "big"))
        right = sum(self._receive(sock) == number for number, sock in enumerate(self._socks))
        return [right, time.perf_counter() - start]

    @staticmethod
    def _receive(sock: socket.socket) -> int:
        data = b""
        while len(data) < 8:
            more = sock.recv(8 - len(data))
            if not more:
                return -1
            data += more
        return int.from_bytes(data, "big")

    def read(self, seconds: float) -> list[int]:
        """The first quarter is not counted: windows grow, and the last tunnels have only just been opened."""
        counts = dict.fromkeys((sock.fileno() for sock in self._socks), 0)
        buffers = [bytearray(1 << 18)]
        poll = select.epoll()
        for file in counts:
            poll.register(file, select.EPOLLIN)
        start = time.monotonic()
        is_counted = False
        while time.monotonic() < start + seconds * 1.25:
            if not is_counted and time.monotonic() > start + seconds / 4:
                counts = dict.fromkeys(counts, 0)
                is_counted = True
            for file, _ in poll.poll(0.1, 1024):
                got = os.readv(file, buffers)
                if not got:
                    raise SystemExit("client: a tunnel has ended")
                counts[file] += got
        poll.close()
        return list(counts.values())

    def close(self) -> float:
        start = time.perf_counter()
        for sock in self._socks:
            sock.close()
        self._socks = []
        return time.perf_counter() - start

    def churn(self, where: list[Any], count: int) -> float:
        start = time.perf_counter()
        for number in range(count):
            with dial(where) as sock:
                sock.sendall(number.to_bytes(8, "big"))
                if self._receive(sock) != number:
                    raise SystemExit(f"client: tunnel {number} gave back something else")
        return time.perf_counter() - start


def converse() -> None:
    client = Client()
    if sys.argv[1] != "-":
        library_once()
    for line in sys.stdin:
        name, *words = json.loads(line)
        print(json.dumps(getattr(client, name)(*words)), flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(sys.argv[3:])
    else:
        converse()
