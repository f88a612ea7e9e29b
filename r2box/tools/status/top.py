"""r2 top: the state of the links, tunnels and jobs of a node, refreshed at intervals.

    Top      what is displayed, and the keys
    Screen   the terminal: non-blocking output, and restored at exit
"""

from __future__ import annotations

import os
import re
import signal
import termios
import time

from ...cli.command import Command, Option
from ...cli.tables import display_width, table
from ...errors import OK, SIGNALLED, UsageError
from ...net.client.client import Client, ask
from ...net.client.status_rows import fetch
from ...net.io.signals import FATAL
from ...proto.wire.address import join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...cli.command import Args
    from ...net.client.status_rows import Row
    from ...net.io.loop import Loop, Timer

_SEQUENCE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]")  # of a cursor key and the like
MIN_DELAY = 0.1  # seconds, to limit the load of the daemon
SHOWN = {
    "link": "address state sent_rate received_rate sent received rtt loss tunnels age".split(),
    "tunnel": "from to sent_rate received_rate sent received idle age stalled".split(),
    "job": "job name state next transport detail".split(),
}
# Sort keys, in the order of < and >, and their fields.  A table without the field keeps its order.
SORTS = {
    "name": "key", "state": "state", "from": "from", "to": "to", "rate": "flow", "bytes": "bytes", "sent": "sent",
    "received": "received", "rtt": "rtt", "loss": "loss", "queue": "queue", "tunnels": "tunnels", "idle": "idle",
    "age": "age", "stalled": "stalled",
}  # fmt: skip
HELP = """\
 q             quit
 space, enter  refresh now
 d, s          change the refresh interval
 < >           sort by the previous or next column
 R             reverse the order
 r b i N       sort by rate, bytes, idle time, name
 l t j         hide or show links, tunnels, or jobs
 n, #          limit the number of rows
 h, ?          this help; any key ends it

 Rates are since the last refresh.  SENT is from FROM to TO, BACK is from TO to
 FROM; OUT and IN are relative to this node."""

TOP = Command(
    "r2 top",
    "watch the links, tunnels and jobs of the local node",
    options=[
        Option(("-d", "--delay"), "refresh every SECONDS", "SECONDS", kind="float", default=2.0),
        Option(("-n", "--count"), "exit after COUNT refreshes", "COUNT", kind="int"),
        Option(("-b", "--batch"), "batch mode: print successive tables, as without a terminal", kind="flag"),
        Option(("-o", "--order"), "sort by COLUMN: " + ", ".join(SORTS), "COLUMN", default="rate", choices=[*SORTS]),
    ],
    description=(
        "Displays the tables of r2 status, with rates since the last refresh.  Keys are those of top(1): q "
        "quits and h lists the others.  Numbers are sorted in descending order.  With NO_COLOR set, reverse "
        "video is not used."
    ),
    examples=[("r2 top -b -n 2 -d 10", "measure rates over ten seconds")],
    statuses=[("0", "done"), ("1", "there is no daemon, or it ended"), ("2", "wrong usage"), ("128+N", "signal N")],
    seealso=["r2(1)", "top(1)"],
)


class Screen:
    """The terminal at stdin and stdout.  Calls `key(character)` for each character of input."""

    def __init__(self, loop: Loop, key: Callable[[str], None], ended: Callable[[], None]) -> None:
        self._loop, self._key, self._ended = loop, key, ended
        self._modes: list[Any] | None = None  # to restore
        self._left = b""  # of the last frame: not written yet
        self._reverse = ("", "") if os.environ.get("NO_COLOR") else ("\x1b[7m", "\x1b[m")
        try:  # a separate open file: O_NONBLOCK must not affect other processes that share stdout
            self._fd = os.open(os.ttyname(1), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._fd = os.dup(1)
        loop.watch(0, self._typed)

    def enter(self) -> None:
        """Set up the terminal, also after a suspension."""
        if self._modes is None:
            self._modes = termios.tcgetattr(0)
        modes = [*self._modes[:6], list(self._modes[6])]
        modes[3] &= ~(termios.ICANON | termios.ECHO)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, modes)
        self._write(b"\x1b[?1049h\x1b[?25l\x1b[2J")

    def leave(self) -> None:
        """Restore the terminal.  The loop may be closed already."""
        modes, self._modes = self._modes, None
        if modes is None:
            return
        self._left = b""
        try:
            termios.tcflow(0, termios.TCOON)  # a Ctrl-S would block the write
            os.write(1, b"\x1b[m\x1b[?25h\x1b[?1049l")
            termios.tcsetattr(0, termios.TCSANOW, modes)
        except (OSError, termios.error):
            return  # the terminal has hung up

    def draw(self, lines: list[tuple[str, bool]]) -> None:
        """Draw the lines that fit (True: a heading); nothing while the last frame is not written."""
        if self._left or self._modes is None:
            return
        width, height = self.size
        on, off = self._reverse
        shown = [f"{on}{line[:width]:{width}}{off}" if head else line[:width] for line, head in lines[:height]]
        # Erase each line before writing it: after a full line, some terminals erase its last character.
        above, last = "".join(f"\x1b[K{line}\r\n" for line in shown[:-1]), shown[-1]
        self._write(f"\x1b[H{above}\x1b[J{last}".encode("utf-8", "replace"))

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        width, height = os.get_terminal_size(1)
        return width or 80, height or 24

    def _write(self, data: bytes) -> None:
        self._left += data
        self._flush()

    def _flush(self) -> None:
        try:
            self._left = self._left[os.write(self._fd, self._left) :]
        except BlockingIOError:
            pass  # the loop calls again when it is writable
        except OSError:
            self._ended()
            return
        self._loop.watch(self._fd, None, self._flush if self._left else None)

    def _typed(self) -> None:
        try:
            data = os.read(0, 1024)
        except OSError:  # hung up
            data = b""
        if not data:
            self._loop.watch(0)
            self._ended()
        for character in _SEQUENCE.sub("", data.decode("utf-8", "replace")):
            self._key(character)


