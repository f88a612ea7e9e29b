"""The daemon: joins a Node to the loop and to the control socket.

It is a switchboard.  Clients on the control socket ask for links, tunnels and services; descriptors travel beside
their messages (SCM_RIGHTS).  Links are driven here; tunnels and services are the `Switchboard`'s.
"""

from __future__ import annotations

import os
import sys

from ...errors import AddressError, RefusedError
from ...proto.arq.connection import ArqConnection
from ...proto.arq.packet import MAX_MTU, MIN_MTU, MTU
from ...proto.link.handshake import Me
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

END_TIME = 8.0  # seconds after which the daemon ends even if a neighbour or a client will not part
DRAIN_TIME = 2.0  # seconds for what has been accepted to be passed on when the daemon ends
# Seconds in which a client that asks for a name that is not known is told to ask again.
YOUNG = 10.0  # after the daemon has begun to listen: its first links are being made
LINKING = 2.0  # after a link has got its transport: the handshake and the first advertisements
MAX_WATCHES = 16  # by one client: it needs one


class Daemon:
    """The node `address`.  `done()` is called when it has ended.  It is the `Host` of its Node."""

    def __init__(self, loop: Loop, address: str, log: Log, done: Callable[[], None], limits: Limits) -> None:
        self.loop, self.log = loop, log
        self.limits, self.memory = limits, MemoryLimit()
        me = Me(check_address(address), os.urandom(16), software=f"r2box {__version__}")
        self.node = Router(me, self, self.limits)
        self.node.suspect = lambda attempt: BlackholeCheck(loop, self.node, attempt)
        self._done: Callable[[], None] | None = done
        self._drivers: dict[Link, LinkDriver] = {}
        self.switchboard = Switchboard(loop, log, self.node, self.limits)
        self._clients: dict[Link, LocalClient] = {}
        self._watchers: dict[LocalClient, None] = {}
        self._status: dict[LocalClient, StatusReport] = {}  # that are being read
        self.admission = Admission(self.limits, self.memory, self.node.links, loop, self._cut)
        self.group = TurnGroup(loop, self.admission)
        self._resume_timeout: dict[Link, Timer] = {}  # links that wait for a transport
        self._reports: dict[Link, tuple[LocalClient, int]] = {}  # who wants to hear of a link
        self.control_listener: ControlListener | None = None
        self.changed: Callable[[], None] | None = None  # called when links come and go
        self._ending = False
        self._is_parted = False  # from everybody
        self._drain_timer: Timer | None = None
        self._alarm: Timer | None = None

    # -- the control socket --------------------------------------------------------------------------------------

    def listen(self, path: str, listener: socket.socket | None = None, is_ours: bool = True) -> None:
        """Take clients at `path`, as `ControlListener` has it.  DaemonError if that cannot be."""
        self.control_listener = ControlListener(self.loop, self.log, self.adopt_client, path, listener, is_ours)
        for finder in sys.meta_path:
            getattr(finder, "forget", tuple)()  # the archive's own: what is not imported by now need not be kept
        self.node.settled = self.loop.now() + YOUNG
        self.log.info(f"{self.node.address}: listening at {path}")

    def summary(self) -> str:
        """What the node is and has, in one line."""
        links, services = len(self.node.links), sum(map(bool, self.node.services))  # "" is the node's own command
        assert self.control_listener is not None
        has = ", ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in ((links, "link"), (services, "service")))
        return f"{self.node.address} at {self.control_listener.path}: {has}"

    def adopt_client(self, fd: int, refusal: str = "") -> None:
        """Take the other end of a connected UNIX socket as a client, or refuse it with a reason."""
        driver = self._drive(Link(self.node, self.node.me, self.loop.now(), local=True), Channel(fd))
        if refusal:
            driver.link.close(refusal)

    def _drive(
        self, link: Link, channel: Channel, arq: ArqConnection | None = None, first: bytes = b""
    ) -> LinkDriver:
        def gone() -> None:
            del self._drivers[driver.link]
            self.admission.forget(driver.link)
            if self._is_parted and not self._drivers:
                self._finish()

        if arq is None:
            driver = LinkDriver(self.group, link, channel, self.loop, gone)
        else:
            driver = LossyDriver(self.group, link, channel, self.loop, gone, arq, first)
        self._drivers[link] = driver
        return driver

    def _cut(self, link: Link) -> None:
        if link in self._drivers:
            self._drivers[link].cut()

    # -- what the node wants (Host) --------------------------------------------------------------------------------

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
        self.log.info(f"{self.node.address}: the link to {link.address} was cut: {reason}; {waits}")
        self.news("link-cut", link.address, (link.address,), 0)
        if link in self._drivers:
            self._drivers[link].cut()
        self._resume_timeout[link] = self.loop.later(link.deadline() - self.loop.now(), lambda: self._give_up(link))
        self.admission.suspended(link)
        self._report_end(link, LOST, f"cut: {reason}; {waits}", cut=1)

    def _give_up(self, link: Link) -> None:
        link.tick(self.loop.now())
        if link.is_suspended:  # the timer came a little early
            self._resume_timeout[link] = self.loop.later(link.deadline() - self.loop.now(), lambda: self._give_up(link))

    def resumed(self, link: Link, newcomer: Link) -> None:
        self.admission.resumed(link, newcomer)
        self.admission.forget(newcomer)
        self._resume_timeout.pop(link).cancel()
        link.transport = newcomer.transport
        driver = self._drivers[link] = self._drivers.pop(newcomer)
        if newcomer in self._reports:
            client, id_ = self._reports[link] = self._reports.pop(newcomer)
            client.attached[id_] = link
        self.log.info(f"{self.node.address}: the link to {link.address} goes on")
        self.news("link-resumed", link.address, (link.address,), 0)
        self._report_link(link)
        driver.carry(link)

    def down(self, link: Link, reason: str) -> None:
        if link.is_local:
            client = self._clients.pop(link, None)
            if client is not None:
                client.is_closed = True
                self._abandon_links(client)
                self._forget(client)
            return
        self.admission.resumed(link)
        if link.was_up or link not in self._reports:  # what never was a link is told to who tried
            name = link.address or "a neighbour"
            self.log.info(f"{self.node.address}: the link to {name} has ended{': ' + reason if reason else ''}")
        if link.was_up:
            self.news("link-down", link.address, (link.address,), 0)
        if link in self._resume_timeout:
            self._resume_timeout.pop(link).cancel()
        self._report_end(link, ENDED if link.is_orderly else LOST, reason)

    def _report_end(self, link: Link, code: int, text: str, cut: int = 0) -> None:
        if link in self._reports:
            client, id_ = self._reports.pop(link)

            def tell() -> None:
                client.attached.pop(id_, None)
                client.send(messages.ENDED, id_, code=code, text=text, cut=cut)

            self._when_parted([link], tell)

    def _when_parted(self, links: list[Link], done: Callable[[], object]) -> None:
        """Call done() when the neighbours have heard why these links ended that go over what clients have lent us."""
        lent = [link for link in links if link.state == DOWN and link in self._drivers and self._drivers[link].is_lent]
        if lent:
            self._drivers[lent[0]].parted.append(lambda: self._when_parted(lent[1:], done))
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
            if body.kind in _REQUESTS:
                _REQUESTS[body.kind](self, client, body, descriptors)
            elif body.kind in REQUESTS:
                if body.kind not in (messages.STARTED, messages.TUNNEL):  # which alone may bring any
                    close_all(descriptors)
                    descriptors = ()
                REQUESTS[body.kind](self.switchboard, client, body, descriptors)
            else:
                close_all(descriptors)
                raise RefusedError(f"{self.node.address}: does not know the request 0x{body.kind:02x}")
        except (RefusedError, AddressError) as error:
            if body.is_request:
                client.fail(body.id, str(error), self.node.again(error, self.loop.now()))
        except OSError as error:
            self.switchboard.refuse(client, body, error)

    def fd_relay(self, link: Link, stream: Stream) -> None:
        client = self._clients.get(link)
        if client is not None and not link.passes:
            client.fd_relay.arrive(stream)
        else:
            stream.close(Outcome(REFUSED, f"{self.node.address}: descriptors pass on this socket"))

    def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None:
        self.switchboard.offer(service, stream, origin)

    def _abandon_links(self, client: LocalClient) -> None:
        """A client has died and did not say that its links are to end: they can go on over another transport."""
        for link in list(client.attached.values()):
            if link.session is not None:
                link.suspend("its r2 connect has died", self.loop.now())

    def _forget(self, client: LocalClient) -> None:
        """A client is gone, and all that hung on it goes too."""
        client.jobs.clear()
        for id_, link in list(client.attached.items()):
            self._reports.pop(link, None)
            driver = self._drivers.get(link)
            if link.session is not None and driver is not None and driver.channel.is_ending:
                # Whoever ran it ends it because the transport has ended: that is a cut.  What came last is still read.
                del client.attached[id_]
            else:
                link.close("its r2 connect has ended", orderly=True)
        self._watchers.pop(client, None)
        self.switchboard.forget(client)
        self._status.pop(client, None)

    def _on_watch(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        if len(client.watching) >= MAX_WATCHES:
            raise RefusedError(f"{self.node.address}: a client may watch {MAX_WATCHES} times at once")
        client.watching[body.id] = 0
        self._watchers[client] = None
        client.send(messages.DONE, body.id)

    def _on_leave(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        links = list(client.attached.values())
        self._forget(client)
        self._when_parted(links, lambda: client.send(messages.DONE, body.id))

    def _on_status(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        if body["limits"]:
            client.send(messages.STATUS_IS, body.id, address=self.node.address, limits=limit_lines(self.limits))
            return
        if not body["start"]:
            links = (*self.node.links.values(), *self.admission.pending)
            ends, clients, services = self.switchboard.endpoints, self._clients.values(), self.node.services
            self._status[client] = StatusReport(self._drivers, links, clients, ends, services, bool(body["clients"]))
        report = self._status.get(client)
        if report is None:
            raise RefusedError(f"{self.node.address}: a report is read from its beginning")
        page = report.page(body["start"], self.loop.now())
        if not page["next"]:
            del self._status[client]
        client.send(messages.STATUS_IS, body.id, address=self.node.address, **page)

    def _on_job(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        client.jobs.take(client.link.address, body, self.loop.now())

    # -- links ---------------------------------------------------------------------------------------------------

    def _on_attach(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        try:
            expect = check_address(body["address"]) if body["address"] else None
            if self._ending:
                raise RefusedError(f"{self.node.address}: is shutting down")
            if not 1 <= len(descriptors) <= 2 or body.id in client.attached:
                raise RefusedError(f"{self.node.address}: a link needs one descriptor, or two, and an id of its own")
            self.admission.check(is_incoming=bool(body["incoming"]))
        except (RefusedError, AddressError):
            close_all(descriptors)
            raise
        self.node.settled = max(self.node.settled, self.loop.now() + LINKING)
        self._begin_link(client, body, expect, adopt(descriptors), bool(body["lossy"]))

    def _begin_link(
        self, client: LocalClient, body: messages.Body, expect: str | None, channel: Channel, lossy: bool,
        first: bytes = b"",
    ) -> None:  # fmt: skip
        """A link over `channel`, in packets if it is `lossy`; `first` has been read from it already."""
        link = Link(
            self.node, self.node.me, self.loop.now(), expect=expect, random=os.urandom(NONCE + HALF),
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
            """A neighbour that repairs losses says so by beginning with a packet: then we do it too."""
            driver.release()
            del self._drivers[link], self._reports[link]
            self.admission.forget(link)
            self._begin_link(client, body, expect, channel, True, first)

        def shown(message: bytes) -> None:
            if link in self._reports:
                client.send(messages.OUTPUT, body.id, data=message)

        driver.opening = Opening(in_packets, shown if body["runs"] else None)

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End in order: take no new clients, pass on what was accepted, say BYE.  Called again, end at once."""
        if self._ending:
            self._finish()
            return
        self.loop.later(END_TIME, self._finish)
        self._ending = self.switchboard.is_closed = True
        self.node.meters.end("is shutting down")  # they would never be idle
        self.log.info(f"{self.node.address}: ending")
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
        """Nothing that was accepted is left here, or nobody takes it: part from the neighbours, then end what runs."""
        if self._drain_timer is None:
            return
        self._drain_timer.cancel()
        self._drain_timer = None
        self._part(False)
        why = f"{self.node.address} is shutting down"
        self.switchboard.end(why, lambda: self._when_parted(list(self._drivers), lambda: self._part(True)))

    def _part(self, local: bool) -> None:
        """Say farewell to all neighbours, or to all clients."""
        for link in [link for link in (*self._drivers, *self._resume_timeout) if link.is_local == local]:
            link.close(f"{self.node.address} is shutting down", orderly=True)
        self._is_parted = local
        if local and not self._drivers:
            self._finish()

    def release(self) -> None:
        """Give back the descriptors that are left, for a process that goes on.  Nothing is said to anybody."""
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
