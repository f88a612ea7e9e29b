"""TOML text -> checked Config records.

A file with an error is rejected as a whole, before anything starts.  All errors are reported, one per line:

    FILE: line N: TABLE KEY: what is wrong (the most similar valid key)

TABLES defines the tables and keys: which are required, how they are checked, and their description.  Checks, hints and
the manual page use it; a new key is a new row there and a slot in its record.  Only `load` opens a file; nothing here
starts, binds or logs.
"""

from __future__ import annotations

import os
import re
import sys
from collections import namedtuple

from ..errors import AddressError, ConfigError, DaemonError, UsageError
from ..net.io.socket_path import check_length, expand
from ..net.io.units import RESUME_TIMEOUT, parse_resume_timeout, parse_size
from ..net.transport import hints  # noqa: F401  so that a reload imports nothing
from ..net.transport.transport import parse_transport, service_name
from ..net.transport.urls import CONNECT, FORWARD, SERVE
from ..proto.limits import BYTES
from ..proto.limits import TABLE as LIMITS
from ..proto.link.policy import Policy
from ..proto.wire.address import BENCH, check_address, parse_path
from ..proto.wire.messages import EVENTS
from .placeholders import ADDRESS, fill
from .records import Config, Conn, Forward, Serve, Task
from .toml_lines import TOP, find_lines

try:
    import tomllib  # type: ignore[import-not-found]
except ImportError:  # before Python 3.11, or a distribution without it
    import tomli as tomllib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .toml_lines import Lines

# Bytes: ten thousand links fit.  Parsing takes a multiple of the size in memory.
MAX_FILE = 1 << 20


class ConfigFileError(ConfigError):
    """A ConfigError with all `problems` of a file, one line each; there is at least one, and `args[0]` is the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


# -- checks of one value: (value, directory of the file) -> the value to use, or ValueError with the reason


def _text(value: object, base: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:  # invalid in paths and in arguments of programs
        raise ValueError("must not contain a NUL character")
    return value


def _address(value: object, base: str) -> str:
    return check_address(_text(value, base))


def _service(value: object, base: str) -> str:
    if value == BENCH:
        raise ValueError(f"{BENCH} is reserved: choose another name")
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
            raise ValueError("- is stdin and stdout, which r2dm does not pass on")
        try:
            transport = parse_transport(text).check_use(use)
        except UsageError as error:
            raise ValueError(str(error)) from None
        if transport.descriptors:
            raise ValueError(f"{text}: r2dm does not pass on descriptors")
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
        raise ValueError(f"must be an array of strings, not {_kind(value)}")
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
            raise ValueError(f"must be an integer, not {_kind(value)}")
        return LIMITS[name].check(value)

    return _limit


# The header is the number of tables: exactly one [table], any number of [[table]].  `keys` is {name: Key}.
Table = namedtuple("Table", "header help keys")
OPTIONAL = {"limits"}  # of the [table]s
# `required` is True, False, or a function that derives the default from cmd.
Key = namedtuple("Key", "required check help")

# Of [self] for all links, of a [[conn]] for that link.
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
ALIASES = {"serve": {"addr": "name"}, "task": {"addr": "name"}}  # by table: other names of keys


def load(path: str) -> Config:
    """Read and check the file at `path`, at most MAX_FILE bytes of UTF-8.  ConfigFileError has all errors."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
        base = os.path.dirname(os.path.abspath(path))
    except (OSError, ValueError) as error:  # ValueError: an invalid name
        raise ConfigFileError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(data) > MAX_FILE:
        raise ConfigFileError([f"{path}: larger than the limit of {MAX_FILE >> 20} MiB: not a configuration file?"])
    try:
        text = data.decode("utf-8-sig")  # TOML does not allow the byte order mark that some editors write
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ConfigFileError([f"{path}: line {line}: not UTF-8: byte 0x{byte:02x}"]) from None
    return parse_config(text, path, base)


