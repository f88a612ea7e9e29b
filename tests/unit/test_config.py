"""A configuration file, as its user meets it: what is accepted, and what is said of what is not."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r2box.config import parse as config
from r2box.config.parse import ConfigFileError, load, parse_config
from r2box.config.records import Config, Conn, Forward, Serve
from r2box.config.toml_lines import find_lines
from r2box.errors import AddressError, ConfigError
from r2box.net.io.shell import service_name
from r2box.proto.limits import TABLE
from support.examples import ALICE, BOB

SELF = '[self]\naddr = "alice"\n'


def parse(text: str) -> Config:
    return parse_config(text, "alice.toml")


def problems(text: str) -> list[str]:
    """The problems of a text, each without the name of the file that all must start with."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    error = caught.value
    assert isinstance(error, ConfigFileError)
    assert error.args[0] == error.problems[0]
    assert str(error) == "\n".join(error.problems)
    assert all(problem.startswith("alice.toml: ") and problem.isprintable() for problem in error.problems)
    return [problem[len("alice.toml: ") :] for problem in error.problems]


# What is accepted


def test_alice_and_bob_of_the_overview() -> None:
    assert parse(ALICE) == Config(
        "alice",
        "/home/user/.local/r2/alice.sock",
        "echo hello from alice",
        [Conn("bob", "socat tcp-l:47210,fork,reuseaddr exec:-", resume=600, lossy=False)],
        [],
        "",
    )
    bob = parse(BOB)
    assert (bob.addr, bob.cmd, bob.path) == ("bob", "echo Hello, I'm bob", "alice.toml")
    assert [(conn.addr, conn.cmd, conn.line) for conn in bob.conns] == [("alice", "socat tcp:127.0.0.1:47210 -", 6)]


def test_the_least_file() -> None:
    least = parse(SELF)
    assert (least.addr, least.socket, least.cmd, least.conns, least.serves) == ("alice", None, None, [], [])


def test_forwards() -> None:
    config = parse(SELF + '[[forward]]\nlisten = "unix-listen://x"\ntarget = "any/db"\n')
    assert config.forwards == [Forward("unix-listen://x", "any/db")]
    assert config.forwards[0].line == 3
    twice = '[[forward]]\nlisten = "unix-listen://x"\ntarget = "a//b"\n' * 2
    said = problems(SELF + '[[forward]]\nlisten = "tcp://h:1"\n' + twice)
    assert said[0].startswith("line 3: [[forward]] number 1: target: missing")
    assert said[1].startswith("line 4: [[forward]] number 1: listen: tcp://h:1: cannot be forwarded: it does not")
    assert said[2].startswith("line 7: [[forward]] number 2: target: 'a//b' is not a path: an address between slashes")
    assert 'line 9: [[forward]] number 3: listen: "unix-listen://x" is already the listen of' in "\n".join(said)


def test_whether_the_node_may_be_measured() -> None:
    assert parse(SELF).bench is True
    assert parse(SELF + "bench = false\n").bench is False
    assert problems(SELF + 'bench = "no"\n') == ["line 3: [self] bench: must be true or false, not a string"]
    own = SELF + '[[serve]]\nname = "r2.bench"\ncmd = "cat"\n'
    assert problems(own) == ["line 4: [[serve]] number 1: name: r2.bench is reserved: choose another name"]


def test_all_keys_and_the_defaults_of_a_service() -> None:
    text = SELF + (
        '[[conn]]\ncmd = "tcp://bob:1"\n'
        '[[serve]]\ncmd = "/usr/sbin/sshd -i"\n'
        '[[serve]]\nname = "web"\ncmd = "tcp://127.0.0.1:80"\nallow = ["bob", "carl/*"]\n'
    )
    found = parse(text)
    assert found.conns == [Conn(None, "tcp://bob:1")]
    assert found.serves == [
        Serve("sshd", "/usr/sbin/sshd -i", []),
        Serve("web", "tcp://127.0.0.1:80", ["bob", "carl/*"]),
    ]
    assert [serve.line for serve in found.serves] == [5, 7]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ('"10m"', 600),
        ('"0"', 0),
        ("0", 0),
        ("30", 30),
        ('"30"', 30),
        ('"1.5h"', 5400),
        ('"2d"', 172_800),
        ('"1500ms"', 2),  # at least as long as was asked for
        ('"1ms"', 1),
        ('"366d"', 366 * 86400),
    ],
)
def test_how_long_tunnels_wait(value: str, seconds: int) -> None:
    (conn,) = parse(f'{SELF}[[conn]]\ncmd = "x"\nresume = {value}\n').conns
    assert conn == Conn(None, "x", resume=seconds)
    assert type(conn.resume) is int


