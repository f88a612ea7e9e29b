"""The states of links, services and forwards: the table of jobs and how it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from r2box.cli.tables import COLUMNS, NUMBER, lines, next_attempt, shorten, table
from r2box.errors import RefusedError
from r2box.net.client.job import JobReport
from r2box.net.daemon.job_table import MAX_JOBS, JobTable
from r2box.proto.wire import messages
from r2box.proto.wire.job_states import MAX_TEXT, JobKind, JobState
from r2box.tools.status import status, top

Row = dict[str, Any]


# -- tables ------------------------------------------------------------------------------------------------------------

LONG = {
    "link": {
        "address": "n" * 64, "state": "handshake", "reason": "why " * 128, "transport": "tcp://" + "h" * 200 + ":1",
        "peer": "[2001:db8:1234:5678:9abc:def0:1234:5678]:47210", "sent": 1023 << 20, "received": 1023 << 20,
        "sent_rate": 1023 << 20, "received_rate": 1023 << 20, "capacity": 1023 << 20, "rtt": 0.00123, "loss": 1.0,
        "packets": 123456789, "resent": 1234567, "resumes": 123, "queue": 1023, "unacked": 1023 << 10,
        "tunnels": 16384, "age": 7199,
    },
    "tunnel": {
        "from": "bob/" * 30 + "child/12", "to": "carl/" * 30 + "sshd", "way": "across", "sent": 1023 << 20,
        "received": 1023 << 20, "sent_rate": 1023 << 20, "received_rate": 1023 << 20, "idle": 0.00123, "age": 7199,
        "link": "l" * 64, "label": 12345, "stalled": "its reader",
    },
    "job": {
        "job": "forward", "name": "n" * 300, "state": "connecting", "next": 29.7, "transport": "socat " + "x" * 200,
        "where": "", "reason": "why " * 128, "tries": 123456, "age": 7199, "client": "child/123456", "pid": 4194304,
    },
}  # fmt: skip
TABLES = [
    (kind, fields) for shown in (status.SHORT, status.LONG) for kind, tables in shown.items() for fields in tables
]
TABLES += [*top.SHOWN.items()]


@pytest.mark.parametrize(("kind", "fields"), TABLES)
def test_every_table_fits_80_columns(kind: str, fields: list[str]) -> None:
    short = {**LONG[kind], **dict.fromkeys(("address", "name", "transport", "from", "to", "link"), "bob"), "reason": ""}
    shown = table(kind, fields, [LONG[kind], short], 80)
    assert max(map(len, shown)) <= 80
    for field in fields:
        column = COLUMNS[kind][field]
        assert column.title in shown[0]
        if column.style == NUMBER:
            assert column.show(LONG[kind]) in shown[1], "numbers are not shortened"
    whole = table(kind, fields, [LONG[kind]], None)
    assert all(COLUMNS[kind][field].show(LONG[kind]).strip() in whole[1] for field in fields), "-w shows everything"
    for width in (1, 20, 79, 81, 120):
        assert max(map(len, table(kind, fields, [LONG[kind]], width))) <= width


def test_texts_are_shortened_only_as_far_as_needed() -> None:
    cells = [["a" * 10, "b"], ["1", "22"], ["x" * 40, "y" * 20], ["z" * 60, ""]]
    styles = [2, NUMBER, 2, 1]
    assert lines(cells, styles, 200)[0] == f"{'a' * 10}   1  {'x' * 40}  {'z' * 60}"
    first, second = lines(cells, styles, 80)
    assert first == f"{'a' * 10}  1 {'x' * 16}…{'x' * 15} {'z' * 31}…"
    assert second == f"b{' ' * 10}22 {'y' * 20}"
    assert lines(cells, styles, 60, [0, 0, 24, 0])[0].count("x") == 23
    assert lines([[], []], [1, 1], 80) == []
    assert [shorten("abcdefgh", size, True) for size in (8, 7, 2, 1, 0)] == ["abcdefgh", "abc…fgh", "a…", "…", ""]
    assert [next_attempt({"next": seconds}) for seconds in (None, 0.001, 1.0, 29.5)] == ["-", "1 s", "1 s", "30 s"]


# -- jobs (in memory) --------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time


class Reports:
    """A client whose daemon keeps what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs = JobTable()

    def send(self, kind: int, id: int, **fields: Any) -> None:
        body = messages.decode_body(messages.encode_body(kind, id, **fields))
        assert (body.kind, body.id) == (messages.JOB, 0)
        self.jobs.take("child/1", body, self.clock.now())

    def line(self, number: int = 0) -> Row:
        return messages.JOB_LINE.decode(self.jobs.records[number].line(self.clock.now(), 42))


