"""The limits of a node in the mesh: use is measured, and changes hold for links that are up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from r2box.net.daemon.admission import SETTLE, Admission
from r2box.proto.memory_limit import MemoryLimit
from r2box.proto.routing.router import REQUESTS_AT_ONCE
from r2box.proto.wire import frames
from support.mesh import Mesh
from support.raw_neighbour import Raw, open_payload


def test_use_is_that_of_the_link_that_uses_most() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    limits = alice.node.limits
    loop: Any = SimpleNamespace(now=lambda: mesh.now)
    Admission(limits, MemoryLimit(), alice.node.links, loop, lambda link: None)
    alice.serve("stall", lambda program: setattr(program, "reads", False))
    one, two = Raw(alice, "one").up(), Raw(alice, "two").up()
    one.say(*((frames.OPEN, 2 * label, open_payload("stall")) for label in range(1, 4)))
    two.say((frames.OPEN, 2, open_payload("stall")))
    assert {name: limits.used(name) for name in ("links", "streams", "opens")} == {"links": 2, "streams": 3, "opens": 3}
    one.say((frames.CLOSE, 2, b""), (frames.CLOSE, 4, b""))
    mesh.now += 3
    assert {name: limits.used(name) for name in ("streams", "opens")} == {"streams": 1, "opens": 0}
    assert {name: limits.peak[name] for name in ("links", "streams", "opens")} == {"links": 2, "streams": 3, "opens": 3}


class Cut:
    """A suspended link that holds `used` bytes."""

    def __init__(self, used: int) -> None:
        self.account = SimpleNamespace(used=used)
        self.streams = (1,)
        self.reason = ""
        self.is_down = False

    def close(self, reason: str) -> None:
        self.reason, self.is_down = reason, True
        self.admission.resumed(self)  # as the daemon does

    admission: Any


def test_suspended_links_keep_little_memory_for_long() -> None:
    """Those that hold most are closed, once they had time to resume."""
    mesh = Mesh()
    limits = mesh.station("alice").node.limits
    limits.change({"suspended-memory": 10 << 20})
    loop: Any = SimpleNamespace(now=lambda: mesh.now, later=mesh.later)
    links: list[Any] = [Cut(size << 20) for size in (7, 2, 9, 3)]
    Cut.admission = admission = Admission(limits, MemoryLimit(), {}, loop, lambda link: None)
    for link in links:
        admission.suspended(link)
    assert limits.used("suspended-memory") == 21 << 20
    mesh.run(SETTLE - 1)
    assert not any(link.is_down for link in links)
    admission.resumed(links[3])
    late: Any = Cut(6 << 20)
    admission.suspended(late)
    mesh.run(SETTLE / 2)
    assert [link.reason for link in (*links, late)] == ["", "", "suspended links hold too much memory", "", ""]
    mesh.run(SETTLE)
    assert [link.is_down for link in (*links, late)] == [True, False, True, False, False]
    assert limits.used("suspended-memory") == 8 << 20


def test_a_rate_is_changed_for_links_that_are_up() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    Raw(alice).up()
    (link,) = alice.node.links.values()
    requests = link.requests
    assert requests is not None
    now = mesh.now
    for _ in range(int(REQUESTS_AT_ONCE)):
        assert requests.take((), now)
    assert not requests.take((), now)
    alice.node.limits.change({"requests": 10})
    for _ in range(int(REQUESTS_AT_ONCE)):
        assert requests.take((), now)
    taken = sum(requests.take((), now + 1) for _ in range(100))
    assert (taken, requests.recent(now + 1), requests.recent(now + 9)) == (10, 4000, 0)
