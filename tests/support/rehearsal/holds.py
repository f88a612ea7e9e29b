"""Attacks by what is held or taken: descriptors, places, processes, packets and names, rows 4 to 6 and 8 to 15."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import time
from collections import deque

from support import raw, raw_udp
from support.raw import RawLink, body, field, frame, message, open_frame, run

from .target import MALLORY, Counts, Target, attack, meet, summary

# -- 4, 5: descriptors and places -------------------------------------------------------------------------------------


def _fill(target: Target, until: float, tunnels: int, links: int) -> Counts:
    """So many tunnels to a service of the daemon, and then links, until nothing more is taken."""
    link = meet(target)
    for label in range(1, tunnels + 1):
        link.send(open_frame(label, "service/hold"))
    held = [link]
    refused = 0
    while time.monotonic() < until:
        if len(held) <= links:
            try:
                held.append(raw.dial(f"many{len(held)}", target.door, MALLORY, limit=0.5))
            except OSError:
                refused += 1
        run(held, min(time.monotonic() + 0.005, until))
    counts = {"tunnels": link.heard[raw.ACCEPT], "links": len(held) - 1, "refused": refused, **summary(*held)}
    for link in held:
        link.close()
    return counts


@attack("4-tunnels")
def many_tunnels(target: Target, until: float, dice: random.Random) -> Counts:
    """More tunnels to a service of the daemon than it has descriptors for, and links in what is left."""
    return _fill(target, until, 400, 16)


@attack("4-links")
def many_links(target: Target, until: float, dice: random.Random) -> Counts:
    """More links than the daemon has descriptors for."""
    return _fill(target, until, 0, 400)


@attack("5-tcp")
def silent_connections(target: Target, until: float, dice: random.Random) -> Counts:
    """256 connections from one host that say nothing; another for each that is closed."""
    held: list[socket.socket] = []
    opened = 0
    while time.monotonic() < until:
        while len(held) < 256 and time.monotonic() < until:
            try:
                held.append(socket.create_connection(("127.0.0.1", target.door), 0.5, (MALLORY, 0)))
                opened += 1
            except OSError:
                break
        ended, _, _ = select.select(held, [], [], 0.05) if held else ([], [], [])
        for sock in ended:
            with contextlib.suppress(OSError):
                if sock.recv(1 << 12):
                    continue
            sock.close()
            held.remove(sock)
    for sock in held:
        sock.close()
    return {"opened": opened}


@attack("5-udp")
def forged_sources(target: Target, until: float, dice: random.Random) -> Counts:
    """300 senders every two seconds that begin a link over UDP and say nothing more."""
    held: deque[socket.socket] = deque()  # else the kernel would say for them that they are not there
    begun = 0
    due = time.monotonic()
    while time.monotonic() < until:
        for _ in range(target.count(300)):
            held.append(raw_udp.connected(target.udp, raw_udp.loopback(dice)))
            with contextlib.suppress(OSError):
                held[-1].send(raw_udp.opening(dice.randrange(1, 1 << 32)))
                begun += 1
        while len(held) > target.count(1500):
            held.popleft().close()
        due += 2
        time.sleep(max(min(due, until) - time.monotonic(), 0))
    for sock in held:
        sock.close()
    return {"senders": begun}


# -- 6: long reasons --------------------------------------------------------------------------------------------------

LONG_PATH = frame(raw.MESSAGE, 0, field(1, b"/" + b"\x01" * 65_000) + field(3, body(raw.ASK_PING, 1)))


def _fail(link: RawLink) -> None:
    """Have the daemon end the link with a long reason."""
    link.send(LONG_PATH)
    until = time.monotonic() + 2
    while not link.reason and link.wait(until):
        pass
    link.close()


@attack("6-tcp")
def long_reasons(target: Target, until: float, dice: random.Random) -> Counts:
    """Links that end because of a path of 65,000 bytes: those that the daemon takes, and the one that it dials."""
    taken = dialled = 0
    with socket.create_server(("127.0.0.1", target.own)) as server:
        server.setblocking(False)
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionError):
                _fail(meet(target, f"long{taken}"))
                taken += 1
            with contextlib.suppress(BlockingIOError):
                sock, _ = server.accept()
                with contextlib.suppress(ConnectionError):
                    _fail(RawLink("dialled", sock).greet(2))
                dialled += 1
            time.sleep(0.1)
    return {"taken": taken, "dialled": dialled}


@attack("6-udp")
def long_reasons_udp(target: Target, until: float, dice: random.Random) -> Counts:
    """The same over UDP, from as many senders as there is time for."""
    ended = refused = 0
    while time.monotonic() < until:
        try:
            link, peer = raw_udp.dial(f"long{ended}", target.udp, raw_udp.loopback(dice), 2)
        except (ConnectionError, OSError):
            refused += 1
            continue
        link.send(LONG_PATH)
        limit = time.monotonic() + 1
        while not (link.reason or peer.is_over) and time.monotonic() < limit:
            peer.turn(0.01)
            link.step(time.monotonic())
            link.read()
        ended += 1
        link.close()
        peer.close()
    return {"ended": ended, "refused": refused}


# -- 8: processes -----------------------------------------------------------------------------------------------------


@attack("8-churn")
def churn(target: Target, until: float, dice: random.Random) -> Counts:
    """OPEN and CLOSE against a service whose program ignores SIGHUP."""
    link = meet(target)
    labels = 0

    def source() -> bytes:
        nonlocal labels
        labels += 1
        return open_frame(labels, "service/stubborn") + frame(raw.CLOSE, labels << 1)

    link.closes_first = True
    link.source, link.rate = source, 150 * len(open_frame(100, "service/stubborn")) * target.scale
    run([link], until)
    link.close()
    return {"opened": labels, **summary(link)}


@attack("8-cut")
def cut_tunnels(target: Target, until: float, dice: random.Random) -> Counts:
    """20 links with 50 tunnels each to that service, cut at the end."""
    links = [meet(target, f"cut{number}", 600) for number in range(20)]
    for link in links:
        for label in range(1, target.count(50) + 1):
            link.send(open_frame(label, "service/stubborn"))
    run(links, until)
    accepted = sum(link.heard[raw.ACCEPT] for link in links)
    for link in links:
        link.close()
    return {"accepted": accepted, **summary(*links)}


# -- 9, 10: UDP -------------------------------------------------------------------------------------------------------


@attack("9-echo")
def amplification(target: Target, until: float, dice: random.Random) -> Counts:
    """18 bytes of UDP; what comes back."""
    with raw_udp.connected(target.udp, MALLORY) as sock:
        sock.send(raw_udp.smallest())
        back = datagrams = 0
        while (left := until - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                back += len(sock.recv(1 << 16))
                datagrams += 1
    return {"sent": 18, "back": back, "datagrams": datagrams}


@attack("10-hole")
def beyond_a_hole(target: Target, until: float, dice: random.Random) -> Counts:
    """Pieces beyond a hole, from 250 senders that never fill it."""
    senders = []
    for _ in range(target.count(250)):
        sock = raw_udp.connected(target.udp, raw_udp.loopback(dice))
        senders.append((sock, dice.randrange(1, 1 << 32)))
    for sock, me in senders:
        with contextlib.suppress(OSError):
            sock.send(raw_udp.shown(sock, me, 0.2) + raw_udp.data(me, 0, 0, 0, raw.MAGIC[:4]))
    piece = bytes(raw_udp.PAYLOAD)
    sent = 0
    for number in range(1, (4 << 20) // len(piece)):
        for place, (sock, me) in enumerate(senders):
            with contextlib.suppress(OSError):
                sock.send(raw_udp.data(me, 0, number, 8 + number * len(piece), piece))
                sent += 1
            if place % 50 == 0 and time.monotonic() > until:
                break
        if time.monotonic() > until or (target.most and sent * len(piece) >= target.most):
            break
    for sock, _ in senders:
        sock.close()
    return {"packets": sent}


# -- 11, 12, 14, 15: who is taken -------------------------------------------------------------------------------------


@attack("11-path")
def path_descriptor(target: Target, until: float, dice: random.Random) -> Counts:
    """A client of the daemon gives O_PATH descriptors as the ends of a tunnel to a neighbour, which is then cut."""
    link = meet(target, "mallory")

    def on_frame(kind: int, route: int, payload: bytes | int) -> None:
        if kind == raw.OPEN:
            link.send(frame(raw.ACCEPT, route ^ 1, field(1, 1 << 16)))
            link.send(frame(raw.DATA, route ^ 1, b"hello"))

    link.on_frame = on_frame
    client = raw.RawClient(target.control).greet()
    path = os.open("/", os.O_PATH)
    ask = body(raw.ASK_TUNNEL, 7, field(1, "mallory/x") + field(2, 1))
    client.pass_along(message("", ask, descriptors=2), [path, path])
    run([link, client], min(time.monotonic() + 1, until))
    opens = link.heard[raw.OPEN]
    link.close()
    run([client], until)
    client.close()
    os.close(path)
    return {"opens": opens}


@attack("12-carried")
def carried(target: Target, until: float, dice: random.Random) -> Counts:
    """A neighbour of bob uses a service of carl that is allowed to bob."""
    link = meet(target)
    link.send(open_frame(1, "carl/private"))
    run([link], min(time.monotonic() + 2, until))
    counts = {"accepted": link.heard[raw.ACCEPT], "refused": link.heard[raw.CLOSE]}
    link.close()
    return counts


@attack("14-links")
def discovery(target: Target, until: float, dice: random.Random) -> Counts:
    """900 live links that take part in discovery."""
    links: list[RawLink] = []
    refused = 0
    while time.monotonic() < until:
        if len(links) < target.count(900):
            try:
                link = raw.dial(f"d{len(links)}", target.door, raw_udp.loopback(dice), limit=5)
                link.send(raw.reach(link.instance))
                links.append(link)
            except OSError:
                refused += 1
        run(links, min(time.monotonic() + 0.001, until) if len(links) < target.count(900) else until)
    counts = {"links": len(links), "refused": refused, "reach": sum(link.heard[raw.REACH] for link in links)}
    for link in links:
        link.close()
    return counts | summary(*links)


STRANGE_NAMES = (".", "..", "PATH=x", "root@host")


@attack("15-names")
def strange_names(target: Target, until: float, dice: random.Random) -> Counts:
    """Names that mean something to others, and a listing whose names and details have 6,000 characters."""
    taken = []
    for name in STRANGE_NAMES:
        with contextlib.suppress(ConnectionError):
            meet(target, name).close()
            taken.append(name)
    link = meet(target, "mallory")

    def on_frame(kind: int, route: int, payload: bytes | int) -> None:
        if kind != raw.MESSAGE:
            return
        assert isinstance(payload, bytes)
        found = raw.fields(payload)
        origin, asked = found[2].decode(), found[3]
        if asked[0] == raw.ASK_LIST:
            number, _ = raw.read_varint(asked, 1)
            long = field(1, "service") + field(2, "service/" + "x" * 6000)
            wordy = field(1, "service") + field(2, "service/x") + field(3, "y" * 6000)
            answer = field(1, long) + field(1, wordy) + field(3, "mallory")
            link.send(message(origin, body(raw.IS_LISTING, number, answer)))

    link.on_frame = on_frame
    run([link], until)
    link.close()
    return {"taken": taken, **summary(link)}