def job(clock: Clock, transport: str, name: str = "", number: int = 0) -> JobReport:
    return JobReport(clock, JobKind.LINK, transport, name, number)  # type: ignore[arg-type]


def test_a_job_through_its_states() -> None:
    clock = Clock()
    client = Reports(clock)
    link = job(clock, "tcp://h:1")
    link.enter(JobState.CONNECTING)
    link.use(client)  # type: ignore[arg-type]
    assert client.line() == {
        "job": JobKind.LINK, "state": JobState.CONNECTING, "name": "", "transport": "tcp://h:1", "where": "",
        "reason": "", "next": 0, "tries": 0, "age": 0, "client": "child/1", "pid": 42,
    }  # fmt: skip
    clock.time += 1
    link.enter(JobState.RETRYING, reason="Connection refused", delay=5.0)
    clock.time += 2
    row = client.line()
    assert (row["state"], row["reason"]) == (JobState.RETRYING, "Connection refused")
    assert (row["next"], row["tries"]) == (3000, 1)
    assert row["age"] == 3000, "since it is tried"
    clock.time += 4
    assert client.line()["next"] == 1, "due"
    link.enter(JobState.CONNECTING)
    assert client.line()["reason"] == "Connection refused"
    link.enter(JobState.RETRYING, reason="No route to host", delay=1.0)
    row = client.line()
    assert (row["tries"], row["age"], row["reason"]) == (2, 7000, "No route to host")
    link.enter(JobState.UP, name="bob")
    row = client.line()
    assert (row["name"], row["state"], row["reason"], row["tries"], row["age"]) == ("bob", JobState.UP, "", 0, 0)
    link.enter(JobState.RETRYING, reason="the link ended", delay=5.0)
    clock.time += 1
    link.enter(JobState.RETRYING, reason="while there was no daemon", delay=5.0)
    clock.time += 1
    other = Reports(clock)
    link.use(other)  # type: ignore[arg-type]
    row = other.line()
    assert (row["reason"], row["next"], row["name"]) == ("while there was no daemon", 4000, "bob")
    link.enter(JobState.LISTENING, where="127.0.0.1:4")
    assert other.line()["where"] == "127.0.0.1:4"


def test_jobs_are_bounded() -> None:
    clock = Clock()
    client = Reports(clock)
    for number in range(MAX_JOBS):
        job(clock, "t" * 9999, "n" * 9999, number=number).use(client)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match=f"more than {MAX_JOBS} jobs"):
        job(clock, "t", number=MAX_JOBS).use(client)  # type: ignore[arg-type]
    job(clock, "again", number=3).use(client)  # type: ignore[arg-type]
    assert client.line(3)["transport"] == "again"
    client.send(messages.JOB, 0, number=1, job=99, state=99, name="é" * 4000, reason="x" * 9999, next=1 << 40)
    row = client.line(1)
    assert [len(row[field]) for field in ("name", "reason")] == [MAX_TEXT, MAX_TEXT]
    assert row["next"] == 0, "it is in no state that waits"
    client.jobs.clear()
    assert client.jobs.records == {}
