"""Happy Eyeballs: the order of addresses, the race on a virtual clock, and what an error says of it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.errors import TransportError
from r2box.net.transport import sockets as dialling
from r2box.net.transport.connecting import explain
from r2box.net.transport.eyeballs import DELAY, MAX_ATTEMPTS, Race, interleave
from r2box.net.transport.sockaddr import spell_address
from r2box.net.transport.sockets import Dial
from r2box.net.transport.transport import parse_transport
from support.virtual_loop import VirtualLoop

NEVER, FAILS_AT_ONCE = -1.0, -2.0


def six(number: int) -> Any:
    return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"2001:db8::{number}", 80, 0, 0)


def four(number: int) -> Any:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 80)


class Net:
    """Addresses that answer after a time or fail: what happens is in `log`, and when."""

    def __init__(self, clock: VirtualLoop, answers: dict[Any, tuple[float, int]]) -> None:
        self.clock, self.answers = clock, answers
        self.log: list[tuple[float, str, Any]] = []
        self.open: list[Any] = []
        self.most = 0

    def begin(self, address: Any, report: Callable[[int, int], None]) -> Any:
        self.note("begin", address)
        after, code = self.answers[address]
        if after == FAILS_AT_ONCE:
            raise OSError(code, "")
        self.open.append(address)
        self.most = max(self.most, len(self.open))
        net = self

        class Connection:
            def answer(self) -> None:
                net.open.remove(address)
                report(-1 if code else 7, code)

            def close(self) -> None:
                net.note("close", address)
                net.open.remove(address)
                timer.cancel()

        connection = Connection()
        timer = self.clock.later(after if after != NEVER else 1e9, connection.answer)
        return connection

    def note(self, what: str, address: Any) -> None:
        self.log.append((self.clock.time, what, address))


def race(answers: dict[Any, tuple[float, int]]) -> tuple[VirtualLoop, Net, list[Any], Race]:
    clock = VirtualLoop()
    net = Net(clock, answers)
    results: list[Any] = []
    running = Race(clock, answers, net.begin, lambda result: results.append((clock.time, result)))
    return clock, net, results, running


def test_families_take_turns_and_the_resolver_decides_which_is_first() -> None:
    assert interleave([six(1), six(2), six(3), four(1)]) == [six(1), four(1), six(2), six(3)]
    assert interleave([four(1), four(2), six(1), four(1)]) == [four(1), six(1), four(2)]
    assert interleave([]) == []


def test_a_dead_address_costs_the_delay_and_no_more() -> None:
    """The next begins after 250 ms, and the loser is closed."""
    clock, net, results, running = race({six(1): (NEVER, 0), four(1): (0.01, 0)})
    running.start()
    clock.run()
    assert results == [(0.26, 7)]
    assert net.log == [(0, "begin", six(1)), (DELAY, "begin", four(1)), (0.26, "close", six(1))]
    assert not net.open


def test_a_failure_begins_the_next_at_once() -> None:
    clock, net, results, running = race({
        six(1): (FAILS_AT_ONCE, errno.ENETUNREACH), four(1): (0.1, errno.ECONNREFUSED), six(2): (0.05, 0),
        four(2): (0.01, 0),
    })  # fmt: skip
    running.start()
    clock.run()
    assert results == [(pytest.approx(0.15), 7)]
    assert [entry for entry in net.log if entry[1] == "begin"] == [
        (0, "begin", six(1)), (0, "begin", four(1)), (0.1, "begin", six(2)),
    ]  # fmt: skip


def test_a_slow_first_address_may_still_win() -> None:
    clock, net, results, running = race({six(1): (0.3, 0), four(1): (0.2, 0)})
    running.start()
    clock.run()
    assert results == [(0.3, 7)]
    assert net.log[-1] == (0.3, "close", four(1))


def test_all_failures_are_reported_in_their_order() -> None:
    clock, net, results, running = race({
        six(1): (0.4, errno.EHOSTUNREACH), four(1): (0.05, errno.ECONNREFUSED),
        six(2): (FAILS_AT_ONCE, errno.ENETUNREACH),
    })  # fmt: skip
    running.start()
    clock.run()
    failures = [(four(1), errno.ECONNREFUSED), (six(2), errno.ENETUNREACH), (six(1), errno.EHOSTUNREACH)]
    assert results == [(0.4, failures)]
    assert not net.open


def test_no_more_than_some_attempts_at_a_time() -> None:
    addresses = [six(number) for number in range(MAX_ATTEMPTS + 3)]
    clock, net, results, running = race(dict.fromkeys(addresses, (NEVER, 0)))
    running.start()
    clock.later(100, running.expire)
    clock.run()
    assert net.most == MAX_ATTEMPTS + 1  # the oldest goes when the next has begun
    assert [entry[2] for entry in net.log if entry[1] == "close"] == addresses
    when, *what = net.log[MAX_ATTEMPTS + 1]
    assert when == pytest.approx(MAX_ATTEMPTS * DELAY)
    assert what == ["close", six(0)]
    assert results == [(100, [(address, errno.ETIMEDOUT) for address in addresses])]


def test_a_deadline_ends_what_has_not_been_tried_too() -> None:
    clock, net, results, running = race({six(1): (NEVER, 0), four(1): (0.0, 0)})
    running.start()
    clock.later(0.1, running.expire)
    clock.run()
    assert results == [(0.1, [(six(1), errno.ETIMEDOUT), (four(1), errno.ETIMEDOUT)])]
    assert not net.open


def test_closed_it_says_nothing() -> None:
    clock, net, results, running = race({six(1): (0.4, 0), four(1): (0.4, 0)})
    running.start()
    clock.later(0.3, running.close)
    clock.run()
    assert not results
    assert not net.open
    assert len(net.log) == 4


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([NEVER, FAILS_AT_ONCE, 0.0, 0.1, 0.25, 0.3, 1.0]), st.sampled_from([0, 111])
        ),
        max_size=24,
    )
)
def test_whatever_the_addresses_do(plan: list[tuple[bool, float, int]]) -> None:
    """One result, no later than the best address allows, and nothing stays open."""
    answers = {
        (six if is_six else four)(number): (after, 111 if after == FAILS_AT_ONCE else code)
        for number, (is_six, after, code) in enumerate(plan)
    }
    clock, net, results, running = race(answers)
    running.start()
    timer = clock.later(1000, running.expire)
    clock.run()
    timer.cancel()
    assert len(results) == 1
    assert not net.open
    when, result = results[0]
    good = [
        DELAY * at + answers[a][0] for at, a in enumerate(interleave(answers)) if answers[a][0] >= 0 == answers[a][1]
    ]
    if good:
        assert result == 7
        assert when <= min(good) + 1e-9
    else:
        assert sorted(result) == sorted((a, answers[a][1] if answers[a][0] != NEVER else 110) for a in answers)


# -- Dial, with a resolver and connections that are not real -----------------------------------------------------------


@pytest.fixture
def dial(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Net, list[Any]]]:
    """Dial `url` where its name stands for the addresses of `answers`."""

    def dial(url: str, answers: dict[Any, tuple[float, int]]) -> tuple[Net, list[Any]]:
        clock = VirtualLoop()
        net = Net(clock, answers)
        monkeypatch.setattr(dialling, "resolve", lambda loop, transport, found: found(list(answers)))
        monkeypatch.setattr(dialling, "Connecting", lambda loop, t, address, local, probe, r: net.begin(address, r))
        results: list[Any] = []
        Dial(clock, parse_transport(url), lambda got: results.append((clock.time, got)))  # type: ignore[arg-type]
        clock.run()
        return net, results

    return dial


def test_a_dial_races(dial: Callable[..., tuple[Net, list[Any]]]) -> None:
    _net, results = dial("tcp://name:80", {six(1): (NEVER, 0), four(1): (0.0, 0)})
    assert results == [(DELAY, 7)]


def test_the_timeout_is_for_all_addresses(dial: Callable[..., tuple[Net, list[Any]]]) -> None:
    net, results = dial(
        "tcp://name:80?timeout=600ms",
        {six(1): (NEVER, 0), six(2): (NEVER, 0), four(1): (0.3, errno.ECONNREFUSED)},
    )
    ((when, error),) = results
    assert when == 0.6
    assert isinstance(error, TransportError)
    assert str(error) == "Connection refused (192.0.2.1); Connection timed out (2001:db8::1, 2001:db8::2)"
    assert not net.open


def test_only_addresses_of_the_bound_family_are_tried(dial: Callable[..., tuple[Net, list[Any]]]) -> None:
    _net, results = dial("tcp://name:80?bind=127.0.0.1", {six(1): (NEVER, 0), four(1): (0.0, 0)})
    assert results == [(0, 7)]
    _net, results = dial("tcp://name:80?bind=127.0.0.1", {six(1): (NEVER, 0)})
    assert str(results[0][1]) == "the host has no address that can be reached from 127.0.0.1"
    _net, results = dial("tcp://name:80?bind=fe80::1%25no-such", {six(1): (NEVER, 0)})
    assert str(results[0][1]) == "this host has no interface 'no-such'"


# -- text ------------------------------------------------------------------------------------------------------------


def test_an_error_names_the_addresses_unless_the_url_does() -> None:
    assert explain([(six(1), errno.ECONNREFUSED)], "2001:db8::1") == "Connection refused"
    assert explain([(six(1), errno.ECONNREFUSED)], "name") == "Connection refused (2001:db8::1)"
    many = explain([(six(number), errno.ECONNREFUSED) for number in range(100)], "name")
    assert many.startswith("Connection refused (2001:db8::0, ")
    assert many.endswith(" and 92 more)")
    lone = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 0))
    assert "[fe80::1%25eth0]" in explain([(lone, errno.EINVAL)], "fe80::1")
    unix = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/x")
    assert explain([(unix, errno.ENOENT)], "") == "No such file or directory"


def test_addresses_can_be_pasted_back() -> None:
    assert spell_address(("192.0.2.1", 80)) == "192.0.2.1:80"
    assert spell_address(("2001:db8::1", 80, 0, 0)) == "[2001:db8::1]:80"
    assert spell_address(("fe80::1", 80, 0, socket.if_nametoindex("lo"))) == "[fe80::1%25lo]:80"
    assert spell_address(("fe80::1", 80, 0, 987654)) == "[fe80::1%25987654]:80"
    assert spell_address(b"\0name") == "@name"
    assert spell_address("/run/x") == "/run/x"
    assert spell_address((3, 80)) == "3:80"
    host = parse_transport(f"tcp://{spell_address(('fe80::1', 80, 0, socket.if_nametoindex('lo')))}").host
    assert host == "fe80::1%lo"