def test_a_link_that_loses_bytes() -> None:
    text = SELF + "".join(f'[[conn]]\ncmd = "{cmd}"\n' for cmd in ("x", "x\"\nlossy = true #", "udp://bob:1"))
    conns = parse(text + "lossy = false\n").conns
    assert [conn.lossy for conn in conns] == [False, True, False]
    assert conns[1] == Conn(None, "x", lossy=True)


@pytest.mark.parametrize(
    "cmd",
    [
        "unix:///run/bob.sock",
        "unix-listen://@bob?mode=660",
        "udp://bob:47211?mtu=1400",
        "udp-listen://:47211",
        "tcp://bob:47211?bind=127.0.0.1&timeout=5s&keepalive=30s&lossy=1",
        "serial:///dev/ttyUSB0?baud=9600",
        "pty://picocom /dev/ttyUSB0",
        "vsock://host:5000",
        "exec:socat - udp:bob:1",
    ],
)
def test_built_in_transports_of_a_link(cmd: str) -> None:
    assert parse(f"{SELF}[[conn]]\ncmd = '{cmd}'\n").conns == [Conn(None, cmd)]


def test_other_spellings_of_the_same_file() -> None:
    inline = 'self = {addr = "alice"}\nconn = [{cmd = "a"}, {addr = "b", cmd = "c"}]\n'
    dotted = 'self.addr = "alice"\n[[conn]]\ncmd = "a"\n[["conn"]]\r\n\'addr\' = "b"\r\ncmd = """\\\n  c"""\n'
    assert parse(inline) == parse(dotted)
    assert parse(SELF) == parse("serve = []\nconn = []\n" + SELF)


@pytest.mark.parametrize(
    ("cmd", "name"),
    [
        ("/usr/sbin/sshd -i", "sshd"),
        ("ioshd", "ioshd"),
        ("  ~/bin/x.py\t-v", "x.py"),
        ("a&&b c", "a"),
        ('"/opt/my tools/x"', "x"),
        ("(a)", None),
    ],
)
def test_service_name_is_the_base_name_of_the_first_word(cmd: str, name: str | None) -> None:
    if name:
        assert service_name(cmd) == name
    else:
        with pytest.raises(AddressError):
            service_name(cmd)


@pytest.mark.parametrize(
    "cmd",
    ["tcp://127.0.0.1:22", '"/opt/my tool"', "A=/b/c sshd", "/usr/bin/", "/bin/service", "", " ", "a\\ b", "$(x)"],
)
def test_no_service_name_is_guessed(cmd: str) -> None:
    with pytest.raises(AddressError):
        service_name(cmd)


def test_socket_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    user = pwd.getpwuid(os.getuid())

    def socket(text: str) -> str | None:
        return parse_config(f"{SELF}socket = '{text}'", "alice.toml", "/etc/r2").socket

    assert socket("/run/a.sock") == "/run/a.sock"
    assert socket("~/a.sock") == "/home/alice/a.sock"
    assert socket(f"~{user.pw_name}/a.sock") == os.path.join(user.pw_dir, "a.sock")
    assert socket("run/a.sock") == "/etc/r2/run/a.sock"
    assert problems(SELF + "socket = '~no-such-user/x'") == [
        "line 3: [self] socket: there is no home directory for ~no-such-user"
    ]


# What a reload sees


