"""Datagrams in a tunnel: length-prefixed framing that preserves their boundaries in a byte stream.

Each datagram follows its length, 2 bytes in network byte order.  Credit counts these bytes as any other, and relays see
a plain stream.  So no datagram is split, merged or dropped inside a tunnel.  An end without credit reads no more from
its socket, and the kernel drops what exceeds the socket's buffer.
"""

from __future__ import annotations

from ...errors import WireError
from .frames import STREAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fields import Buffer

HEAD = 2  # bytes of a length
MAX_DATAGRAM = 0xFFFF  # bytes, as the length has 16 bits; UDP over IPv4 has 65,507, an IP packet at most 65,535


def describe_modes(mode: int) -> str:
    """Describe a service for tunnels of `mode`, for the error that refuses one of the other mode."""
    if mode == STREAM:
        return "takes a stream of bytes, and this is a tunnel of datagrams"
    return "takes datagrams (--datagrams, tun://, tap:// or udp://), and this tunnel is a stream of bytes"


def frame(datagram: Buffer) -> bytes:
    """Encode `datagram` with its length.  ValueError if it is too long."""
    if len(datagram) > MAX_DATAGRAM:
        raise ValueError(f"a datagram of {len(datagram)} bytes; at most {MAX_DATAGRAM} go into a tunnel")
    return len(datagram).to_bytes(HEAD, "big") + datagram


class DatagramSplitter:
    """Streaming decoder.  Holds less than one datagram."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, pieces: Sequence[Buffer]) -> list[Buffer]:
        """Return the datagrams that `pieces` complete.  `pieces` are copied."""
        data = b"".join((self._rest, *pieces))
        complete: list[Buffer] = []
        at, view = 0, memoryview(data)
        while at + HEAD <= len(data):
            end = at + HEAD + int.from_bytes(view[at : at + HEAD], "big")
            if end > len(data):
                break
            complete.append(view[at + HEAD : end])
            at = end
        self._rest = data[at:]
        return complete

    def end(self) -> None:
        """Check the end of the stream.  WireError if it is inside a datagram."""
        if self._rest:
            raise WireError("the stream has ended inside a datagram")
