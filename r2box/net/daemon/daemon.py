"""The daemon: joins a Node to the loop and to the control socket.

Clients on the control socket request links, tunnels and services; descriptors travel beside their messages
(SCM_RIGHTS).  Links are driven here; `Switchboard` has the tunnels and services.
"""

from __future__ import annotations

import os
import sys

from ...errors import AddressError, RefusedError
from ...proto.arq.connection import ArqConnection
from ...proto.arq.packet import MAX_MTU, MIN_MTU, MTU
from ...proto.link.handshake import LocalPeer
from ...proto.link.keepalive import KEEPALIVE
from ...proto.link.link import DOWN, Link
from ...proto.link.resume import HALF, NONCE
from ...proto.memory_limit import MemoryLimit
from ...proto.routing.router import Router
from ...proto.routing.service_entry import ServiceEntry
from ...proto.wire import messages
from ...proto.wire.address import check_address
from ...proto.wire.outcome import ENDED, LOST, REFUSED, Outcome
from ...version import __version__
from ..io import reserve
from ..io.channel import Channel, adopt, check_usable, close_all
from ..io.units import format_duration
from ..link.driver import LinkDriver
from ..link.lossy_driver import LossyDriver
from ..link.opening import Opening
from ..link.turns import TurnGroup
from ..transport.peer import peer_address
from ..transport.policy_fields import policy_in
from .admission import Admission
from .blackhole import BlackholeCheck
from .clients import LocalClient
from .control_listener import ControlListener
from .status import StatusReport, limit_lines
from .switchboard import REQUESTS, Switchboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ...proto.limits import Limits
    from ...proto.link.stream import Stream
    from ..io.log import Log
    from ..io.loop import Loop, Timer

END_TIME = 8.0  # seconds until the daemon ends even if a neighbour or a client keeps its connection open
DRAIN_TIME = 2.0  # seconds to pass on what has been accepted when the daemon ends
# Seconds in which a request for an unknown name is answered with a time to retry.
STARTUP_TIME = 10.0  # after the daemon begins to listen: its first links are being made
HANDSHAKE_TIME = 2.0  # after a link gets its transport: the handshake and the first advertisements
MAX_WATCHES = 16  # of one client: it needs one


