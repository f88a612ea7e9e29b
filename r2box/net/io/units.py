"""Quantities with a unit, as people write them in options and files."""

from __future__ import annotations

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
RESUME_TIMEOUT = 600  # seconds that the tunnels of a link wait for another transport after a cut, by default
MAX_DURATION = 366 * 86400.0  # seconds; what is longer is a mistake, and some timers of the system end there


def parse_duration(text: str) -> float:
    """The seconds that `text` stands for: a number, seconds if nothing else is said, with ms, s, m, h or d behind it.

    ValueError with the reason for anything else, and for more than a year.
    """
    digits = text.rstrip("mshd")
    unit = text[len(digits) :] or "s"
    plain = digits.replace(".", "", 1)
    if unit not in UNITS or not (plain.isascii() and plain.isdigit()):
        raise ValueError(f"{text!r} is not a duration: a number with ms, s, m, h or d behind it, such as 30s")
    seconds = float(digits) * UNITS[unit]
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is more than a year")
    return seconds


def parse_resume_timeout(text: str) -> int:
    """A time to wait for another transport, in whole seconds, rounded up.  ValueError if `text` is none."""
    return -int(-parse_duration(text) // 1)


def format_duration(seconds: float) -> str:
    """The same for people, in the largest unit that gives a whole number: `10m` for 600."""
    for unit, size in sorted(UNITS.items(), key=lambda item: -item[1]):
        count = round(seconds / size, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def parse_size(text: str) -> int:
    """The bytes that `text` stands for: a number with KiB, MiB or GiB behind it.  ValueError for anything else."""
    digits = text.rstrip("KMGiB ")
    unit = text[len(digits) :].strip()
    if unit not in SIZES or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is not a size: a number with KiB, MiB or GiB behind it, such as 256MiB")
    return int(digits) * SIZES[unit]


def format_size(count: float) -> str:
    """A number of bytes for people, in three digits: `512 B`, `1.2 KiB`, `340 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 999.5 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:.0f} {unit}"


def format_span(seconds: float) -> str:
    """A time that has passed, for people, in one unit: `3 ms`, `12 s`, `5 min`, `30 h`, `12 d`."""
    for unit, size, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 0.9995)):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.3g} ms"
