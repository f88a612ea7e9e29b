"""The limits of a node in the mesh: use is measured, and changes hold for links that are up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from r2box.net.daemon.admission import Admission
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