class Top:
    def __init__(self, args: Args) -> None:
        self.status = OK
        self.delay: float = args.delay
        self.refreshes: int | None = args.count
        self.order: str = args.order
        self.is_reversed = False
        self.hidden: set[str] = set()  # kinds of rows
        self.most = 0  # rows of a kind; 0: all that fit
        self.screen: Screen | None = None
        moves = os.environ.get("TERM") != "dumb"  # the cursor can be moved
        self._is_live = not args.batch and moves and os.isatty(0) and os.isatty(1)
        self._path = join_targets(args.target)
        self._address = ""
        self._rows: list[Row] = []
        self._at = 0.0  # their time; 0: none
        self._is_fetching = False
        self._timer: Timer | None = None
        self._is_helping = False
        self._prompt: Callable[[float], None] | None = None  # called with the number that is typed
        self._typed = ""
        self._note = ""

    def begin(self, client: Client, done: Callable[[], None]) -> None:
        self._client, self._done = client, done
        loop = client.loop
        loop.on_kill(FATAL, lambda number: self._end(SIGNALLED + number))
        if self._is_live:
            self.screen = Screen(loop, self.press, lambda: self._end(OK))
            self.screen.enter()
            loop.on_signal(signal.SIGWINCH, self.draw)
            loop.on_signal(signal.SIGTSTP, self._pause)
            loop.on_signal(signal.SIGCONT, self._continue)
        self.refresh()

    def _end(self, status: int) -> None:
        self.status = status
        self._done()

    def _pause(self) -> None:
        assert self.screen is not None
        self.screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continue(self) -> None:
        assert self.screen is not None
        self.screen.enter()
        self.draw()

    # -- data ------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_fetching:
            self._is_fetching = True
            fetch(self._client, self._path, self._fetched)

    def _fetched(self, address: str, rows: list[Row]) -> None:
        self._is_fetching = False
        now = self._client.loop.now()
        add_rates(rows, self._rows, now - self._at if self._at else 0.0)
        self._address, self._rows, self._at = address, rows, now
        self.draw()
        if self.refreshes is not None:
            self.refreshes -= 1
            if self.refreshes <= 0:
                self._end(OK)
                return
        self._timer = self._client.loop.later(self.delay, self.refresh)

    # -- display ---------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        if self.screen is not None:
            height = self.screen.size[1]
            self.screen.draw([(line, False) for line in HELP.split("\n")] if self._is_helping else self.frame(height))
        else:
            print("\n".join(line for line, _ in self.frame(0)), end="\n\n", flush=True)

    def frame(self, height: int) -> list[tuple[str, bool]]:
        """The lines to display (True: a heading), at most `height` unless that is 0."""
        width = display_width() if self.screen is None else self.screen.size[0]
        kinds = {kind: self._sorted(kind) for kind in SHOWN if kind not in self.hidden}
        counts = [(sum(row["kind"] == kind for row in self._rows), kind) for kind in SHOWN]
        first = f"{self._address}: " + ", ".join(f"{count} {kind}{'s' * (count != 1)}" for count, kind in counts)
        first += f"; {time.strftime('%H:%M:%S')}, every "
        first += f"{self.delay:g} s, by {self.order}{', reversed' if self.is_reversed else ''}"
        if self._prompt is not None:
            first = f"{self._note} {self._typed}"
        elif height:
            first = self._note or f"{first}; h for help"
        lines = [(first, False)]
        room = height - 1 - 2 * len(kinds) + (len(kinds) > 0)  # without headings, and an empty line between tables
        rest = sum(map(len, kinds.values()))
        for kind, rows in kinds.items():
            rest -= len(rows)
            if height:
                rows = rows[: max(room - rest, room // 2 if rest else room, 0)]
                room -= len(rows)
            head, *below = table(kind, SHOWN[kind], rows, width)
            lines += [("", False)] * (len(lines) > 1) + [(head, True), *((line, False) for line in below)]
        return lines

    def _sorted(self, kind: str) -> list[Row]:
        rows = sorted((row for row in self._rows if row["kind"] == kind), key=lambda row: row["key"])
        field = SORTS[self.order]
        if rows and field in rows[0]:
            is_text = isinstance(rows[0][field], (str, tuple))
            empty = "" if is_text else -1  # an unknown value
            rows.sort(
                key=lambda row: empty if row[field] is None else row[field], reverse=is_text == self.is_reversed
            )
        return rows[: self.most or None]

    # -- keys --------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        if self._prompt is not None:
            self._edit(key)
        elif self._is_helping:
            self._is_helping = False
        else:
            self._note = ""
            if key in KEYS:
                KEYS[key](self)
            else:
                self._note = f"{key!r}: unknown key; h for help"
        self.draw()

    def _edit(self, key: str) -> None:
        if key in "\r\n":
            done, self._prompt, self._note = self._prompt, None, ""
            try:
                assert done is not None
                done(float(self._typed))
            except ValueError:
                self._note = f"{self._typed!r}: invalid number" if self._typed else ""
        elif key == "\x1b":
            self._prompt, self._note = None, ""
        elif key in "\x7f\b":
            self._typed = self._typed[:-1]
        elif key in "0123456789." and len(self._typed) < 9:
            self._typed += key

    def prompt(self, what: str, done: Callable[[float], None]) -> None:
        """Prompt for a number.  done() raises ValueError if it is invalid."""
        self._prompt, self._note, self._typed = done, what, ""

    def set_delay(self, seconds: float) -> None:
        if seconds < MIN_DELAY:
            raise ValueError
        self.delay = seconds
        self.refresh()

    def set_most(self, number: float) -> None:
        self.most = int(number)

    def sort_by(self, order: str) -> None:
        self.order = order

    def step(self, by: int) -> None:
        """Sort by the next or previous of the displayed columns."""
        shown = set().union(*(row for row in self._rows if row["kind"] not in self.hidden))
        names = [name for name, field in SORTS.items() if field in shown or name == self.order]
        self.order = names[(names.index(self.order) + by) % len(names)]

    def turn(self) -> None:
        self.is_reversed = not self.is_reversed

    def toggle(self, kind: str) -> None:
        self.hidden ^= {kind}

    def help(self) -> None:
        self._is_helping = True

    def quit(self) -> None:
        self._end(OK)


KEYS: dict[str, Callable[[Top], None]] = {
    "q": Top.quit,
    **dict.fromkeys((" ", "\r", "\n"), Top.refresh),
    **dict.fromkeys("ds", lambda top: top.prompt(f"Delay in seconds, now {top.delay:g}:", top.set_delay)),
    "<": lambda top: top.step(-1),
    ">": lambda top: top.step(1),
    "R": Top.turn,
    "r": lambda top: top.sort_by("rate"),
    "b": lambda top: top.sort_by("bytes"),
    "i": lambda top: top.sort_by("idle"),
    "N": lambda top: top.sort_by("name"),
    "l": lambda top: top.toggle("link"),
    "t": lambda top: top.toggle("tunnel"),
    "j": lambda top: top.toggle("job"),
    **dict.fromkeys("n#", lambda top: top.prompt("Maximum of rows per table, 0 for all:", top.set_most)),
    **dict.fromkeys("h?", Top.help),
}


_KEYS = {"link": ("address",), "tunnel": ("link", "label", "from"), "job": ("job", "name", "transport")}


def _key(row: Row) -> tuple[Any, ...]:
    """The values that identify a row among those of its kind."""
    return tuple(row[field] for field in _KEYS[row["kind"]])


def add_rates(rows: list[Row], before: list[Row], seconds: float) -> None:
    """Add the sort fields to each row: `key`, `bytes`, and the rates since the rows `before`, `seconds` ago."""
    known = {(row["kind"], _key(row)): row for row in before}
    nothing = {"sent": 0, "received": 0, "age": 0}
    for row in rows:
        row["key"] = _key(row)
        if row["kind"] == "job":
            continue  # has no byte counters
        row["bytes"] = row["sent"] + row["received"]
        old = known.get((row["kind"], row["key"]), nothing)
        if old["age"] > row["age"]:
            old = nothing  # of an earlier one with the same key
        is_seen = seconds and (old is not nothing or row["age"] <= seconds)
        for field in ("sent", "received"):
            row[f"{field}_rate"] = (row[field] - old[field]) / seconds if is_seen else 0.0
        row["flow"] = row["sent_rate"] + row["received_rate"]


def main(args: Args) -> int:
    if args.delay < MIN_DELAY:
        raise UsageError(f"-d: at least {MIN_DELAY:g} s")
    if args.count is not None and args.count < 1:
        raise UsageError("-n: at least one")
    top = Top(args)
    try:
        ask(args.socket, top.begin, args.wait)
    finally:
        if top.screen is not None:
            top.screen.leave()
    return top.status
