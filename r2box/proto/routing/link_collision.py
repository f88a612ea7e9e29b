"""Two links to one neighbour: which of them stays.

A second link to an address that is already linked: the first link is probed while the second one waits.  If it answers,
the second is refused; if not, it is taken for dead and the second takes its place, or its session up.  So a neighbour
that lost its connection without a BYE is back within `PROBE` seconds, and a living neighbour cannot be pushed out by
using its name.  A link that is suspended is dead already: a neighbour that proves that it was at the other end resumes
it, and one that has restarted ends it.

Two nodes that connect to each other at the same moment may find both links up before either could be probed: then the
node with the greater instance closes its second one, and the other lets it.
"""

from __future__ import annotations

from ...errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..link.handshake import Me
    from ..link.link import Link

PROBE = 3.0  # seconds for an old link to show that it lives


class LinkCollision:
    """Keeps `links`, the neighbours of the node `me` by address, so that there is one link to each."""

    def __init__(self, me: Me, links: dict[str, Link]) -> None:
        self._me = me
        self._links = links
        self._second: dict[str, Link] = {}  # links that wait for what becomes of an older one

    def _already(self, link: Link) -> str:
        return f"{self._me.address} is already linked to {link.address}"

    def hello(self, link: Link) -> None:
        """The neighbour has said who it is: accept it, or see what becomes of the link that it has already."""
        if link.address in self._second:
            raise WireError(self._already(link))
        old = self._links.get(link.address)
        if old is None:
            link.accept()
        elif old.is_suspended:
            self._replace(old, link)
        else:
            self._second[link.address] = link
            link.take_up(old)  # the other side may know already that the old one is cut
            old.probe(link.now, PROBE)

    @staticmethod
    def _replace(old: Link, second: Link) -> None:
        """`old` is suspended."""
        if not second.take_up(old):
            old.close(f"{old.address} has begun anew")
            second.accept()

    def suspended(self, link: Link) -> None:
        second = self._second.get(link.address)
        if second is None:
            return
        if second.is_up:  # both were up: the one that has a transport stays
            link.close(self._already(link))
        else:
            del self._second[link.address]
            self._replace(link, second)

    def resumed(self, link: Link, second: Link) -> None:
        if self._second.get(link.address) is second:
            del self._second[link.address]

    def alive(self, link: Link) -> None:
        """The link that was probed has answered."""
        second = self._second.pop(link.address, None)
        if second is not None:
            second.close(self._already(link))

    def up(self, link: Link) -> bool:
        """Whether it stays."""
        old = self._links.setdefault(link.address, link)
        if old is link:
            return True
        if self._me.instance > link.peer["instance"]:
            link.close(self._already(link))
            return False
        self._second[link.address] = link
        if old.is_suspended:
            old.close(f"{link.address} has begun anew")
        return True

    def down(self, link: Link) -> None:
        """Forget it; `promote` must follow."""
        for table in (self._links, self._second):
            if table.get(link.address) is link:
                del table[link.address]

    def promote(self, address: str) -> None:
        """A link that waited takes the place of one that is down."""
        if address in self._links or address not in self._second:
            return
        second = self._second.pop(address)
        if second.is_up:
            self._links[address] = second
        else:
            second.accept()
