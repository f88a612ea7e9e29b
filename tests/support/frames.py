"""Frames as bytes: encoded and decoded whole or in slices, and changed at random."""

from __future__ import annotations

from random import Random

from r2box.proto.wire import frames as wire


def encode_all(frames: list[tuple[int, int, bytes]]) -> bytes:
    return wire.MAGIC + b"".join(wire.encode_frame(*frame) for frame in frames)


def decode_all(pieces: list[bytes]) -> list[tuple[int, int, bytes]]:
    """What a decoder makes of these, with the pieces of each DATA frame joined (frames next to each other too)."""
    decoder = wire.FrameDecoder()
    frames: list[tuple[int, int, bytes]] = []
    for piece in pieces:
        for kind, route, payload in decoder.feed(piece):
            if kind == wire.DATA and frames and frames[-1][:2] == (kind, route):
                frames[-1] = (kind, route, frames[-1][2] + bytes(payload))
            else:
                frames.append((kind, route, bytes(payload)))
    return frames


def slices(random: Random, data: bytes, most: int) -> list[bytes]:
    pieces = []
    while data:
        size = random.randint(1, most)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


# -- rubbish -----------------------------------------------------------------------------------------------------------


def mutate(random: Random, data: bytes) -> bytes:
    """A few bytes changed, inserted, removed or doubled."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out))
        how = random.randrange(5)
        if how == 0:
            out[at] ^= 1 << random.randrange(8)
        elif how == 1:
            out[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif how == 2:
            del out[at : at + random.randint(1, 9)]
        elif how == 3:
            out[at:at] = random.randbytes(random.randint(1, 9))
        else:
            out[at:at] = out[at : at + random.randint(1, 30)]
        out = out or bytearray(b"\x00")
    return bytes(out)
