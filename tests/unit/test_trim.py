"""Memory that is given back to the system when a crowd has left."""

from __future__ import annotations

import pytest

from r2box.net.daemon import trim
from r2box.proto.memory_limit import Account, MemoryLimit
from support.virtual_loop import VirtualLoop


@pytest.fixture
def trimmed(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    monkeypatch.setattr(trim, "trim", lambda: calls.append(None))
    return calls


def test_after_many_links_once(trimmed: list[None]) -> None:
    loop = VirtualLoop()
    watch = trim.MemoryTrim(loop, MemoryLimit())  # type: ignore[arg-type]
    for _ in range(trim.MIN_LINKS - 1):
        watch.link_closed()
    assert not loop.pending
    for _ in range(10):
        watch.link_closed()
    loop.run()
    assert len(trimmed) == 1
    watch.link_closed()
    assert not loop.pending, "it begins anew"


def test_after_links_that_held_much(trimmed: list[None]) -> None:
    loop, memory = VirtualLoop(), MemoryLimit()
    watch = trim.MemoryTrim(loop, memory)  # type: ignore[arg-type]
    account = Account(memory)
    account.charge(trim.MIN_SIZE)
    account.charge(-trim.MIN_SIZE)
    watch.link_closed()
    loop.run()
    assert len(trimmed) == 1
    assert memory.peak == trim.MIN_SIZE
    account.charge(1000)
    watch.link_closed()
    assert not loop.pending


def test_the_library_takes_the_call() -> None:
    trim.trim()
