"""Attacks by what is sent: rows 1, 2, 3 and 7."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from support import raw
from support.raw import RawLink, body, field, frame, message, open_frame, run

from .target import Counts, Target, attack, meet, summary

# -- 1: what cannot be decoded ----------------------------------------------------------------------------------------

# No body, one that is cut off, a number that never ends, answers whose fields are none, an unknown event.
BAD_BODIES = [b"", b"\x07", b"\xff" * 6, body(raw.IS_LISTING, 1, b"\x01\x7f"), body(raw.IS_ERROR, 1, b"\xff\xff\xff"),
              body(0x46, 1, b"\x02\x03/.."), body(0x7F, 1, b"\x00")]  # fmt: skip


def _undecodable(link: RawLink, lead: str, until: float) -> Counts:
    number = 0

    def source() -> bytes:
        nonlocal number
        number += 1
        bad = BAD_BODIES[number % len(BAD_BODIES)]
        return b"".join(message(f"{lead}child/{client}", bad) for client in range(1, 65))

    link.source, link.rate = source, 50_000
    run([link], until)
    return summary(link)


@attack("1-near")
def undecodable(target: Target, until: float, dice: random.Random) -> Counts:
    """MESSAGEs that cannot be decoded, to each client of the daemon."""
    return _undecodable(meet(target), "", until)


@attack("1-far")
def undecodable_far(target: Target, until: float, dice: random.Random) -> Counts:
    """The same from two hops away, by way of an honest node."""
    return _undecodable(meet(target, port=target.side), "bob/", until)


# -- 2: memory --------------------------------------------------------------------------------------------------------


@attack("2-pings")
def unread_pings(target: Target, until: float, dice: random.Random) -> Counts:
    """PINGs whose answers are never read, behind a download that is not read any more."""
    link = fill(meet(target), until)
    link.source = lambda: link.pings(4000)
    run([link], until, target.most)
    link.close()
    return summary(link)


def fill(link: RawLink, until: float) -> RawLink:
    """Have the daemon send zeros until nothing more can be written to the link, of which nothing is read then."""
    link.window = 1 << 24
    begin_download(link, 1)
    while link.received < 1 << 25 and link.wait(until) and not link.reason:
        pass  # it finds out how much the path holds
    link.turn_deaf()
    run([link], min(time.monotonic() + 0.5, until))
    return link


@attack("2-late")
def late_pongs(target: Target, until: float, dice: random.Random) -> Counts:
    """Downloads whose PONGs are 0.8 s late, so that the path seems to hold much."""
    links = [meet(target, f"late{number}", 600) for number in range(2)]
    for link in links:
        link.delay, link.window = 0.8, 1 << 24
        begin_download(link, target.count(4))
    run(links, until)
    for link in links:
        link.close()
    return summary(*links)


def begin_download(link: RawLink, streams: int, path: str = "r2.bench", window: int = 1 << 24) -> None:
    """Open streams that send zeros as long as they may."""

    def on_frame(kind: int, route: int, payload: bytes | int) -> None:
        if kind == raw.ACCEPT:
            link.send(frame(raw.DATA, route ^ 1, b"\x03"))

    link.on_frame = on_frame
    for label in range(1, streams + 1):
        link.send(open_frame(label, path, window))


@attack("2-unacked")
def unacknowledged(target: Target, until: float, dice: random.Random) -> Counts:
    """Ten links that read everything and acknowledge nothing, and ask for large answers; then they are cut."""
    links = [meet(target, f"mute{number}", 600) for number in range(10)]
    large = message("", body(raw.ASK_PING, 1, field(1, bytes(60_000))))
    for link in links:
        link.answers_pings = link.parses = False
        link.source, link.rate = (lambda: large), 2e7 * target.scale
    run(links, until, target.most)
    for link in links:
        link.close()
    return summary(*links)


# -- 3: small frames --------------------------------------------------------------------------------------------------

SMALL_RATE = 2e6  # bytes a second


def _flood(link: RawLink, source: Callable[[], bytes], target: Target, until: float) -> Counts:
    link.source, link.rate, link.parses = source, SMALL_RATE * target.scale, False
    run([link], until, target.most)
    if target.most and not link.passes_mark(until):
        raise ConnectionError(link.reason or "no PONG in time")
    link.close()
    return summary(link)


def _on_route(target: Target, small: bytes, until: float) -> Counts:
    """Frames on the route 2, which is a tunnel to a service that waits."""
    link = meet(target)
    link.send(open_frame(1, "service/hold"))
    ready = time.monotonic() + raw.DIAL
    while not link.heard[raw.ACCEPT]:
        if link.reason or not link.wait(ready):
            raise ConnectionError(f"no ACCEPT: {link.reason}")
    block = small * 1000
    return _flood(link, lambda: block, target, until)


@attack("3-data")
def empty_data(target: Target, until: float, dice: random.Random) -> Counts:
    return _on_route(target, frame(raw.DATA, 2), until)


@attack("3-credit")
def small_credit(target: Target, until: float, dice: random.Random) -> Counts:
    return _on_route(target, frame(raw.CREDIT, 2, b"\x01"), until)


@attack("3-list")
def listings(target: Target, until: float, dice: random.Random) -> Counts:
    block = message("", body(raw.ASK_LIST, 1)) * 500
    return _flood(meet(target), lambda: block, target, until)


@attack("3-names")
def unknown_names(target: Target, until: float, dice: random.Random) -> Counts:
    """MESSAGEs to names that do not exist."""
    block = b"".join(message(f"n{number}", body(raw.ASK_PING, 1)) for number in range(500))
    return _flood(meet(target), lambda: block, target, until)


def _open_close(target: Target, path: str, until: float, late: bool = False) -> Counts:
    """With `late`, a tunnel is closed when 200 others were opened behind it."""
    link = meet(target)
    labels = 0
    closes = b""

    def source() -> bytes:
        nonlocal labels, closes
        block = bytearray()
        before, closes = closes, b""
        for _ in range(200):
            labels = labels % 1_000_000 + 1
            block += open_frame(labels, path)
            if late:
                closes += frame(raw.CLOSE, labels << 1)
            else:
                block += frame(raw.CLOSE, labels << 1)
        return bytes(block) + before

    return _flood(link, source, target, until)


@attack("3-unknown")
def unknown_opens(target: Target, until: float, dice: random.Random) -> Counts:
    return _open_close(target, "nowhere/echo", until)


@attack("3-far")
def far_opens(target: Target, until: float, dice: random.Random) -> Counts:
    """OPEN and CLOSE to a service of a node behind the daemon."""
    return _open_close(target, "carl/hold", until)


@attack("3-farther")
def late_far_opens(target: Target, until: float, dice: random.Random) -> Counts:
    """The same, but so that the OPEN is there for a while before its CLOSE."""
    return _open_close(target, "carl/hold", until, late=True)


# -- 7: circles -------------------------------------------------------------------------------------------------------

CIRCLE = "/".join(["alice", "bob"] * 14)


@attack("7-messages")
def circling_messages(target: Target, until: float, dice: random.Random) -> Counts:
    """Questions that go 14 times between two honest nodes before they are answered."""
    block = message(CIRCLE, body(raw.ASK_PING, 1)) * 20
    link = meet(target)
    link.source, link.rate = (lambda: block), 1e6 * target.scale
    run([link], until)
    link.close()
    return summary(link)


@attack("7-opens")
def circling_opens(target: Target, until: float, dice: random.Random) -> Counts:
    """860 tunnels that lead in circles and back to the attacker, who does not answer."""
    link = meet(target, "mallory")
    labels = 0

    def source() -> bytes:
        nonlocal labels
        labels += 1
        return open_frame(labels, f"{CIRCLE}/mallory") if labels <= 860 else b""

    link.source, link.rate = source, 2e5
    run([link], until)
    counts = {"came": link.heard[raw.OPEN], "refused": link.heard[raw.CLOSE], **summary(link)}
    link.close()
    return counts


@attack("7-streams")
def circling_streams(target: Target, until: float, dice: random.Random) -> Counts:
    """Four streams of zeros that go 14 times between two honest nodes."""
    link = meet(target)
    link.window = 1 << 22
    begin_download(link, 4, f"{CIRCLE}/r2.bench", 1 << 22)
    run([link], until)
    link.close()
    return summary(link)