class Daemon:
    """The node `address`, and the `Host` of its Router.  `done()` is called when it has ended."""

    def __init__(self, loop: Loop, address: str, log: Log, done: Callable[[], None], limits: Limits) -> None:
        self.loop, self.log = loop, log
        self.limits, self.memory = limits, MemoryLimit()
        me = LocalPeer(check_address(address), os.urandom(16), software=f"r2box {__version__}")
        self.node = Router(me, self, self.limits)
        self.node.suspect = lambda attempt: BlackholeCheck(loop, self.node, attempt)
        self._done: Callable[[], None] | None = done
        self._drivers: dict[Link, LinkDriver] = {}
        self.switchboard = Switchboard(loop, log, self.node, self.limits)
        self._clients: dict[Link, LocalClient] = {}
        self._watchers: dict[LocalClient, None] = {}
        self._status: dict[LocalClient, StatusReport] = {}  # being read
        self.admission = Admission(self.limits, self.memory, self.node.links, loop, self._cut)
        self.group = TurnGroup(loop, self.admission)
        self._resume_timeout: dict[Link, Timer] = {}  # suspended links
        self._reports: dict[Link, tuple[LocalClient, int]] = {}  # the client and request that get a link's events
        self.control_listener: ControlListener | None = None
        self.changed: Callable[[], None] | None = None  # called when a link comes up or goes down
        self._ending = False
        self._is_closing_clients = False
        self._drain_timer: Timer | None = None
        self._alarm: Timer | None = None

    # -- the control socket --------------------------------------------------------------------------------------

    def listen(self, path: str, listener: socket.socket | None = None, is_ours: bool = True) -> None:
        """Accept clients at `path`; see `ControlListener`.  DaemonError if it cannot listen."""
        self.control_listener = ControlListener(self.loop, self.log, self.adopt_client, path, listener, is_ours)
        for finder in sys.meta_path:
            getattr(finder, "forget", tuple)()  # the archive's importer: its index is no longer needed
        self.node.settled = self.loop.now() + STARTUP_TIME
        self.log.info(f"{self.node.address}: listening at {path}")

    def summary(self) -> str:
        """One line: address, control socket, number of links and services."""
        assert self.control_listener is not None
        counts = {"link": len(self.node.links), "service": sum(map(bool, self.node.services))}  # "": the node's command
        has = ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items())
        return f"{self.node.address} at {self.control_listener.path}: {has}"

    def adopt_client(self, fd: int, refusal: str = "") -> None:
        """Take the other end of a connected UNIX socket as a client, or close it with `refusal`."""
        driver = self._drive(Link(self.node, self.node.local_peer, self.loop.now(), local=True), Channel(fd))
        if refusal:
            driver.link.close(refusal)

    def _drive(
        self, link: Link, channel: Channel, arq: ArqConnection | None = None, first: bytes = b""
    ) -> LinkDriver:
        def closed() -> None:
            del self._drivers[driver.link]
            self.admission.forget(driver.link)
            if self._is_closing_clients and not self._drivers:
                self._finish()

        if arq is None:
            driver = LinkDriver(self.group, link, channel, self.loop, closed)
        else:
            driver = LossyDriver(self.group, link, channel, self.loop, closed, arq, first)
        self._drivers[link] = driver
        return driver

    def _cut(self, link: Link) -> None:
        if link in self._drivers:
            self._drivers[link].cut()

    # -- Host of the router -----------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.loop.now()

    def up(self, link: Link) -> None:
        if link.is_local:
            self._clients[link] = LocalClient(self.loop, link)
            return
        self.admission.forget(link)
        self.log.info(f"{self.node.address}: linked to {link.address}")
        self.news("link-up", link.address, (link.address,), 0)
        self._report_link(link)

    def _report_link(self, link: Link) -> None:
        if link in self._reports:
            client, id_ = self._reports[link]
            client.send(messages.LINKED, id_, address=link.address)

    def suspended(self, link: Link, reason: str) -> None:
        assert link.session is not None
        waits = f"its tunnels wait {format_duration(link.session.resume_timeout)} for another transport"
        self.log.info(f"{self.node.address}: link to {link.address} suspended: {reason}; {waits}")
        self.news("link-cut", link.address, (link.address,), 0)
        if link in self._drivers:
            self._drivers[link].cut()
        self._set_resume_timeout(link)
        self.admission.suspended(link)
        self._report_end(link, LOST, f"suspended: {reason}; {waits}", cut=1)

    def _set_resume_timeout(self, link: Link) -> None:
        def expired() -> None:
            link.tick(self.loop.now())
            if link.is_suspended:  # the timer fired early
                self._set_resume_timeout(link)

        self._resume_timeout[link] = self.loop.later(link.deadline() - self.loop.now(), expired)

    def resumed(self, link: Link, attempt: Link) -> None:
        self.admission.resumed(link, attempt)
        self.admission.forget(attempt)
        self._resume_timeout.pop(link).cancel()
        link.transport = attempt.transport
        driver = self._drivers[link] = self._drivers.pop(attempt)
        if attempt in self._reports:
            client, id_ = self._reports[link] = self._reports.pop(attempt)
            client.attached[id_] = link
        over = f" over {link.transport}" if link.transport else ""
        self.log.info(f"{self.node.address}: link to {link.address} resumed{over}")
        self.news("link-resumed", link.address, (link.address,), 0)
        self._report_link(link)
        driver.carry(link)

    def down(self, link: Link, reason: str) -> None:
        if link.is_local:
            client = self._clients.pop(link, None)
            if client is not None:
                client.is_closed = True
                self._suspend_links(client)
                self._remove(client)
            return
        self.admission.resumed(link)
        if link.was_up or link not in self._reports:  # a failed handshake is reported to the client that requested it
            name = link.address or "a neighbour"
            self.log.info(f"{self.node.address}: link to {name} closed{': ' + reason if reason else ''}")
        if link.was_up:
            self.news("link-down", link.address, (link.address,), 0)
        if link in self._resume_timeout:
            self._resume_timeout.pop(link).cancel()
        self._report_end(link, ENDED if link.is_orderly else LOST, reason)

    def _report_end(self, link: Link, code: int, text: str, cut: int = 0) -> None:
        if link in self._reports:
            client, id_ = self._reports.pop(link)

            def report() -> None:
                client.attached.pop(id_, None)
                client.send(messages.ENDED, id_, code=code, text=text, cut=cut)

            self._after_close([link], report)

    def _after_close(self, links: list[Link], done: Callable[[], object]) -> None:
        """Call done() when those of `links` are closed whose transport ends with the client that lent it.

        Until then their neighbours may not have received BYE.
        """
        lent = [link for link in links if link.state == DOWN and link in self._drivers and self._drivers[link].is_lent]
        if lent:
            self._drivers[lent[0]].after_close.append(lambda: self._after_close(lent[1:], done))
        else:
            done()

    def wake(self, link: Link) -> None:
        driver = self._drivers.get(link)
        if driver is not None:
            driver.wake()

    def discard(self, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)

    def alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.later(max(0.0, when - self.loop.now()), lambda: self.node.tick(self.loop.now()))

    def note(self, text: str) -> None:
        self.log.warning(text)

    def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        if self.changed is not None and what.startswith("link-"):
            self.loop.soon(self.changed)
        for client in self._watchers:
            client.notify(what, name, path, cost)

    def request(self, link: Link, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        client = self._clients.get(link)
        if client is None:
            close_all(descriptors)
            return
        try:
            reserve.check(*descriptors)
            check_usable(descriptors)
            if body.kind not in (messages.ATTACH, messages.STARTED, messages.TUNNEL):  # only these carry descriptors
                close_all(descriptors)
                descriptors = ()
            if body.kind in _REQUESTS:
                _REQUESTS[body.kind](self, client, body, descriptors)
            elif body.kind in REQUESTS:
                REQUESTS[body.kind](self.switchboard, client, body, descriptors)
            else:
                raise RefusedError(f"{self.node.address}: unknown request 0x{body.kind:02x}")
        except (RefusedError, AddressError) as error:
            if body.is_request:
                client.fail(body.id, str(error), self.node.retry_time(error, self.loop.now()))
        except OSError as error:
            self.switchboard.refuse(client, body, error)

    def fd_relay(self, link: Link, stream: Stream) -> None:
        client = self._clients.get(link)
        if client is not None and not link.passes_descriptors:
            client.fd_relay.accept(stream)
        else:
            stream.close(Outcome(REFUSED, f"{self.node.address}: descriptors pass on this socket; no stream is needed"))

    def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None:
        self.switchboard.offer(service, stream, origin)

    def _suspend_links(self, client: LocalClient) -> None:
        """Suspend the links of a client that disconnected without LEAVE: they can resume over another transport."""
        for link in list(client.attached.values()):
            if link.session is not None:
                link.suspend("its r2 connect was killed", self.loop.now())

    def _remove(self, client: LocalClient) -> None:
        """End everything that belongs to a client."""
        client.jobs.clear()
        for id_, link in list(client.attached.items()):
            self._reports.pop(link, None)
            driver = self._drivers.get(link)
            if link.session is not None and driver is not None and driver.channel.is_ending:
                # The client ends because the transport has ended: read what came last, then suspend the link.
                del client.attached[id_]
            else:
                link.close("its r2 connect ended", orderly=True)
        self._watchers.pop(client, None)
        self.switchboard.forget(client)
        self._status.pop(client, None)

    def _on_watch(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if len(client.watching) >= MAX_WATCHES:
            raise RefusedError(f"{self.node.address}: more than {MAX_WATCHES} watches by one client")
        client.watching[body.id] = 0
        self._watchers[client] = None
        client.send(messages.DONE, body.id)

    def _on_leave(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        links = list(client.attached.values())
        self._remove(client)
        self._after_close(links, lambda: client.send(messages.DONE, body.id))

    def _on_status(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body["limits"]:
            client.send(messages.STATUS_IS, body.id, address=self.node.address, limits=limit_lines(self.limits))
            return
        if not body["start"]:
            links = (*self.node.links.values(), *self.admission.pending)
            ends, clients, services = self.switchboard.endpoints, self._clients.values(), self.node.services
            self._status[client] = StatusReport(self._drivers, links, clients, ends, services, bool(body["clients"]))
        report = self._status.get(client)
        if report is None:
            raise RefusedError(f"{self.node.address}: a report must be read from its start")
        page = report.page(body["start"], self.loop.now())
        if not page["next"]:
            del self._status[client]
        client.send(messages.STATUS_IS, body.id, address=self.node.address, **page)

    def _on_job(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        client.jobs.take(client.link.address, body, self.loop.now())

    # -- links ---------------------------------------------------------------------------------------------------

    def _on_attach(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        try:
            expect = check_address(body["address"]) if body["address"] else None
            if self._ending:
                raise RefusedError(f"{self.node.address}: is shutting down")
            if not 1 <= len(descriptors) <= 2 or body.id in client.attached:
                raise RefusedError(f"{self.node.address}: a link needs one or two descriptors and an unused id")
            self.admission.check(is_incoming=bool(body["incoming"]))
        except (RefusedError, AddressError):
            close_all(descriptors)
            raise
        self.node.settled = max(self.node.settled, self.loop.now() + HANDSHAKE_TIME)
        self._begin_link(client, body, expect, adopt(descriptors), bool(body["lossy"]))

    def _begin_link(
        self, client: LocalClient, body: messages.Body, expect: str | None, channel: Channel, lossy: bool,
        first: bytes = b"",
    ) -> None:  # fmt: skip
        """Begin a link over `channel`, with ARQ if it is `lossy`; `first` has been read from it already."""
        link = Link(
            self.node, self.node.local_peer, self.loop.now(), expect=expect, random=os.urandom(NONCE + HALF),
            resume_timeout=body["resume_timeout"], keepalive=body["keepalive"] or KEEPALIVE, memory=self.memory,
        )  # fmt: skip
        link.policy = policy_in(body)
        link.transport = body["transport"]
        source = peer_address(channel).rpartition(":")[0] if channel.is_inet else ""
        refusal = self.admission.add(link, bool(body["incoming"]), source, reserve.is_scarce(channel.write_fd))
        client.attached[body.id] = link
        self._reports[link] = (client, body.id)
        arq = None
        if lossy:
            mtu = max(MIN_MTU, min(body["mtu"] or MTU, MAX_MTU))
            arq = ArqConnection(int.from_bytes(os.urandom(4), "big") or 1, self.loop.now(), mtu)
        driver = self._drive(link, channel, arq, first)
        driver.is_lent = bool(body["lent"])
        if refusal:
            return link.close(refusal)
        if lossy:
            return

        def in_packets(first: bytes) -> None:
            """The neighbour uses ARQ: its first bytes are a packet.  Use ARQ here too."""
            driver.release()
            del self._drivers[link], self._reports[link]
            self.admission.forget(link)
            self._begin_link(client, body, expect, channel, True, first)

        def output(message: bytes) -> None:
            if link in self._reports:
                client.send(messages.OUTPUT, body.id, data=message)

        driver.opening = Opening(in_packets, output if body["runs"] else None)

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Shut down: refuse new clients, pass on what was accepted, send BYE.  If called again, end at once."""
        if self._ending:
            self._finish()
            return
        self.loop.later(END_TIME, self._finish)
        self._ending = self.switchboard.is_closed = True
        self.node.meters.end("is shutting down")  # else they would never be idle
        self.log.info(f"{self.node.address}: shutting down")
        if self.control_listener is not None:
            self.control_listener.close()
        for link, driver in self._drivers.items():
            driver.idle = self._maybe_drained
            if not link.is_local:
                driver.pause()
        for end in self.switchboard.endpoints:
            end.idle = self._maybe_drained
        self._drain_timer = self.loop.later(DRAIN_TIME, self._drained)
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        is_idle = all(driver.is_idle for driver in self._drivers.values())
        if is_idle and not any(end.is_writing for end in self.switchboard.endpoints):
            self._drained()

    def _drained(self) -> None:
        """Everything accepted was passed on, or `DRAIN_TIME` is over: close links, then end programs and clients."""
        if self._drain_timer is None:
            return
        self._drain_timer.cancel()
        self._drain_timer = None
        self._close_links(local=False)
        why = f"{self.node.address} is shutting down"
        self.switchboard.end(why, lambda: self._after_close(list(self._drivers), lambda: self._close_links(local=True)))

    def _close_links(self, *, local: bool) -> None:
        """Send BYE to all neighbours, or to all clients."""
        for link in [link for link in (*self._drivers, *self._resume_timeout) if link.is_local == local]:
            link.close(f"{self.node.address} is shutting down", orderly=True)
        self._is_closing_clients = local
        if local and not self._drivers:
            self._finish()

    def release(self) -> None:
        """Close all descriptors without BYE, for a process that continues without this daemon."""
        self._done = None
        if self.control_listener is not None:
            self.control_listener.close()
        for driver in list(self._drivers.values()):
            driver.cut()
        for end in list(self.switchboard.endpoints):
            end.channel.close()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()


_REQUESTS: dict[int, Callable[[Daemon, LocalClient, messages.Body, tuple[int, ...]], None]] = {
    messages.LEAVE: Daemon._on_leave,
    messages.WATCH: Daemon._on_watch,
    messages.ATTACH: Daemon._on_attach,
    messages.STATUS: Daemon._on_status,
    messages.JOB: Daemon._on_job,
}
