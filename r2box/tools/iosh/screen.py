"""Control sequences that draw and erase a status line on the screen of another program.

The line is the top row, in reverse video.  Its former content is unknown, so the program has to redraw it.  Cursor,
colours and character set of the program are saved and restored (DECSC, DECRC).  The output may have stopped within an
escape sequence or a character: `find_unfinished` returns that part, which the drawing cancels and then repeats.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

KEPT = 256  # last bytes of the output, searched for an unfinished sequence; longer sequences are titles
_SAVE, _RESTORE, _CANCEL = b"\x1b7", b"\x1b8", b"\x18"
_TOP = b"\x1b[1;1H\x1b(B\x0f\x1b[0m"  # first row and column, US ASCII, plain


def find_unfinished(output: bytes) -> bytes:
    """The escape sequence or UTF-8 character that `output` ends within; empty if there is none."""
    start = output.rfind(b"\x1b")
    if start >= 0 and not _is_complete(output[start:]):
        return output[start:]
    for back in range(1, min(4, len(output) + 1)):
        byte = output[-back]
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return output[-back:] if size > back else b""
        if byte < 0x80:
            break
    return b""


def _is_complete(sequence: bytes) -> bool:
    """Whether `sequence`, which begins with the last ESC of the output, is complete (ECMA-48, 5.4 and 8.3)."""
    kind, rest = sequence[1:2], sequence[2:]
    if kind == b"[":
        return any(0x40 <= byte <= 0x7E for byte in rest)
    if kind in (b"]", b"P", b"X", b"^", b"_"):
        return b"\x07" in rest
    return any(0x30 <= byte <= 0x7E for byte in sequence[1:])


def draw_line(text: str, columns: int, unfinished: bytes = b"") -> bytes:
    """Show `text` in the top row, cut to `columns`; `unfinished` as returned by `find_unfinished`."""
    shown = text.encode("ascii", "replace")[: columns or 80]
    cancel = _CANCEL if unfinished else b""
    return cancel + _SAVE + _TOP + b"\x1b[7m" + shown + b"\x1b[K\x1b[0m" + _RESTORE + unfinished


def erase_line(unfinished: bytes = b"") -> bytes:
    """Clear the top row."""
    cancel = _CANCEL if unfinished else b""
    return cancel + _SAVE + _TOP + b"\x1b[2K" + _RESTORE + unfinished