def parse_config(text: str, name: str, base: str = "") -> Config:
    """Check the TOML `text` of the file `name`; relative paths in it are relative to the directory `base`.

    Raises ConfigFileError, with all errors, and nothing else.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and int() of too many digits
        what = "brackets are nested too deep" if isinstance(error, RecursionError) else _one_line(str(error))
        at = re.fullmatch(r"(.*) \(at (line \d+, column \d+)\)", what)
        raise ConfigFileError([f"{name}: {at[2]}: not TOML: {at[1]}" if at else f"{name}: not TOML: {what}"]) from None
    check = _Checker(data, name, base, find_lines(text))
    nodes, conns, serves, tasks, forwards, limits = (check.table(table) for table in TABLES)
    check.unknown_tables()
    check.datagrams(serves)
    check.duplicates("conn", "addr", conns)
    check.duplicates("serve", "name", serves)
    check.duplicates("forward", "listen", forwards)
    if check.problems:  # in the order of the file, those without a line last
        raise ConfigFileError([what for _, what in sorted(check.problems, key=lambda problem: problem[0])])
    node = nodes[0]
    return Config(
        node["addr"],
        node.get("socket"),
        node.get("cmd"),
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
        _policy(node),
        node.get("bench", True),
        [Forward(it["listen"], it["target"], it["line"]) for it in forwards],
        {name: limits[0][name] for name in LIMITS if name in limits[0]} if limits else {},
    )


def _policy(record: dict[str, Any]) -> Policy:
    """The policy that the keys of `_RULES` set."""
    advertise, accept = (tuple(record[key]) if key in record else None for key in ("advertise", "accept"))
    return Policy(record.get("discover", True), advertise, record.get("transit", True), accept)


class _Checker:
    """Checks the `data` of one file and collects its `problems`, each with its line."""

    def __init__(self, data: dict[str, Any], name: str, base: str, lines: Lines) -> None:
        self.data, self.name, self.base, self.lines = data, name, base, lines
        self.problems: list[tuple[int, str]] = []

    def report(self, line: int | None, what: str) -> None:
        where = f"line {line}: " if line else ""
        self.problems.append((line or sys.maxsize, f"{self.name}: {where}{_one_line(what)}"))

    def table(self, table: str) -> list[dict[str, Any]]:
        """Check all tables `table`; return their records without invalid keys."""
        value, header = self.data.get(table), TABLES[table].header
        many, form = header.startswith("[["), _form(table, value)
        if value is None and not many and table not in OPTIONAL:
            self.report(None, f"{header}: missing")
        elif value is not None and form != header:
            line = self.lines.get((table, 0, None)) or self.lines.get(("", TOP, table))
            why = "may be several" if many else "is only one"
            self.report(line, f"{form}: must be written {header}, as there {why}")
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
                self.report(self.lines.get((table, n, key)), f"{where} {_bare(key)}: {error}")
        aliases = ALIASES.get(table, {})
        for alias, key in aliases.items():
            if alias in raw and key in raw and raw[alias] != raw[key]:
                what = f"{where} {alias}: differs from {key}, of which it is an alias"
                self.report(self.lines.get((table, n, alias)), what)
            elif alias in checked:
                checked[key] = checked[alias]
        given = {*raw, *(aliases[key] for key in raw if key in aliases)}
        for key, row in keys.items():
            if key in given or not row.required or (row.required is not True and "cmd" not in checked):
                continue
            why = "missing"
            if row.required is not True:
                try:
                    checked[key] = row.required(checked["cmd"])
                    continue
                except AddressError as error:
                    why = f"missing, and cannot be derived from cmd: {error}"
            # The line of the header identifies one of several tables; [self] is unique.
            self.report(checked["line"] if isinstance(self.data[table], list) else None, f"{where} {key}: {why}")
        return checked

    def where(self, table: str, n: int) -> str:
        return f"[[{table}]] number {n + 1}:" if isinstance(self.data[table], list) else f"[{table}]"

    def unknown_tables(self) -> None:
        """Report unknown tables, and keys outside any table."""
        headers = {name: table.header for name, table in TABLES.items()}
        for key in (key for key in self.data if key not in TABLES):
            line = self.lines.get((key, 0, None)) or self.lines.get(("", TOP, key))
            form = _form(_bare(key), self.data[key])
            homes = [headers[name] for name in TABLES if key in TABLES[name].keys]
            if form.startswith("["):
                self.report(line, f"{form}: unknown table{_hint(key, headers)}")
            else:
                self.report(line, f"{form}: outside any table" + (f" (it belongs in {homes[0]})" if homes else ""))

    def datagrams(self, serves: list[dict[str, Any]]) -> None:
        """Report `datagrams` where cmd does not support them."""
        for n, record in enumerate(serves):
            try:
                parse_transport(record.get("cmd", "-")).mode(record.get("datagrams", False))
            except UsageError as error:
                self.report(self.lines.get(("serve", n, "datagrams")), f"{self.where('serve', n)} datagrams: {error}")

    def duplicates(self, table: str, key: str, records: list[dict[str, Any]]) -> None:
        """Report a second record with the same `key`: the daemon would refuse it, or never use it."""
        seen: dict[str, str] = {}
        for n, record in enumerate(records):
            names = [key, *(alias for alias, same in ALIASES.get(table, {}).items() if same == key)]
            at = next((it for it in names if it in record["written"]), "cmd")  # a name may be derived from cmd
            line, value = self.lines.get((table, n, at)), record.get(key)
            if value in seen:
                self.report(line, f'{self.where(table, n)} {at}: "{value}" is already the {key} of {seen[value]}')
            elif value is not None:
                seen[value] = f"[[{table}]] number {n + 1}" + (f" (line {line})" if line else "")


def _form(name: str, value: object) -> str:
    """The form of a top-level value: `[name]`, `[[name]]`, or `name` if it is not a table."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return f"[[{name}]]"
    return f"[{name}]" if isinstance(value, dict) else name


def _kind(value: object) -> str:
    words = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "an array"}
    return "a table" if isinstance(value, dict) else words.get(type(value), "a date or time")


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) else repr(key[:64])


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _hint(word: str, choices: dict[str, str]) -> str:
    import difflib  # rarely needed

    near = difflib.get_close_matches(word[:64].lower(), choices, 1)
    return f" (did you mean {choices[near[0]]}?)" if near else f" (there are {', '.join(choices.values())})"
