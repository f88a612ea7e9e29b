"""TOML text -> checked Config records.

A file is refused as a whole, before anything starts, and with all its problems at once, one line each:

    FILE: line N: TABLE KEY: what is wrong (the nearest right key)

The records are those of `records`.  TABLES says which tables and keys exist, which are required, how each is checked
and what it is for.  Checks, hints and the manual page all read it: a new key is a new row there and a slot in its
record.

Nothing here starts, binds or logs anything; only `load` opens a file.
"""

from __future__ import annotations

import os
import re
import sys
from collections import namedtuple

from ..errors import AddressError, ConfigError, DaemonError, UsageError
from ..net.io.socket_path import check_length, expand
from ..net.io.units import RESUME_TIMEOUT, parse_resume_timeout, parse_size
from ..net.transport import hints  # noqa: F401  a manager that reads a file again loads nothing then
from ..net.transport.transport import parse_transport, service_name
from ..net.transport.urls import CONNECT, FORWARD, SERVE
from ..proto.limits import BYTES
from ..proto.limits import TABLE as LIMITS
from ..proto.link.policy import Policy
from ..proto.wire.address import BENCH, check_address, parse_path
from ..proto.wire.messages import EVENTS
from .placeholders import fill
from .records import Config, Conn, Forward, Serve, Task
from .tasks import ADDRESS
from .toml_lines import TOP, find_lines

try:
    import tomllib  # type: ignore[import-not-found]
except ImportError:  # before Python 3.11, and where a distribution has it in another package
    import tomli as tomllib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .toml_lines import Lines

# Bytes.  Room for ten thousand links; what is larger is a mistake, and parsing takes many times its size in memory.
MAX_FILE = 1 << 20