def test_a_reload_can_tell_what_changed() -> None:
    old = parse(ALICE + '[[serve]]\ncmd = "sshd -i"\n')
    moved = parse("# a comment\n\n" + ALICE + '\n[[serve]]\nname = "sshd"\ncmd = "sshd -i"\n')
    assert old == moved
    assert old.conns[0].line != moved.conns[0].line
    new = parse(BOB + '[[serve]]\ncmd = "sshd -i"\nallow = ["bob"]\n')
    assert old != new
    assert [conn for conn in new.conns if conn not in old.conns] == new.conns
    assert [serve for serve in old.serves if serve not in new.serves] == old.serves
    assert Conn("a", "b") != Conn("a", "c")
    assert Conn("a", "b") != Conn(None, "b")
    assert Conn("a", "b") != Conn("a", "b", resume=0)
    assert Conn("a", "b") != Conn("a", "b", lossy=True)
    assert Conn("a", "b", resume=600, lossy=False) == Conn("a", "b")
    assert Conn("a", "b") != ("a", "b")
    assert Serve("a", "b", []) != Serve("a", "b", ["x"])
    assert Serve("a", "b", []) != Serve("c", "b", [])


def test_records_can_be_read_in_a_log() -> None:
    everything = "Policy(True, None, True, None)"
    text = f"Conn(addr='bob', cmd='x', resume=600, lossy=False, policy={everything}, line=3)"
    assert repr(Conn("bob", "x", line=3)) == text
    assert repr(Serve("a", "b", [])) == "Serve(name='a', cmd='b', allow=[], private=False, datagrams=False, line=None)"
    assert repr(parse(SELF)).startswith("Config(addr='alice', socket=None,")


# What is refused, and in which words

