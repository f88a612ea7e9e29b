"""Link collision: the choice between two links to one neighbour, as BGP's connection collision (RFC 4271, 6.8).

When a second link to the same address appears, the first one is probed while the second waits.  If the first answers,
the second is refused.  If not, the first has failed, and the second replaces it or resumes its session.  So a neighbour
that lost its connection without BYE is back within `PROBE` seconds, and a live neighbour cannot be displaced by using
its address.  A suspended link needs no probe: a neighbour that proves the session resumes it, and one that has
restarted replaces it.

Two nodes that connect to each other at the same moment may have both links up before either is probed.  Then the node
with the greater instance closes the second link.
"""

from __future__ import annotations

from ...errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..link.handshake import LocalPeer
    from ..link.link import Link

PROBE = 3.0  # seconds in which the old link must answer


class LinkCollision:
    """Maintains `links`, the neighbours of the node `local_peer` by address: one link to each."""

    def __init__(self, local_peer: LocalPeer, links: dict[str, Link]) -> None:
        self._local_peer = local_peer
        self._links = links
        self._second: dict[str, Link] = {}  # second links, which wait for the result of the probe

    def _already(self, link: Link) -> str:
        return f"{self._local_peer.address} is already linked to {link.address}"

    def hello(self, link: Link) -> None:
        """HELLO was received: accept the link, or probe the one that exists."""
        if link.address in self._second:
            raise WireError(self._already(link))
        old = self._links.get(link.address)
        if old is None:
            link.accept()
        elif old.is_suspended:
            self._replace(old, link)
        else:
            self._second[link.address] = link
            link.try_resume(old)  # the neighbour may have suspended the old one already
            old.probe(link.now, PROBE)

    @staticmethod
    def _replace(old: Link, second: Link) -> None:
        """Replace the suspended link `old` by `second`, or resume it there."""
        if not second.try_resume(old):
            old.close(f"{old.address} has restarted")
            second.accept()

    def suspended(self, link: Link) -> None:
        second = self._second.get(link.address)
        if second is None:
            return
        if second.is_up:  # both were up
            link.close(self._already(link))
        else:
            del self._second[link.address]
            self._replace(link, second)

    def resumed(self, link: Link, second: Link) -> None:
        if self._second.get(link.address) is second:
            del self._second[link.address]

    def alive(self, link: Link) -> None:
        """The probed link has answered."""
        second = self._second.pop(link.address, None)
        if second is not None:
            second.close(self._already(link))

    def up(self, link: Link) -> bool:
        """Register `link`; False if it is closed as the second one."""
        old = self._links.setdefault(link.address, link)
        if old is link:
            return True
        if self._local_peer.instance > link.peer["instance"]:
            link.close(self._already(link))
            return False
        self._second[link.address] = link
        if old.is_suspended:
            old.close(f"{link.address} has restarted")
        return True

    def down(self, link: Link) -> None:
        """Remove a link that is down; `promote` must follow."""
        for table in (self._links, self._second):
            if table.get(link.address) is link:
                del table[link.address]

    def promote(self, address: str) -> None:
        """Let the second link to `address` replace one that is down."""
        if address in self._links or address not in self._second:
            return
        second = self._second.pop(address)
        if second.is_up:
            self._links[address] = second
        else:
            second.accept()
