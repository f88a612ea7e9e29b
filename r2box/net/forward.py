"""A tunnel for each connection that somebody makes: `r2 tunnel tcp-listen://...` and the like."""

from __future__ import annotations

import os

from ..proto import body as say
from ..proto.outcome import make_outcome
from .bridge import Bridge
from .channel import Channel, adopt
from .dial import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import TransportError
    from .client import Client
    from .log import Log
    from .loop import Loop
    from .senders import Senders
    from .transport import Transport

# Tunnels at a time: each may cost two descriptors here.  More connections wait until one has ended.
MAX_TUNNELS = 4096


class _Tunnel:
    """One connection, on the descriptor `fd`, and its tunnel."""

    def __init__(self, forwarder: Forwarder, fd: int) -> None:
        self.forwarder = forwarder
        self.fd = fd
        self.bridge: Bridge | None = None

    def heard(self, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == say.OPENED:
            self._opened(descriptors)
        elif body.kind in (say.ERROR, say.ENDED):
            outcome = make_outcome(body) if body.kind == say.ENDED else None
            failed = outcome is None or not outcome.is_clean
            self.forwarder.over(self, body.id, (outcome.describe() if outcome else body["text"]) if failed else "")
            if self.bridge is not None and failed:
                self.bridge.close()
            self._close()

    def _opened(self, descriptors: tuple[int, ...]) -> None:
        """It stands; `descriptors` are our end of it, if the daemon could not use the connection itself."""
        if descriptors:
            fd, self.fd = self.fd, -1
            self.bridge = Bridge(self.forwarder.loop, Channel(fd), adopt(descriptors), lambda why: None)
        else:
            self._close()  # so that its end is the daemon's or the service's to make

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def end(self) -> None:
        if self.bridge is not None:
            self.bridge.close()
        self._close()


class Forwarder:
    """Listens at `transport` and joins each connection, or each sender of UDP, to the service at `path`, which the log
    calls `name`.

    `failed(TransportError)` is called once if it cannot listen at all.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        client: Client,
        transport: Transport,
        path: tuple[str, ...],
        name: str,
        failed: Callable[[TransportError], None],
    ) -> None:
        self.loop = loop
        self._log = log
        self._client = client
        self._path = path
        self._name = name
        self._tunnels: set[_Tunnel] = set()
        self._listener: Listener | Senders
        if transport.is_datagrams:
            from .senders import Senders

            self._listener = Senders(loop, log, client, transport, path, name, failed)
        else:
            self._listener = Listener(loop, transport, self._taken, failed)

    def _taken(self, fd: int) -> None:
        tunnel = _Tunnel(self, fd)
        self._tunnels.add(tunnel)
        if len(self._tunnels) >= MAX_TUNNELS and isinstance(self._listener, Listener):
            self._listener.pause()
        self._log.debug(f"{self._name}: a connection")
        given: tuple[int, ...] = ()
        try:
            given = (os.dup(fd), os.dup(fd)) if self._client.link.passes else ()
        except OSError as error:
            self._log.error(f"{self._name}: {error.strerror}")
            self._tunnels.discard(tunnel)
            tunnel.end()
            return
        self._client.request(say.TUNNEL, tunnel.heard, (), given, target=self._path)

    def over(self, tunnel: _Tunnel, id: int, why: str) -> None:
        """A tunnel has ended, in good order if there is no reason."""
        self._client.forget(id)
        self._tunnels.discard(tunnel)
        if len(self._tunnels) < MAX_TUNNELS and isinstance(self._listener, Listener):
            self._listener.resume()
        if why:
            self._log.error(f"{self._name}: {why}")

    def end(self) -> None:
        """Take no more connections, and end those that there are."""
        self._listener.close()
        for tunnel in self._tunnels:
            tunnel.end()
