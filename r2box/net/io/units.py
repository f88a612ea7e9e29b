"""Durations and sizes as text: parsing for options and files, formatting for output."""

from __future__ import annotations

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
RESUME_TIMEOUT = 600  # seconds that a suspended link waits for another transport, by default
MAX_DURATION = 366 * 86400.0  # seconds; longer ones are mistakes, and exceed some timers of the system


def parse_duration(text: str) -> float:
    """Seconds of `text`: a number with the unit ms, s, m, h or d; the default is s.

    ValueError with the reason if it is invalid, or more than a year.
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
    """Seconds of a resume timeout, rounded up.  ValueError as `parse_duration`."""
    return -int(-parse_duration(text) // 1)


def format_duration(seconds: float) -> str:
    """The inverse of `parse_duration`, in the largest unit that gives an integer: `10m` for 600."""
    for unit, size in sorted(UNITS.items(), key=lambda item: -item[1]):
        count = round(seconds / size, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def parse_size(text: str) -> int:
    """Bytes of `text`: a number with the unit KiB, MiB or GiB, or none.  ValueError if it is invalid."""
    digits = text.rstrip("KMGiB ")
    unit = text[len(digits) :].strip()
    if unit not in SIZES or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is not a size: a number with KiB, MiB or GiB behind it, such as 256MiB")
    return int(digits) * SIZES[unit]


def format_size(count: float) -> str:
    """A number of bytes for output, rounded to two or three digits: `512 B`, `1.2 KiB`, `340 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 999.5 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:.0f} {unit}"


def format_span(seconds: float) -> str:
    """An elapsed time for output, rounded to one unit: `3 ms`, `12 s`, `5 min`, `30 h`, `12 d`."""
    for unit, size, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 0.9995)):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.3g} ms"
