"""Datagrams in a tunnel: what keeps their boundaries in its stream of bytes.

In front of each stands its length, 2 bytes, the higher one first.  That is all: credit counts these bytes like any, and
nodes in the middle see a stream.  So no datagram is split or joined for a reader, and none is dropped inside: an end
without credit takes no more, and what comes there meanwhile is lost at the entry, where the system keeps a little.
"""

from __future__ import annotations

from ...errors import WireError
from .frames import STREAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fields import Buffer

HEAD = 2  # bytes of a length
MAX_DATAGRAM = 0xFFFF  # bytes: what 2 bytes can say; UDP over IPv4 has 65,507, an IP packet at most 65,535


def describe_modes(mode: int) -> str:
    """What a service that takes tunnels of `mode` is to say of itself to one of the other mode."""
    if mode == STREAM:
        return "takes a stream of bytes, and this is a tunnel of datagrams"
    return "takes datagrams (--datagrams, tun://, tap:// or udp://), and this tunnel is a stream of bytes"


def frame(datagram: Buffer) -> bytes:
    """`datagram` as it goes into the stream.  ValueError if it is too long."""
    if len(datagram) > MAX_DATAGRAM:
        raise ValueError(f"a datagram of {len(datagram)} bytes; at most {MAX_DATAGRAM} go into a tunnel")
    return len(datagram).to_bytes(HEAD, "big") + datagram


class DatagramSplitter:
    """Finds the datagrams in a stream that comes in any pieces.  It holds less than one datagram."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, pieces: Sequence[Buffer]) -> list[Buffer]:
        """The datagrams that are complete with `pieces`, which are copied and may change afterwards."""
        data = b"".join((self._rest, *pieces))
        whole: list[Buffer] = []
        at, view = 0, memoryview(data)
        while at + HEAD <= len(data):
            end = at + HEAD + int.from_bytes(view[at : at + HEAD], "big")
            if end > len(data):
                break
            whole.append(view[at + HEAD : end])
            at = end
        self._rest = data[at:]
        return whole

    def end(self) -> None:
        """The stream has ended.  WireError if it did inside a datagram."""
        if self._rest:
            raise WireError("the stream has ended inside a datagram")