REFUSED = {
    "a misspelled key": (
        '\n# alice\n[self]\nadr = "alice"\n',
        ["line 4: [self] adr: unknown key (did you mean addr?)", "[self] addr: missing"],
    ),
    "a key far from any": (
        SELF + "colour = 1",
        ["line 3: [self] colour: unknown key (there are addr, socket, cmd, bench, discover, advertise, transit)"],
    ),
    "a key of another table": (
        SELF + '[[conn]]\nname = "x"\ncmd = "y"',
        [
            "line 4: [[conn]] number 1: name: unknown key (there are addr, cmd, resume, lossy, discover, advertise, "
            "transit, accept)"
        ],
    ),
    "a key of a link, misspelled": (
        SELF + '[[conn]]\ncmd = "y"\nresum = "1m"',
        ["line 5: [[conn]] number 1: resum: unknown key (did you mean resume?)"],
    ),
    "a key of a link at a service": (
        SELF + '[[serve]]\ncmd = "y"\nlossy = true',
        ["line 5: [[serve]] number 1: lossy: unknown key (there are name, addr, cmd, allow, private, datagrams)"],
    ),
    "a time that is none": (
        SELF + '[[conn]]\ncmd = "y"\nresume = "soon"',
        [
            "line 5: [[conn]] number 1: resume: 'soon' is not a duration: "
            "a number with ms, s, m, h or d behind it, such as 30s"
        ],
    ),
    "a time below nothing": (
        SELF + '[[conn]]\ncmd = "y"\nresume = -1',
        ["line 5: [[conn]] number 1: resume: '-1' is not a duration: ..."],
    ),
    "a time without end": (
        SELF + '[[conn]]\ncmd = "y"\nresume = "367d"',
        ["line 5: [[conn]] number 1: resume: '367d' is more than a year"],
    ),
    "a number with more digits than there are seconds": (
        SELF + f'[[conn]]\ncmd = "y"\nresume = {10**400}',
        ["line 5: [[conn]] number 1: resume: ..."],
    ),
    "a time of no text": (SELF + '[[conn]]\ncmd = "y"\nresume = ""', ["line 5: [[conn]] number 1: resume: ..."]),
    "a time that is true": (
        SELF + '[[conn]]\ncmd = "y"\nresume = true',
        ["line 5: [[conn]] number 1: resume: must be a string, not true or false"],
    ),
    "lossy as text": (
        SELF + '[[conn]]\ncmd = "y"\nlossy = "yes"',
        ["line 5: [[conn]] number 1: lossy: must be true or false, not a string"],
    ),
    "lossy as a number": (
        SELF + '[[conn]]\ncmd = "y"\nlossy = 1',
        ["line 5: [[conn]] number 1: lossy: must be true or false, not an integer"],
    ),
    "a scheme that is none": (
        SELF + '[[conn]]\ncmd = "udpp://bob:1"',
        ["line 4: [[conn]] number 1: cmd: ..."],
    ),
    "an option that is none": (
        SELF + '[[conn]]\ncmd = "udp://bob:1?baud=300"',
        ["line 4: [[conn]] number 1: cmd: ..."],
    ),
    "a service that waits": (
        SELF + '[[serve]]\nname = "x"\ncmd = "tcp-listen://:1"',
        ["line 5: [[serve]] number 1: cmd: ..."],
    ),
    "a service that waits for packets": (
        SELF + '[[serve]]\nname = "x"\ncmd = "udp-listen://:1"',
        ["line 5: [[serve]] number 1: cmd: ..."],
    ),
    "a link that ends a tunnel": (SELF + '[[conn]]\ncmd = "tun://r20"', ["line 4: [[conn]] number 1: cmd: ..."]),
    "a descriptor of nobody": (
        SELF + '[[conn]]\ncmd = "fd://3"',
        ["line 4: [[conn]] number 1: cmd: fd://3: r2dm does not pass on descriptors"],
    ),
    "a key that needs quotes": (
        SELF + '"a\\tb" = 1',
        ["[self] 'a\\tb': unknown key (there are addr, socket, cmd, bench, discover, advertise, transit)"],
    ),
    "nothing at all": ("", ["[self]: missing"]),
    "no address": ('[self]\ncmd = "x"', ["[self] addr: missing"]),
    "an address with a slash": ('[self]\naddr = "a/b"', ["line 2: [self] addr: ..."]),
    "an address beyond ASCII": ('[self]\naddr = "ä"', ["line 2: [self] addr: ..."]),
    "a long address": (f'[self]\naddr = "{"a" * 65}"', ["line 2: [self] addr: ..."]),
    "a long address with a line end": (f'[self]\naddr = "\\n{"a" * 65}"', ["line 2: [self] addr: ..."]),
    "a reserved address": ('[self]\naddr = "service"', ["line 2: [self] addr: ..."]),
    "an address of blanks": ('[self]\naddr = " "', ["line 2: [self] addr: must not be empty"]),
    "a whole number": (
        SELF + '\n[[conn]]\ncmd = "x"\n\n\n[[conn]]\ncmd = 3\n',
        ["line 9: [[conn]] number 2: cmd: must be a string, not an integer"],
    ),
    "a number": ("[self]\naddr = 1.5", ["line 2: [self] addr: must be a string, not a number"]),
    "a boolean": ("[self]\naddr = true", ["line 2: [self] addr: must be a string, not true or false"]),
    "a date": ("[self]\naddr = 1979-05-27", ["line 2: [self] addr: must be a string, not a date or time"]),
    "a list": ('[self]\naddr = ["a"]', ["line 2: [self] addr: must be a string, not an array"]),
    "a table": ('[self.addr]\nx = "a"', ["[self] addr: must be a string, not a table"]),
    "an empty command": (SELF + 'cmd = ""', ["line 3: [self] cmd: must not be empty"]),
    "a NUL in a command": (SELF + 'cmd = "a\\u0000"', ["line 3: [self] cmd: must not contain a NUL character"]),
    "stdio for a link": (
        SELF + '[[conn]]\ncmd = "-"',
        ["line 4: [[conn]] number 1: cmd: - is stdin and stdout, which r2dm does not pass on"],
    ),
    "no command": (
        SELF + '[[conn]]\ncmd = "x"\n[[conn]]\naddr = "bob"',
        ["line 5: [[conn]] number 2: cmd: missing"],
    ),
    "a service without a command": (SELF + '[[serve]]\nname = "x"', ["line 3: [[serve]] number 1: cmd: missing"]),
    "a service without a name": (
        SELF + '[[serve]]\ncmd = "tcp://127.0.0.1:22"',
        ["line 3: [[serve]] number 1: name: missing, and cannot be derived from cmd: a scheme:// has no base name"],
    ),
    "patterns as text": (
        SELF + '[[serve]]\ncmd = "x"\nallow = "bob"',
        ["line 5: [[serve]] number 1: allow: must be an array of strings, not a string"],
    ),
    "a pattern that is none": (
        SELF + '[[serve]]\ncmd = "x"\nallow = [\n"bob",\n1]',
        ["line 5: [[serve]] number 1: allow: item 2 must be a string, not an integer"],
    ),
    "the same name twice": (
        SELF + '\n\n\n\n[[serve]]\nname = "web"\ncmd = "x"\n[[serve]]\nname = "web"\ncmd = "y"',
        ['line 11: [[serve]] number 2: name: "web" is already the name of [[serve]] number 1 (line 8)'],
    ),
    "the same name twice, once from the command": (
        SELF + '[[serve]]\nname = "web"\ncmd = "x"\n[[serve]]\ncmd = "/bin/web"',
        ['line 7: [[serve]] number 2: cmd: "web" is already the name of [[serve]] number 1 (line 4)'],
    ),
    "the same neighbour twice": (
        SELF + '[[conn]]\naddr = "bob"\ncmd = "x"\n[[conn]]\ncmd = "y"\n[[conn]]\ncmd = "z"\naddr = "bob"',
        ['line 10: [[conn]] number 3: addr: "bob" is already the addr of [[conn]] number 1 (line 4)'],
    ),
    "the same neighbour twice, in one line": (
        'conn = [{addr = "b", cmd = "x"}, {addr = "b", cmd = "y"}]\n' + SELF,
        ['[[conn]] number 2: addr: "b" is already the addr of [[conn]] number 1'],
    ),
    "a misspelled table": (
        SELF + "[[con]]\nx = 1\n[[con]]",
        ["line 3: [[con]]: unknown table (did you mean [[conn]]?)"],
    ),
    "a table far from any": (
        "[x]\n" + SELF,
        ["line 1: [x]: unknown table (there are [self], [[conn]], [[serve]], [[task]], [[forward]], [limits])"],
    ),
    "a link in single brackets": (
        SELF + '[conn]\ncmd = ""',
        [
            "line 3: [conn]: must be written [[conn]], as there may be several",
            "line 4: [conn] cmd: must not be empty",
        ],
    ),
    "self in double brackets": (
        '[[self]]\naddr = "a"',
        ["line 1: [[self]]: must be written [self], as there is only one"],
    ),
    "a link that is no table": (
        "conn = 3\n" + SELF,
        ["line 1: conn: must be written [[conn]], as there may be several"],
    ),
    "a link that is no table, and a table without a name": (
        'conn = 3\n[""]\nconn = 4\n' + SELF,
        [
            "line 1: conn: must be written [[conn]], as there may be several",
            "line 2: ['']: unknown table (there are [self], [[conn]], [[serve]], [[task]], [[forward]], [limits])",
        ],
    ),
    "limits that cannot be": (
        SELF + '[limits]\npendng = 1\nlinks = 0\nopens = "9"\nstreams = 9999999\nmemory = "1MB"\nsessions = true\n',
        [
            "line 4: [limits] pendng: unknown key (did you mean pending?)",
            "line 5: [limits] links: must be from 1 to 1048576, not 0",
            "line 6: [limits] opens: must be an integer, not a string",
            "line 7: [limits] streams: must be from 1 to 1048576, not 9999999",
            "line 8: [limits] memory: '1MB' is not a size: a number with KiB, MiB or GiB behind it, such as 256MiB",
            "line 9: [limits] sessions: must be an integer, not true or false",
        ],
    ),
    "several tables of limits": (
        SELF + "[[limits]]\nlinks = 1\n",
        ["line 3: [[limits]]: must be written [limits], as there is only one"],
    ),
    "links that are no tables": (
        'conn = ["socat - x"]\n' + SELF,
        ["line 1: conn: must be written [[conn]], as there may be several"],
    ),
    "a key above all tables": (
        'addr = "alice"',
        ["line 1: addr: outside any table (it belongs in [self])", "[self]: missing"],
    ),
    "a stray key": ("x = 1\n" + SELF, ["line 1: x: outside any table"]),
    "no TOML": ("[self]\n\naddr = \n", ["line 3, column 8: not TOML: Invalid value"]),
    "a cut file": ("[self]\naddr = ", ["not TOML: Invalid value (at end of document)"]),
    "a key twice": (SELF + 'addr = "b"\n', ["line 3, column 11: not TOML: ..."]),
    "a NUL": ("[self]\n# \0\n", ["line 2, column 3: not TOML: Found invalid character '\\x00'"]),
    "brackets without end": ("a = " + "[" * 100000, ["not TOML: brackets are nested too deep"]),
    "many digits": ("a = " + "9" * 5000 + "\n" + SELF, ["..."]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, expected = REFUSED[case]
    found = problems(text)
    assert len(found) == len(expected)
    for line, pattern in zip(found, expected):
        # "..." stands for words that are another module's
        assert line == pattern or (pattern.endswith("...") and line.startswith(pattern[:-3]) and line > pattern[:-3])


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "[[serv]]\nx = 1\n[[conn]]\nadr = 1\ncmd = 2\n[self]\nsocket = 1\n[[conn]]\n"
    assert problems(text) == [
        "line 1: [[serv]]: unknown table (did you mean [[serve]]?)",
        "line 4: [[conn]] number 1: adr: unknown key (did you mean addr?)",
        "line 5: [[conn]] number 1: cmd: must be a string, not an integer",
        "line 7: [self] socket: must be a string, not an integer",
        "line 8: [[conn]] number 2: cmd: missing",
        "[self] addr: missing",
    ]


def test_every_limit_is_a_key() -> None:
    text = "".join(f"{name} = {row.default + 1}\n" for name, row in TABLE.items())
    assert parse(f"{SELF}[limits]\n{text}").limits == {name: row.default + 1 for name, row in TABLE.items()}
    assert parse(SELF + '[limits]\nmemory = "64MiB"\n').limits == {"memory": 64 << 20}
    assert parse(SELF + "[limits]\n").limits == parse(SELF).limits == {}


def test_the_name_of_the_file_is_told_as_it_was_given() -> None:
    for name in ("\\1\\g<0>.toml", "a b.toml", "../x"):
        for text in ("a = 1\nb =\n", "[[self]]"):
            with pytest.raises(ConfigFileError, match="^" + re.escape(name) + ": line "):
                parse_config(text, name)


# Files


def load_error(path: object) -> str:
    with pytest.raises(ConfigFileError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)[len(f"{path}: ") :]


def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alice.toml").write_bytes(b"\xef\xbb\xbf" + SELF.replace("\n", "\r\n").encode() + b'socket = "a.sock"')
    monkeypatch.chdir(tmp_path)
    found = load("alice.toml")
    assert (found.addr, found.path, found.socket) == ("alice", "alice.toml", str(tmp_path / "a.sock"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert load_error(tmp_path / "none.toml") == "cannot be read: No such file or directory"
    assert load_error(tmp_path) == "cannot be read: Is a directory"
    assert load_error("a\0b").startswith("cannot be read: ")
    assert load_error("").startswith("cannot be read: ")


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "secret.toml"
    path.write_text(SELF)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert load_error(path) == "cannot be read: Permission denied"
    finally:
        os.seteuid(user)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(SELF.encode() + b'cmd = "\xff"')
    assert load_error(path) == "line 3: not UTF-8: byte 0xff"
    path.write_bytes(b"\xef\xbb\xbf[self]\n\n\xe4")
    assert load_error(path) == "line 3: not UTF-8: byte 0xe4"
    path.write_bytes(SELF.encode("utf-16-le"))
    assert load_error(path).startswith("line 1, column 2: not TOML: ")


def test_the_limit_of_size(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(SELF + "#" * (config.MAX_FILE - len(SELF)))
    assert load(str(path)).addr == "alice"
    path.write_text(SELF + "#" * (config.MAX_FILE - len(SELF) + 1))
    assert load_error(path) == "larger than the limit of 1 MiB: not a configuration file?"
    assert load_error("/dev/zero").startswith("larger than the limit")


# Lines


@pytest.mark.parametrize(
    "decoy",
    [
        'x = """\n[[conn]]\ncmd = 1\n"""',
        "x = '''\n[[conn]]\ncmd = 1'''''",
        'x = """""""\ny = """a\n[[conn]]\n"""',
        "x = '''''''\ny = '''a\n[[conn]]\n'''",
        'x = [\n["conn"],\n[["conn"]],\n]',
        'x = """a\\"""\n[[conn]]\n"""""',
        'x = ["]", \'[\', # [\n"""\n]""", [\n1]]',
        'x = "#" # "',
        "x = \"\"\ny = ''",
        "x.cmd = 1\nx.addr = 2",
        "[conn.x]\ncmd = 3",
        '[conn."a\\nb"]' + "\ncmd = 3",
        "[x]\ncmd = 3\n[[x.y]]\ncmd = 4",
    ],
)
def test_lines_are_not_taken_in_by(decoy: str) -> None:
    text = f"{SELF}[[conn]]\ncmd = 1\n{decoy}\n[[conn]]\n  cmd\t= 2"
    found = [problem for problem in problems(text) if "cmd: must be a string" in problem and "[[conn]]" in problem]
    lines = ["", ""] if "\\nb" in decoy else ["line 4: ", f"line {len(text.splitlines())}: "]
    assert found == [
        f"{lines[0]}[[conn]] number 1: cmd: must be a string, not an integer",
        f"{lines[1]}[[conn]] number 2: cmd: must be a string, not an integer",
    ]


def test_a_table_whose_header_cannot_be_read_gets_no_line() -> None:
    text = f'{SELF}[["c\\u006fnn"]]\ncmd = 1\n[[conn]]\ncmd = 2'
    assert problems(text) == [
        "[[conn]] number 1: cmd: must be a string, not an integer",
        "[[conn]] number 2: cmd: must be a string, not an integer",
    ]


BLANK = st.sampled_from(["", " ", "\t"])
COMMENT = st.sampled_from(["", " # [[conn]]", '#"""', "# '''", "\r"])
VALUE = st.sampled_from(
    [
        "1",
        '"a # b"',
        "'\"'",
        '"\\""',
        '"""\n[self]\nk1 = "1"\n"""',
        "'''\n[[conn]]\n'''''",
        "[\n 1, # ]\n]",
        '["]", []]',
        "{a = 1}",
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, int | None]]:
    """A valid text whose every key is different, and the line of each plain key of [self], [[conn]] and [[serve]]."""
    text = ""
    lines: dict[str, int | None] = {}
    headers = draw(st.lists(st.sampled_from(["[[conn]]", "[[serve]]", "[ [x] ]", "[[conn.sub]]", "[x.y]"]), max_size=6))
    headers.insert(draw(st.integers(0, len(headers))), "[self]")
    for number, header in enumerate(headers):
        if header == "[ [x] ]":
            header = "[[ 'x' ]]"
        elif header == "[x.y]":
            header = f"[y.z{number}]"
        if header == "[[conn.sub]]" and "[[conn]]" not in headers[:number]:
            continue
        text += draw(BLANK) + header + draw(COMMENT) + "\n"
        for key in range(draw(st.integers(0, 3))):
            name = f"k{number}x{key}"
            form = draw(st.sampled_from(["{}", "'{}'", '"{}"', "{}.dotted"]))
            if header in ("[self]", "[[conn]]", "[[serve]]"):
                lines[name] = None if "dotted" in form else text.count("\n") + 1
            text += (
                draw(BLANK) + form.format(name) + draw(BLANK) + "=" + draw(BLANK) + draw(VALUE) + draw(COMMENT) + "\n"
            )
    return text, lines


@given(documents())
def test_every_plain_key_is_found_in_its_line_and_no_other_is(document: tuple[str, dict[str, int | None]]) -> None:
    text, lines = document
    found: dict[str, int | None] = dict.fromkeys(lines)
    for problem in problems(text):
        match = re.search(r"^(?:line (\d+): )?\[.* (k\d+x\d+): unknown key", problem)
        if match:
            found[match[2]] = int(match[1]) if match[1] else None
    assert found == lines


def check_lines(text: str) -> None:
    """Whatever the text: nothing but a ConfigFileError, and a line that it names holds the key or the table."""
    try:
        assert isinstance(parse(text), Config)
    except ConfigFileError as error:
        for problem in error.problems:
            match = re.search(r"line (\d+): (?:\[+([^]]+)\]+:? ?(?:number \d+: )?)?(?:('[^']*'|[\w-]+): )?", problem)
            if match and "not TOML" not in problem:
                line = text.split("\n")[int(match[1]) - 1]
                held = match[2] if "missing" in problem or not match[3] else match[3]
                assert held
                assert held.strip("'") in line


WORDS = (
    "[self]\n|[[conn]]\n|[[serve]]\n|[conn]\n|[[con]]\n|[[self]]\n|[self.x]\n|[x]\n|"
    "addr|socket|cmd|name|allow|resume|lossy|adr| = |=|.|,|\n|\r\n|"
    '"|"""|\'|\'\'\'|{|}|[|]|#|\\|\\n|\\u0000|"bob"|"alice"|"-"|"~x/y"|'
    '"tcp://x"|"sshd -i"|1|1.5|true|[]|["x"]|1979-05-27|é|\0| '
)
PIECES = st.sampled_from(WORDS.split("|"))
SOUP = st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join)
SCALARS = st.sampled_from(
    ['"bob"', '""', '"a/b"', "'-'", '"/x/sshd -i"', '"t://"', "1", "1.5", "true", "1979-05-27", '"\\u0000"']
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["addr", "cmd", "name", "allow", "resume", "x"]), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["addr", "socket", "cmd", "name", "allow", "resume", "lossy", "adr", "commands", '"a b"', '""', "'line'", "written"]
)
HEADERS = st.sampled_from(
    ["[[conn]]", "[[serve]]", '[["conn"]]', "[[con]]", "[serve.x]", "[[self]]", "[conn]", "[self]", '[""]']
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=5).map(
    lambda body: [f"{key} = {value}\n" for key, value in body.items()]
)
FILES = st.tuples(
    st.dictionaries(st.sampled_from(["conn", "serve", "addr", "x"]), VALUES, max_size=1),
    st.lists(st.tuples(HEADERS, BODIES), max_size=6),
).map(
    lambda file: (
        "".join(f"{key} = {value}\n" for key, value in file[0].items())
        + "".join(f"{header}\n{''.join(body)}" for header, body in file[1])
    )
)


@given(SOUP | FILES | FILES.map((SELF + "{}").format))
@settings(max_examples=600)
@example(SELF + '"" = 1\n[[conn]]\n"" = 1')
@example('conn = 3\n[""]\nconn = 1\nx = 1')
@example('x = {a = 1}\n[self]\naddr = "\ud800"')
@example('[self]\nsocket = "\ud800"\n')
@example("[self]\nsocket = '~\ud800/x'\n")
def test_nothing_but_config_error_and_no_wrong_line(text: str) -> None:
    check_lines(text)


@given(st.binary(max_size=64) | SOUP.map(lambda text: text.encode("utf-8", "replace")))
def test_load_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    found: list[str] = []
    try:
        load(str(path))
    except ConfigFileError as error:
        found = error.problems
    assert all(problem.startswith(f"{path}: ") for problem in found)


def test_find_lines_of_nothing() -> None:
    assert find_lines("") == {}
    assert find_lines("\n\n# x\n") == {}


def test_the_table_can_be_made_into_a_manual_page() -> None:
    for name, table in config.TABLES.items():
        assert table.header in (f"[{name}]", f"[[{name}]]")
        assert table.help.endswith(".")
        for key in table.keys.values():
            assert callable(key.check)
            assert key.help.isprintable()
            assert key.help.endswith((".", "..."))


def test_addr_is_another_spelling_of_name() -> None:
    own = '[self]\naddr = "a"\n'
    for text in ('addr = "web"\n', 'addr = "web"\nname = "web"\n'):
        config = parse_config(f'{own}[[serve]]\n{text}cmd = "tcp://[::1]:80"\n', "a.toml")
        assert [serve.name for serve in config.serves] == ["web"]
        config = parse_config(f'{own}[[task]]\n{text}cmd = "true"\n', "a.toml")
        assert [task.name for task in config.tasks] == ["web"]
    for table in ("serve", "task"):
        with pytest.raises(ConfigError, match=r"line 5: .*addr: differs from name"):
            parse_config(f'{own}[[{table}]]\nname = "web"\naddr = "mail"\ncmd = "true"\n', "a.toml")
    twice = '[[serve]]\naddr = "web"\ncmd = "cat"\n[[serve]]\nname = "web"\ncmd = "cat"\n'
    with pytest.raises(ConfigError, match="already the name of"):
        parse_config(own + twice, "a.toml")
    with pytest.raises(ConfigError) as caught:
        parse_config(f'{own}[[serve]]\naddr = "w b"\ncmd = "tcp://[::1]:80"\n', "a.toml")
    assert str(caught.value).count("\n") == 0, "one problem, and not also that the name is missing"
