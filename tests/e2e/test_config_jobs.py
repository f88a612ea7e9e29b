"""The parts of a node that runs from a file, in this process, where each can be met at the wrong moment; and how a
daemon parts from who has lent it a transport."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2box.config import jobs, parse
from r2box.config.node_manager import NodeManager
from r2box.errors import TransportError
from r2box.net.client import forward_job, job
from r2box.net.client.client import Client
from r2box.net.daemon.daemon import Daemon
from r2box.net.daemon.systemd import ServiceManager
from r2box.net.io.channel import socketpair
from r2box.net.io.log import Log
from r2box.net.io.loop import Loop
from r2box.net.link.driver import CLOSE_TIME
from r2box.proto.arq.packet import SYNC
from r2box.proto.limits import Limits
from r2box.proto.wire import messages

SERVE = '[[serve]]\nname = "{}"\ncmd = "cat"\n'
FORWARD = '[[forward]]\nlisten = "tcp-listen://{}"\ntarget = "bob/x"\n'
PATIENCE = 20.0


class Node:
    """An r2dm, and what it tells its supervisor."""

    def __init__(self, text: str) -> None:
        self.write(text)
        self.log = Log("r2dm", -1)
        supervisor = ServiceManager(Loop())
        supervisor.bind(self.log, "alice.sock", None)
        self.manager = NodeManager(parse.load("alice.toml"), "alice.toml", self.log, supervisor)
        self.loop = self.manager.loop
        self.told: list[str] = []
        self.manager.supervisor.ready = lambda status: self.told.append(f"ready: {status.partition(': ')[2]}")  # type: ignore[method-assign]
        self.manager.supervisor.status = self.told.append  # type: ignore[assignment, method-assign]

    def write(self, text: str) -> None:
        Path("alice.toml").write_text('[self]\naddr = "alice"\nsocket = "alice.sock"\n' + text)

    def reload(self, text: str) -> None:
        self.write(text)
        self.manager._reload()

    def until(self, condition: Callable[[], object]) -> None:
        """Run until then; fails if that takes too long."""
        timer = self.loop.later(PATIENCE, self.loop.stop)
        self.loop.is_running = True
        while self.loop.is_running and not condition():
            self.loop.run_once()
        assert condition(), self.told
        timer.cancel()

    def start(self) -> None:
        self.loop.soon(self.loop.stop)
        self.manager.run()

    @property
    def services(self) -> list[str]:
        return sorted(filter(None, self.manager.daemon.node.services))

    def close(self) -> None:
        self.manager._end()
        self.loop.run()
        self.loop.close()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Node]]:
    monkeypatch.chdir(tmp_path)
    made: list[Node] = []

    def node(text: str) -> Node:
        made.append(Node(text))
        return made[0]

    yield node
    made[0].close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The name slow.example is looked up when this is set, and not found."""
    go, look_up = threading.Event(), socket.getaddrinfo
    threads: list[threading.Thread] = []

    def late(host: bytes, port: int, type: int, flags: int) -> object:
        if host == b"slow.example" and not flags & socket.AI_NUMERICHOST:
            threads.append(threading.current_thread())
            go.wait(PATIENCE)
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return look_up(host, port, type=type, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    yield go
    go.set()
    for thread in threads:
        thread.join()


def test_a_service_that_is_taken_out_before_it_stands(make: Callable[[str], Node]) -> None:
    node = make(SERVE.format("x") + SERVE.format("y"))
    node.start()
    node.reload(SERVE.format("y") + SERVE.format("z"))
    node.until(lambda: node.told)
    assert node.services == ["y", "z"]
    assert node.told == ["ready: 0 links, 2 services"]


def test_a_part_for_which_there_are_no_descriptors(
    make: Callable[[str], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AGAIN", 0.01)
    node = make(SERVE.format("x"))
    node.start()
    node.until(lambda: node.told)
    part = node.manager._jobs[0][1]
    refusals = [OSError(errno.EMFILE, "Too many open files")] * 3

    def pair() -> tuple[int, int]:
        if refusals:
            raise refusals.pop()
        return socketpair()

    monkeypatch.setattr(job, "socketpair", pair)
    assert part.client is not None
    part.client.close()
    node.until(lambda: not node.services)
    part.lost("as if")
    node.until(lambda: node.services)
    assert not refusals


def test_who_takes_long_to_listen_is_not_waited_for(
    make: Callable[[str], Node], slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LISTEN_TIME", 0.1)
    node = make(FORWARD.format("slow.example:8123"))
    node.start()
    node.until(lambda: node.told)


def test_ready_is_told_when_it_is_and_not_before(
    make: Callable[[str], Node], slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LISTEN_TIME", PATIENCE)
    node = make(FORWARD.format("slow.example:8123"))
    node.start()
    node.reload("nonsense [")
    assert [text.partition(":")[0] for text in node.told] == ["not reloaded"]
    node.reload(SERVE.format("y"))  # what was waited for is taken out, and something else put in
    node.until(lambda: len(node.told) > 1)
    assert node.told[1:] == ["ready: 0 links, 1 service"]


def test_reloads_do_not_multiply_attempts(make: Callable[[str], Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_job, "LISTEN_AGAIN", 0.1)
    tries: list[float] = []
    failures: list[object] = []
    listen, fail = forward_job.ForwardJob._listen, forward_job.ForwardJob._failed

    def counted(self: forward_job.ForwardJob) -> None:
        tries.append(node.loop.now())
        listen(self)

    def noted(self: forward_job.ForwardJob, error: TransportError) -> None:
        fail(self, error)
        failures.append(error)

    def has_failed() -> bool:
        return len(failures) == len(tries)

    monkeypatch.setattr(forward_job.ForwardJob, "_listen", counted)
    monkeypatch.setattr(forward_job.ForwardJob, "_failed", noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = FORWARD.format(f"127.0.0.1:{taken.getsockname()[1]}")
        node = make(text)
        node.start()
        node.until(lambda: node.told)
        for number in range(2, 6):
            node.reload(text)
            assert len(tries) == number
            node.until(has_failed)
        tries.clear()
        node.until(lambda: len(tries) > 4)
    assert tries[4] - tries[0] >= 0.4 * 0.99


# -- lent transports ---------------------------------------------------------------------------------------------------


class Lent:
    """A daemon, and a client that has lent it one end of a socketpair; `far` is the other."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ended = False
        self.daemon = Daemon(self.loop, "alice", Log("r2d", -1), self._over, Limits())
        ours, theirs = socketpair()
        self.daemon.adopt_client(theirs)
        lent, far = socket.socketpair()
        self.far = far
        self.told: list[str] = []
        self.client = Client(self.loop, ours, ready=lambda: self._ready(lent.detach()), lost=lambda why: None)
        self.until(lambda: self.daemon.admission.pending)
        far.settimeout(PATIENCE)

    def _ready(self, fd: int) -> None:
        self.client.request(messages.ATTACH, self._heard, (), (fd,), lent=1, transport="-")

    def _heard(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        self.told.append(body["text"])

    def _over(self) -> None:
        self.ended = True

    def until(self, condition: Callable[[], object]) -> float:
        """Run until then: how long that took."""
        began = self.loop.now()
        while not condition():
            assert self.loop.now() < began + PATIENCE, self.told
            self.loop.later(0.01, lambda: None)
            self.loop.run_once()
        return self.loop.now() - began

    def leave(self) -> None:
        self.client.leave(lambda: self.told.append("left"))


@pytest.fixture
def lent() -> Iterator[Lent]:
    it = Lent()
    yield it
    it.far.close()
    it.daemon.end()
    it.until(lambda: it.ended)
    it.daemon.release()
    it.loop.close()


def test_leaving_waits_for_a_refusal_to_be_heard(lent: Lent) -> None:
    lent.far.sendall(b"GET / HTTP/1.0\r\n\r\n")
    lent.until(lambda: all(link.is_down for link in lent.daemon.admission.pending))
    lent.leave()
    lent.loop.later(0.1, lambda: lent.told.append("a while"))
    lent.until(lambda: lent.told)
    assert lent.told == ["a while"]
    lent.far.close()
    lent.until(lambda: len(lent.told) == 3)
    assert "not an r2 neighbour" in lent.told[1]
    assert lent.told[2] == "left"


def test_packets_behind_a_farewell_begin_nothing(lent: Lent) -> None:
    lent.leave()
    lent.until(lambda: all(link.is_down for link in lent.daemon.admission.pending))
    lent.far.sendall(SYNC + bytes(40))
    assert lent.until(lambda: lent.told) < 2 * CLOSE_TIME
    assert lent.told == ["left"]
    while lent.far.recv(4096):
        pass  # to its end: nobody holds it
