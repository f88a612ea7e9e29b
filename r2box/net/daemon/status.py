"""Status report: links, tunnels, jobs and clients of the daemon, page by page (STATUS).

A StatusReport keeps the items that existed when its first page was requested, so each is reported at most once, and
changes meanwhile make no gaps.  The cost of a page is proportional to its length.

What a tunnel is stalled on is the first of these that applies:

    transport   a link that it crosses is suspended
    service     its server has not accepted it yet
    its reader  bytes wait for the program at this end to read them
    credit      bytes wait for the far end to read
    link        bytes wait for their turn on the link, or for room on it
    nothing     no bytes wait
"""

from __future__ import annotations

from ...proto.limits import TABLE
from ...proto.link.link import Link
from ...proto.link.stream import NullStreamEnd, Stream
from ...proto.routing.service_entry import ServiceEntry
from ...proto.wire import messages
from ...proto.wire.job_states import JobKind, JobState
from ..transport.peer import command_line, peer_address, peer_process
from .clients import LocalClient
from .job_table import JobRecord
from .switchboard import LocalTunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ...proto.limits import Limits
    from ..link.driver import LinkDriver
    from ..link.endpoint import Endpoint

MAX_TEXT = 512  # characters of a text from outside
MAX_ITEMS = 1000  # examined for one page, also such as are not reported: a few ms of the loop's time


class StatusReport:
    """All links, their tunnels, and all jobs at one moment; with `clients`, also the programs on the control socket.

    `ends` are the endpoints with their streams.
    """

    def __init__(
        self,
        drivers: dict[Link, LinkDriver],
        links: Iterable[Link],
        local_clients: Iterable[LocalClient],
        ends: dict[Endpoint, Stream],
        services: Mapping[str, ServiceEntry],
        clients: bool = False,
    ) -> None:
        self._drivers = drivers
        self._clients = {client.link.address: client for client in local_clients}
        self._items: list[Any] = [*links]
        for link in self._items[:]:
            self._items += link.streams.values()
        self._items += ends.items()
        for client in self._clients.values():
            self._items += (tunnel for tunnel in client.tunnels.values() if isinstance(tunnel, LocalTunnel))
        for client in self._clients.values():
            self._items += client.jobs.records.values()
        self._items += services.values()
        if clients:
            self._items += self._clients.values()

    def page(self, start: int, now: float) -> dict[str, Any]:
        """The fields of STATUS_IS from item number `start` on."""
        found: dict[str, list[bytes]] = {"links": [], "tunnels": [], "jobs": [], "clients": []}
        size = 0
        for number in range(start, len(self._items)):
            item = self._items[number]
            kind, encode = _ENCODERS[type(item)]
            line = encode(self, item, now)
            size += len(line) + 4
            if number - start >= MAX_ITEMS or (size > messages.MAX_LISTING and number > start):
                break
            if line:
                found[kind].append(line)
        else:
            number = 0
        return {"next": number, **{name: tuple(lines) for name, lines in found.items()}}

    def _link(self, link: Link, now: float) -> bytes:
        if link.is_down:
            return b""
        driver, sender = self._drivers.get(link), link.sender
        arq = driver.arq if driver is not None else None
        counted = arq.statistics if arq is not None else {}
        path = arq or sender.in_flight
        unacked = sender.replay.sent - sender.replay.acked
        again = unacked if link.is_suspended or sender.is_replaying else 0
        state = messages.LINK_UP if link.is_up else messages.LINK_PENDING
        return messages.LINK.encode(
            address=link.address or link.expect or "",
            state=messages.LINK_SUSPENDED if link.is_suspended else state,
            reason=link.reason[:MAX_TEXT],
            transport=link.transport[:MAX_TEXT],
            rate=int(path.rate),
            received=link.received,
            sent=sender.replay.sent,
            rtt=int(path.rtt * 1e6),
            packets=int(counted.get("sent", 0)),
            resent=int(counted.get("resent", 0)),
            resumes=sender.resumes,
            queue=sender.scheduler.waiting + again + (driver.unwritten if driver is not None else 0),
            unacked=unacked,
            tunnels=len(link.streams),
            age=_ms(now - link.begun),
            peer=peer_address(driver.channel)[:MAX_TEXT] if driver is not None else "",
        )

    def _crossing(self, stream: Stream, now: float) -> bytes:
        """A stream joined to another one, or to none yet; the others are reported with their endpoints."""
        is_ours = not (stream.opened_here or stream.close_sent) and isinstance(stream.far, (Stream, NullStreamEnd))
        return _tunnel(stream, None, now) if is_ours else b""

    def _ended(self, item: tuple[Endpoint, Stream], now: float) -> bytes:
        end, stream = item
        return b"" if end.is_over else _tunnel(stream, end, now)

    def _local(self, tunnel: LocalTunnel, now: float) -> bytes:
        if tunnel.client.tunnels.get(tunnel.id) is not tunnel:
            return b""
        who = tunnel.client.link.address
        return messages.ROUTE.encode(
            who=who, where=tunnel.where[:MAX_TEXT], way=messages.WAY_LOCAL, age=_ms(now - tunnel.begun), link=who,
            stalled=messages.FREE if tunnel.opened else messages.SERVICE, label=tunnel.id,
        )  # fmt: skip

    def _job(self, record: JobRecord, now: float) -> bytes:
        client = self._clients[record.client]
        return b"" if client.is_closed else record.line(now, self._process(client))

    def _service(self, service: ServiceEntry, now: float) -> bytes:
        client: LocalClient = service.owner
        return messages.JOB_LINE.encode(
            job=JobKind.SERVICE, state=JobState.UP, name=service.name, transport=service.detail[:MAX_TEXT],
            age=_ms(now - service.begun), client=client.link.address, pid=self._process(client),
        )  # fmt: skip

    def _client(self, client: LocalClient, now: float) -> bytes:
        if client.is_closed:
            return b""
        pid, software = self._process(client), client.link.peer["software"]
        return messages.CLIENT_LINE.encode(
            client=client.link.address, pid=pid, command=command_line(pid), software=software[:MAX_TEXT]
        )

    def _process(self, client: LocalClient) -> int:
        driver = self._drivers.get(client.link)
        return peer_process(driver.channel) if driver is not None else 0