class ConfigFileError(ConfigError):
    """A ConfigError with all `problems` of a file: a list of lines, at least one; `args[0]` is the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


# Checks of one value: (value, directory of the file) -> the value to use, or ValueError with the reason.


def _text(value: object, base: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_kind(value)}")
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:  # no path and no argument of a program can hold one
        raise ValueError("must not hold a NUL character")
    return value


def _address(value: object, base: str) -> str:
    return check_address(_text(value, base))


def _service(value: object, base: str) -> str:
    if value == BENCH:
        raise ValueError(f"{BENCH} is the node's own: choose another name")
    return _address(value, base)


def _task_command(value: object, base: str) -> str:
    text = _text(value, base)
    fill(text, {ADDRESS: ""})
    return text


def _target(value: object, base: str) -> str:
    text = _text(value, base)
    parse_path(text)
    return text


def _path(value: object, base: str) -> str:
    path = os.path.join(base, expand(_text(value, base)))
    try:
        check_length(path)
    except DaemonError as error:
        raise ValueError(str(error)) from None
    return path


def _transport_for(use: str) -> Callable[[object, str], str]:
    def _transport(value: object, base: str) -> str:
        text = _text(value, base)
        if text.strip() == "-":
            raise ValueError("- would be the stdio of the manager, which has none to give")
        try:
            transport = parse_transport(text).check_use(use)
        except UsageError as error:
            raise ValueError(str(error)) from None
        if transport.descriptors:
            raise ValueError(f"{text}: would be a descriptor of the manager, which has none to give")
        return text

    return _transport


def _resume_timeout(value: object, base: str) -> int:
    return parse_resume_timeout(str(value) if type(value) is int else _text(value, base))


def _flag(value: object, base: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_kind(value)}")
    return value


def _patterns(value: object, base: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of text, not {_kind(value)}")
    for number, item in enumerate(value, 1):
        try:
            _text(item, base)
        except ValueError as error:
            raise ValueError(f"item {number} {error}") from None
    return value


def _event(value: object, base: str) -> str:
    text = _text(value, base)
    if text not in EVENTS:
        raise ValueError(f"no such event{_hint(text, {name: name for name in EVENTS})}")
    return text


def _limit_for(name: str) -> Callable[[object, str], int]:
    def _limit(value: object, base: str) -> int:
        if isinstance(value, str) and LIMITS[name].unit == BYTES:
            value = parse_size(value)
        if type(value) is not int:
            raise ValueError(f"must be a whole number, not {_kind(value)}")
        return LIMITS[name].check(value)

    return _limit


# The header tells how many there may be: exactly one [table], any number of [[table]].  `keys` is {name: Key}.
Table = namedtuple("Table", "header help keys")
OPTIONAL = {"limits"}  # of the tables of which there is only one
# `required` is True, False, or a function that makes the value from cmd where it is not written.
Key = namedtuple("Key", "required check help")

# Of [self] for all links, of a [[conn]] for its own.
_RULES = {
    "discover": Key(False, _flag, "Whether to exchange routes with neighbours (discovery). Default: true."),
    "advertise": Key(False, _patterns, "Patterns of the services of this node to advertise. Services of other "
                                       "nodes are advertised in any case, and r2 ls at this node shows all "
                                       "services except private ones. Default: all that are not private."),
    "transit": Key(False, _flag, "Whether to relay for others, and to advertise routes through this node. "
                                 "Default: true."),
}  # fmt: skip
TABLES = {
    "self": Table("[self]", "The node itself.", {
        "addr": Key(True, _address, "The address of the node."),
        "socket": Key(False, _path, "The control socket. ~ and ~user are expanded; a relative path is relative "
                                    "to the directory of the file. Default: the default socket of all tools."),
        "cmd": Key(False, _transport_for(SERVE), "The transport for tunnels to the node itself. Default: none."),
        "bench": Key(False, _flag, "Whether to answer r2 bench of other nodes. Default: true."),
        **_RULES,
    }),
    "conn": Table("[[conn]]", "A link to maintain.", {
        "addr": Key(False, _address, "The only neighbour to accept on this link. Default: any."),
        "cmd": Key(True, _transport_for(CONNECT), "The transport: a command line for sh -c, or scheme://..."),
        "resume": Key(False, _resume_timeout, "The resume timeout: how long tunnels wait for another transport "
                                              "after a cut. 0 disables resume. The smaller value of both sides "
                                              "applies. Default: 10m."),
        "lossy": Key(False, _flag, "Whether the transport may lose or corrupt bytes. Default: true for "
                                   "transports that are known to, such as udp://."),
        **_RULES,
        "accept": Key(False, _patterns, "Patterns of the nodes to accept routes to over the link, besides the "
                                        "neighbour itself. Default: all."),
    }),
    "serve": Table("[[serve]]", "A service to offer.", {
        "name": Key(service_name, _service, "The name of the service. Default: the base name of the first word "
                                            "of cmd; required if that is not a valid name, as for scheme://..."),
        "addr": Key(False, _service, "An alias of name."),
        "cmd": Key(True, _transport_for(SERVE), "The transport of each tunnel: a command line for sh -c, or scheme://..."),
        "allow": Key(False, _patterns, "Patterns of the origins that may open the service. Default: all."),
        "private": Key(False, _flag, "Whether to hide the service from other nodes: it is not advertised, and "
                                     "not listed for them. A client that knows the name can use it. Default: "
                                     "false."),
        "datagrams": Key(False, _flag, "Whether each read and write of the command is one datagram, as with r2 "
                                       "serve --datagrams. Default: false; tun://, udp:// and the like always "
                                       "are."),
    }),
    "task": Table("[[task]]", "A command to run on an event.", {
        "event": Key(lambda cmd: "node-up", _event, f"One of {', '.join(EVENTS)}. Default: node-up."),
        "name": Key(lambda cmd: "*", _text, "A pattern for the node's address, or for NODE/SERVICE. Default: *."),
        "addr": Key(False, _text, "An alias of name."),
        "cmd": Key(True, _task_command, "The command line for sh -c. %addr is replaced by the address, or "
                                        "NODE/SERVICE; %%addr is a literal %addr. The environment has "
                                        "R2_EVENT, R2_NAME, R2_PATH, and R2_SOCKET, the control socket of this "
                                        "node."),
    }),
    "forward": Table("[[forward]]", "A service to forward to a port of this host.", {
        "listen": Key(True, _transport_for(FORWARD), "Where to accept connections, such as "
                                                     "tcp-listen://127.0.0.1:8080 or unix-listen://PATH. The "
                                                     "default host is loopback."),
        "target": Key(True, _target, "The path of the service: bob/web, or any/web for the nearest."),
    }),
    "limits": Table("[limits]", "Limits on the resources that neighbours and clients may use. What exceeds a "
                                "limit is refused; everything else continues. A reload changes limits at once; "
                                "r2 status --limits shows their use. A limit in bytes may be a string such as "
                                "256MiB.", {
        name: Key(False, _limit_for(name), f"{row.why} Default: {row.shown}.")
        for name, row in LIMITS.items()
    }),
}  # fmt: skip
SPELLINGS = {"serve": {"addr": "name"}, "task": {"addr": "name"}}  # by table: other names of keys


def load(path: str) -> Config:
    """Read and check the file at `path`, at most MAX_FILE bytes of UTF-8.  ConfigFileError says all that is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
        base = os.path.dirname(os.path.abspath(path))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ConfigFileError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(data) > MAX_FILE:
        raise ConfigFileError([f"{path}: larger than {MAX_FILE >> 20} MiB, which no configuration is: a wrong file?"])
    try:
        text = data.decode("utf-8-sig")  # some editors put the mark in front; TOML has no use for it
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ConfigFileError([f"{path}: line {line}: not UTF-8: byte 0x{byte:02x}"]) from None
    return parse_config(text, path, base)