_ENCODERS: dict[type, tuple[str, Callable[[StatusReport, Any, float], bytes]]] = {
    Link: ("links", StatusReport._link),
    Stream: ("tunnels", StatusReport._crossing),
    tuple: ("tunnels", StatusReport._ended),
    LocalTunnel: ("tunnels", StatusReport._local),
    JobRecord: ("jobs", StatusReport._job),
    ServiceEntry: ("jobs", StatusReport._service),
    LocalClient: ("clients", StatusReport._client),
}


def _tunnel(stream: Stream, end: Endpoint | None, now: float) -> bytes:
    """A tunnel that arrives on `stream`, or leaves on it from `end`."""
    there, back = stream.received, stream.sent
    way = messages.WAY_IN
    if stream.opened_here:
        there, back, way = back, there, messages.WAY_OUT
    elif isinstance(stream.far, Stream):
        way = messages.WAY_ACROSS
    return messages.ROUTE.encode(
        who=stream.who, where=stream.where, way=way, there=there, back=back, idle=_ms(now - stream.used),
        age=_ms(now - stream.begun), stalled=stalled_on(stream, end), link=stream.link.address, label=stream.key,
    )  # fmt: skip


def stalled_on(stream: Stream, end: Endpoint | None) -> int:
    """See the top of this module."""
    streams = [stream, stream.far] if isinstance(stream.far, Stream) else [stream]
    if any(one.link.is_suspended for one in streams):
        return messages.CUT
    if not stream.accepted:
        return messages.SERVICE
    if end is not None and (end.is_writing or stream.inbox.size):
        return messages.READER
    ready = [one for one in streams if one.far_ready and not (one.fin_sent or one.close_sent)]
    if any(not one.credit for one in ready):
        return messages.CREDIT
    return messages.TURN if any(one.queued for one in ready) else messages.FREE


def limit_lines(limits: Limits) -> tuple[bytes, ...]:
    """All limits, as one page of STATUS_IS."""
    return tuple(
        messages.LIMIT.encode(
            name=name, limit=limits[name], used=limits.used(name), peak=limits.peak[name], unit=row.unit, why=row.why
        )
        for name, row in TABLE.items()
    )


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 0)