def parse_config(text: str, name: str, base: str = "") -> Config:
    """Check the TOML `text` of the file `name`; relative paths in it start at the directory `base`.

    ConfigFileError says all that is wrong, and nothing else is raised, whatever the text.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and int() of too many digits
        what = "brackets are nested too deep" if isinstance(error, RecursionError) else _one_line(str(error))
        at = re.fullmatch(r"(.*) \(at (line \d+, column \d+)\)", what)
        raise ConfigFileError([f"{name}: {at[2]}: not TOML: {at[1]}" if at else f"{name}: not TOML: {what}"]) from None
    check = _Checker(data, name, base, find_lines(text))
    own, conns, serves, tasks, forwards, limits = (check.table(table) for table in TABLES)
    check.strangers()
    check.modes(serves)
    check.twins("conn", "addr", conns)
    check.twins("serve", "name", serves)
    check.twins("forward", "listen", forwards)
    if check.problems:  # in the order of the file; those without a line come last
        raise ConfigFileError([what for _, what in sorted(check.problems, key=lambda problem: problem[0])])
    return Config(
        own[0]["addr"],
        own[0].get("socket"),
        own[0].get("cmd"),
        [
            Conn(
                it.get("addr"), it["cmd"], it.get("resume", RESUME_TIMEOUT), it.get("lossy", False), it["line"],
                _policy(it),
            )
            for it in conns
        ],
        [
            Serve(
                it["name"], it["cmd"], it.get("allow", []), it["line"], it.get("private", False),
                it.get("datagrams", False),
            )
            for it in serves
        ],
        name,
        [Task(it["event"], it["name"], it["cmd"], it["line"]) for it in tasks],
        _policy(own[0]),
        own[0].get("bench", True),
        [Forward(it["listen"], it["target"], it["line"]) for it in forwards],
        {name: limits[0][name] for name in LIMITS if name in limits[0]} if limits else {},
    )


def _policy(record: dict[str, Any]) -> Policy:
    """What the keys of `_RULES` say."""
    advertise, accept = (tuple(record[key]) if key in record else None for key in ("advertise", "accept"))
    return Policy(record.get("discover", True), advertise, record.get("transit", True), accept)


class _Checker:
    """Checks the `data` of one file and gathers its `problems`, each with the line to sort it by."""

    def __init__(self, data: dict[str, Any], name: str, base: str, lines: Lines) -> None:
        self.data, self.name, self.base, self.lines = data, name, base, lines
        self.problems: list[tuple[int, str]] = []

    def say(self, line: int | None, what: str) -> None:
        where = f"line {line}: " if line else ""
        self.problems.append((line or sys.maxsize, f"{self.name}: {where}{_one_line(what)}"))

    def table(self, table: str) -> list[dict[str, Any]]:
        """Check all of one table.  Return its records, less what is wrong."""
        value, header = self.data.get(table), TABLES[table].header
        many, form = header.startswith("[["), _form(table, value)
        if value is None and not many and table not in OPTIONAL:
            self.say(None, f"{header}: missing")
        elif value is not None and form != header:
            line = self.lines.get((table, 0, None)) or self.lines.get(("", TOP, table))
            self.say(line, f"{form}: must be written {header}, as there {'may be several' if many else 'is only one'}")
        records = value if isinstance(value, list) else [value or {}]
        return [self.record(table, n, raw) for n, raw in enumerate(records)] if form != table else []

    def record(self, table: str, n: int, raw: dict[str, Any]) -> dict[str, Any]:
        keys, where = TABLES[table].keys, self.where(table, n)
        checked: dict[str, Any] = {"line": self.lines.get((table, n, None)), "written": raw}
        for key, value in raw.items():
            try:
                if key not in keys:
                    raise ValueError(f"unknown key{_hint(key, {name: name for name in keys})}")
                checked[key] = keys[key].check(value, self.base)
            except ValueError as error:
                self.say(self.lines.get((table, n, key)), f"{where} {_bare(key)}: {error}")
        others = SPELLINGS.get(table, {})
        for other, key in others.items():
            if other in raw and key in raw and raw[other] != raw[key]:
                self.say(self.lines.get((table, n, other)), f"{where} {other}: differs from {key}, its other name")
            elif other in checked:
                checked[key] = checked[other]
        given = {*raw, *(others[key] for key in raw if key in others)}
        for key, row in keys.items():
            if key in given or not row.required or (row.required is not True and "cmd" not in checked):
                continue
            why = "missing"
            if row.required is not True:
                try:
                    checked[key] = row.required(checked["cmd"])
                    continue
                except AddressError as error:
                    why = f"missing, and cmd gives none: {error}"
            # The header's line tells which of many tables it is; the only [self] needs none.
            self.say(checked["line"] if isinstance(self.data[table], list) else None, f"{where} {key}: {why}")
        return checked

    def where(self, table: str, n: int) -> str:
        return f"[[{table}]] number {n + 1}:" if isinstance(self.data[table], list) else f"[{table}]"

    def strangers(self) -> None:
        """Refuse what is no table of a configuration."""
        headers = {name: table.header for name, table in TABLES.items()}
        for key in (key for key in self.data if key not in TABLES):
            line = self.lines.get((key, 0, None)) or self.lines.get(("", TOP, key))
            form = _form(_bare(key), self.data[key])
            homes = [headers[name] for name in TABLES if key in TABLES[name].keys]
            if form.startswith("["):
                self.say(line, f"{form}: unknown table{_hint(key, headers)}")
            else:
                self.say(line, f"{form}: outside any table" + (f" (it belongs in {homes[0]})" if homes else ""))

    def modes(self, serves: list[dict[str, Any]]) -> None:
        """Refuse `datagrams` where cmd has none."""
        for n, record in enumerate(serves):
            try:
                parse_transport(record.get("cmd", "-")).mode(record.get("datagrams", False))
            except UsageError as error:
                self.say(self.lines.get(("serve", n, "datagrams")), f"{self.where('serve', n)} datagrams: {error}")

    def twins(self, table: str, key: str, records: list[dict[str, Any]]) -> None:
        """Refuse a second record with the same `key`: the daemon would refuse it, or never reach it."""
        seen: dict[str, str] = {}
        for n, record in enumerate(records):
            spellings = [key, *(other for other, same in SPELLINGS.get(table, {}).items() if same == key)]
            at = next((it for it in spellings if it in record["written"]), "cmd")  # a name may have been made from cmd
            line, value = self.lines.get((table, n, at)), record.get(key)
            if value in seen:
                self.say(line, f'{self.where(table, n)} {at}: "{value}" is already the {key} of {seen[value]}')
            elif value is not None:
                seen[value] = f"[[{table}]] number {n + 1}" + (f" (line {line})" if line else "")


def _form(name: str, value: object) -> str:
    """How a value of the top is written: `[name]`, `[[name]]`, or `name` for what is no table."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return f"[[{name}]]"
    return f"[{name}]" if isinstance(value, dict) else name


def _kind(value: object) -> str:
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    return "a table" if isinstance(value, dict) else words.get(type(value), "a date or time")


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) else repr(key[:64])


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _hint(word: str, choices: dict[str, str]) -> str:
    import difflib  # rarely needed

    near = difflib.get_close_matches(word[:64].lower(), choices, 1)
    return f" (did you mean {choices[near[0]]}?)" if near else f" (there are {', '.join(choices.values())})"
