"""TRANSPORT as text: what each scheme takes, what is said of what it does not, and which commands lose bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.errors import AddressError, UsageError
from r2box.net.io.units import format_duration, parse_duration
from r2box.net.transport.socat import is_lossy_command
from r2box.net.transport.transport import (
    COMMAND,
    LINK_COMMAND,
    STDIO,
    Transport,
    explain,
    parse_transport,
    service_name,
    summary,
)
from r2box.net.transport.urls import BAUDS, CONNECT, FORWARD, SCHEMES, SERVE, TUNNEL

FIELDS = ("host", "port", "path", "command", "descriptors", "options")

# Text, and what is read from it besides its kind; what is not named there is empty.
RIGHT: list[tuple[str, dict[str, object]]] = [
    ("tcp://host:1", {"host": "host", "port": 1}),
    ("tcp://[::1]:65535", {"host": "::1", "port": 65535}),
    ("tcp://h:1?bind=10.0.0.1", {"host": "h", "port": 1, "options": {"bind": ("10.0.0.1", 0)}}),
    ("tcp://h:1?bind=10.0.0.1:5", {"host": "h", "port": 1, "options": {"bind": ("10.0.0.1", 5)}}),
    ("tcp://h:1?bind=::1", {"host": "h", "port": 1, "options": {"bind": ("::1", 0)}}),
    ("tcp://h:1?bind=[::1]:5&", {"host": "h", "port": 1, "options": {"bind": ("::1", 5)}}),
    ("tcp://h:1?bind=[::1]", {"host": "h", "port": 1, "options": {"bind": ("::1", 0)}}),
    ("tcp://h:1?timeout=1.5m&lossy", {"host": "h", "port": 1, "options": {"timeout": 90.0, "lossy": True}}),
    ("tcp://[fe80::1%25eth0]:1", {"host": "fe80::1%eth0", "port": 1}),
    ("tcp://[fe80::1%eth0]:1", {"host": "fe80::1%eth0", "port": 1}),
    ("tcp://[fe80::1%25a%2eb]:%31", {"host": "fe80::1%a.b", "port": 1}),
    ("tcp://[fe80::1%252]:1", {"host": "fe80::1%2", "port": 1}),
    ("tcp://[fe80::1%25]:1", {"host": "fe80::1%25", "port": 1}),
    ("tcp://[fe80::1%be0]:1", {"host": "fe80::1%be0", "port": 1}),
    ("tcp://[FEBF::1%25be0]:1", {"host": "FEBF::1%be0", "port": 1}),
    ("tcp://a%2Db:%38%30", {"host": "a-b", "port": 80}),
    ("tcp://h:1?bind=fe80::1%25v0", {"host": "h", "port": 1, "options": {"bind": ("fe80::1%v0", 0)}}),
    ("tcp://h:1?bind=fe80::1%v0", {"host": "h", "port": 1, "options": {"bind": ("fe80::1%v0", 0)}}),
    ("tcp://h:1?bind=[fe80::1%25v0]:5", {"host": "h", "port": 1, "options": {"bind": ("fe80::1%v0", 5)}}),
    ("tcp://h:1?bind=[fe80::1%v0]:%35", {"host": "h", "port": 1, "options": {"bind": ("fe80::1%v0", 5)}}),
    ("tcp://h:1?bind=%5Bfe80%3A%3A1%25v0%5D%3A5", {"host": "h", "port": 1, "options": {"bind": ("fe80::1%v0", 5)}}),
    ("tcp://h:1?bind=10.0.0.1:%35", {"host": "h", "port": 1, "options": {"bind": ("10.0.0.1", 5)}}),
    ("tcp://h:1?%62ind=%31%30.0.0.1", {"host": "h", "port": 1, "options": {"bind": ("10.0.0.1", 0)}}),
    ("tcp-listen://[fe80::1%25v0]:5", {"host": "fe80::1%v0", "port": 5}),
    ("udp://[fe80::1%25v0]:1", {"host": "fe80::1%v0", "port": 1}),
    ("udp-listen://[ff02::1%v0]:1", {"host": "ff02::1%v0", "port": 1}),
    ("tcp-listen://:1", {"port": 1}),
    ("tcp-listen://[::]:1?keepalive=90s", {"host": "::", "port": 1, "options": {"keepalive": 90}}),
    ("unix://name.sock", {"path": "name.sock"}),
    ("unix:///a%20b/%3f", {"path": "/a b/?"}),
    ("unix://@hidden", {"path": "@hidden"}),
    ("unix-listen:///x?mode=660", {"path": "/x", "options": {"mode": 0o660}}),
    ("udp://h:1?mtu=65507", {"host": "h", "port": 1, "options": {"mtu": 65507}}),
    ("udp-listen://:1", {"port": 1}),
    ("serial:///dev/ttyS0", {"path": "/dev/ttyS0"}),
    (
        "serial:///dev/ttyS0?baud=9600&parity=odd&flow=xonxoff&stop=2&bits=7&lossy=0",
        {"path": "/dev/ttyS0", "options": {
            "baud": 9600, "parity": "odd", "flow": "xonxoff", "stop": "2", "bits": "7", "lossy": False,
        }},
    ),
    ("pty://sh -c 'ls ?a=b&c'", {"command": "sh -c 'ls ?a=b&c'"}),
    ("pty://?link=/tmp/x", {"options": {"link": "/tmp/x"}}),
    ("pty://?link=/tmp/%2541", {"options": {"link": "/tmp/%41"}}),
    ("fd://3", {"descriptors": (3,)}),
    ("fd://0,1", {"descriptors": (0, 1)}),
    ("fd://%30%2c1", {"descriptors": (0, 1)}),
    ("rfcomm://00%3ab0:D0:63:C2:26/%33", {"host": "00:B0:D0:63:C2:26", "port": 3}),
    ("vsock://h%6fst:5", {"host": "2", "port": 5}),
    ("rfcomm://00:b0:D0:63:C2:26/3", {"host": "00:B0:D0:63:C2:26", "port": 3}),
    ("rfcomm-listen:///3", {"host": "00:00:00:00:00:00", "port": 3}),
    ("vsock://host:5", {"host": "2", "port": 5}),
    ("vsock://3:4294967294?timeout=500ms", {"host": "3", "port": 4294967294, "options": {"timeout": 0.5}}),
    ("vsock-listen://:5", {"host": "4294967295", "port": 5}),
    (
        "tun://r20?addr=10.0.0.1/24&mtu=1400&up",
        {"path": "r20", "options": {"addr": (("10.0.0.1", 24),), "mtu": 1400, "up": True}},
    ),
    ("tun://r20?up=no&addr=10.0.0.1/24", {"path": "r20", "options": {"addr": (("10.0.0.1", 24),), "up": False}}),
    ("tun://r20?up=yes", {"path": "r20", "options": {"up": True}}),
    ("tap://?addr=fd00::1/64&up=0", {"options": {"addr": (("fd00::1", 64),), "up": False}}),
]  # fmt: skip

WRONG = [
    ("", "an empty TRANSPORT"),
    ("tpc://h:1", "no transport tpc:// (did you mean tcp://h:1?); there are tcp://, tcp-listen://, unix://"),
    ("http://h/", "no transport http://"),
    ("tcp://host:99999", "tcp://host:99999: '99999' is not a port (1 to 65535)"),
    ("tcp://host:0", "'0' is not a port"),
    ("tcp://host:\u0661", "is not a port"),
    ("tcp://host:+1", "is not a port"),
    ("tcp://host:1/", "'1/' is not a port"),
    ("tcp://host", "the port is missing: host:PORT"),
    ("tcp://host:", "the port is missing: host:PORT"),
    ("tcp://", "the port is missing: HOST:PORT"),
    ("tcp://:1", "the host is missing: HOST:1"),
    ("tcp://::1:5", "an IPv6 address is written in brackets: [::1]:5"),
    ("tcp://[host]:5", "'host' is not an IPv6 address"),
    ("tcp://a b:5", "'a b' is not a host"),
    ("tcp://a%:5", "'%' is not %XX (a % itself is %25)"),
    ("tcp://a%zz:5", "'%zz' is not %XX (a % itself is %25)"),
    ("tcp://a%00b:5", "%00 (NUL) is not allowed in a URL"),
    ("tcp://a%20b:5", "'a b' is not a host"),
    ("tcp://a%ffb:5", "is not a host"),
    ("tcp://[fe80::1%]:5", "'fe80::1%' is not an IPv6 address, and brackets are for those (only a link-local one"),
    ("tcp://[fe80::1%25v%zz]:5", "'%zz' is not %XX"),
    ("tcp://[fe80::1%25v%2f]:5", "'fe80::1%v/' is not an IPv6 address"),
    ("tcp://[fe80::1%25much-too-long-a-name]:5", "is not an IPv6 address"),
    ("tcp://[fe80::zz%25v0]:5", "'fe80::zz%v0' is not an IPv6 address"),
    ("tcp://[2001:db8::1%25v0]:5", "'2001:db8::1%v0' is not an IPv6 address, and brackets are for those (only a link-"),
    ("tcp://fe80::1%25v0:5", "an IPv6 address is written in brackets: [fe80::1%v0]:5"),
    ("tcp://h:1?bind=fe80::1%", "'fe80::1%' is not an IP address of this host (only a link-local one"),
    ("tcp://h:1?bind=::1%25lo", "'::1%lo' is not an IP address of this host (only a link-local one"),
    ("tcp://h:1?bind=%z", "bind: '%z' is not %XX"),
    ("tcp://h:1?timeout=%\u0665\u0665", "is not %XX"),
    ("tcp://h:1?tiemout=5", "no option 'tiemout' (did you mean timeout?); tcp:// takes bind=, timeout="),
    ("tcp://h:1?baud=9600", "no baud= here: tcp:// takes"),
    ("tcp://h:1?timeout", "timeout= needs a value: DURATION"),
    ("tcp://h:1?timeout=5x", "timeout: '5x' is not a duration"),
    ("tcp://h:1?timeout=0", "timeout: '0' is not a positive duration"),
    ("tcp://h:1?timeout=-1", "timeout: '-1' is not a duration"),
    ("tcp://h:1?timeout=1&timeout=2", "timeout= is given twice"),
    ("tcp://h:1?keepalive=100ms", "keepalive: '100ms' is not 1 to 32767 seconds"),
    ("tcp://h:1?keepalive=1d", "keepalive: '1d' is not 1 to 32767 seconds"),
    ("tcp://h:1?bind=localhost", "bind: 'localhost' is not an IP address"),
    ("tcp://h:1?bind=[::1]:0", "bind: '0' is not a port"),
    ("tcp://h:1?lossy=yess", "lossy: 'yess' is not one of yes, no, 1, 0 (did you mean yes?)"),
    ("tun://r?route=10.0.0.0/8&up=no", "route= needs the interface up"),
    ("tcp-listen://:1?bind=::1", "no bind= here"),
    ("udp://h:1?lossy=0", "no lossy= here"),
    ("udp://h:1?mtu=63", "mtu: '63' is not a size of packets (64 to 65507)"),
    ("udp://h:1?mtu=65508", "is not a size of packets"),
    ("unix://", "the path is missing"),
    ("unix:///a%zz", "'%zz' is not %XX"),
    ("unix:///a%", "'%' is not %XX"),
    ("unix:///a%00", "NUL"),
    ("unix:///" + "x" * 107, "the path has 108 bytes"),
    ("unix-listen:///x?mode=888", "mode: '888' is not a file mode"),
    ("serial://ttyS0", "'ttyS0' is not the full path"),
    ("serial:///dev/ttyS0?baud=115201", "baud: '115201' is not a baud rate: use one of 50 75"),
    ("serial:///dev/ttyS0?parity=evn", "parity: 'evn' is not one of none, even, odd (did you mean even?)"),
    ("serial:///dev/ttyS0?bits=9", "bits: '9' is not one of"),
    ("pty://", "the command is missing"),
    ("pty://-", "- is our stdin and stdout"),
    ("pty://?mtu=100", "the command is missing"),
    ("fd://", "'' is not the number of a descriptor"),
    ("fd://x", "'x' is not the number of a descriptor"),
    ("fd://1,2,3", "at most two"),
    ("rfcomm://00:B0:D0:63:C2:26", "the channel is missing"),
    ("rfcomm://00:B0:D0:63:C2:26/31", "'31' is not a channel of RFCOMM (1 to 30)"),
    ("rfcomm://00:B0:D0:63:C2:2G/3", "is not a Bluetooth address"),
    ("vsock://5", "the port is missing: CID:PORT"),
    ("vsock://me:5", "'me' is not a CID"),
    ("vsock://:5", "the CID is missing"),
    ("tun://much-too-long-a-name", "is not a name of a network interface"),
    ("tun://a/b", "is not a name of a network interface"),
    ("tun://r?addr=10.0.0.1", "'10.0.0.1' is not an address with its prefix"),
    ("tun://r?addr=fe80::1%25r/64", "'fe80::1%r/64' is not an address with its prefix"),
    ("tun://r?addr=10.0.0.1/33", "addr: '33' is not a prefix (0 to 32)"),
    ("exec:", "the command is missing: exec:COMMAND"),
    ("exec:-", "the command is missing"),
]

# What is almost a URL, for which use, and the URL that is proposed instead ("": it is taken for a command).
NEAR = [
    ("127.0.0.1:4721", CONNECT, "tcp://127.0.0.1:4721"),
    ("localhost:4721", TUNNEL, "tcp://localhost:4721"),
    ("[::1]:4721", SERVE, "tcp://[::1]:4721"),
    ("::1:4721", SERVE, "tcp://[::1]:4721"),
    (":4721", CONNECT, "tcp://127.0.0.1:4721"),
    ("*:4721", CONNECT, "tcp-listen://:4721"),
    ("*:4721", SERVE, "tcp://127.0.0.1:4721"),
    ("127.0.0.1:8080", FORWARD, "tcp-listen://127.0.0.1:8080"),
    ("tcp://127.0.0.1:8080", FORWARD, "tcp-listen://127.0.0.1:8080"),
    ("tcp-listen://127.0.0.1:8080", SERVE, "tcp://127.0.0.1:8080"),
    ("tcp:host:80", CONNECT, "tcp://host:80"),
    ("tcp:host:80", FORWARD, "tcp-listen://host:80"),
    ("tcp//host:80", TUNNEL, "tcp://host:80"),
    ("tcp:/host:80", TUNNEL, "tcp://host:80"),
    ("tcp:///host:80", TUNNEL, "tcp://host:80"),
    ("tcp:80", CONNECT, "tcp://127.0.0.1:80"),
    ("tcp:nonesuch", CONNECT, "tcp://HOST:PORT"),
    ("tcp://::1:80", CONNECT, "tcp://[::1]:80"),
    ("tcp-listen://8088", CONNECT, "tcp-listen://127.0.0.1:8088"),
    ("tcp://8088", CONNECT, "tcp://127.0.0.1:8088"),
    ("tcp-l:8088,fork,reuseaddr", CONNECT, "tcp-listen://127.0.0.1:8088"),
    ("TCP4:host:80,nodelay", CONNECT, "tcp://host:80"),
    ("tpc://host:80", CONNECT, "tcp://host:80"),
    ("tpc:host:80", CONNECT, "tcp://host:80"),
    ("TCP://host:80", CONNECT, "tcp://host:80"),
    ("tcp-listne://:80", CONNECT, "tcp-listen://:80"),
    ("unix:x.sock", CONNECT, "unix://x.sock"),
    ("serial:/dev/ttyS7", CONNECT, "serial:///dev/ttyS7"),
    ("pty:bash -i", SERVE, "pty://bash -i"),
    ("tap:80", CONNECT, "tap://80"),
    ("tab:80", CONNECT, "tcp://tab:80"),
    ("exec:127.0.0.1:4721", CONNECT, ""),
    ("tcp:nonesuch here", CONNECT, ""),
    ("nc 127.0.0.1:4721", CONNECT, ""),
    ("$HOST:80", CONNECT, ""),
    ("/bin/sh", CONNECT, ""),
    ("a=b:80", CONNECT, ""),
]


@pytest.mark.parametrize(("text", "use", "url"), NEAR, ids=[f"{text} {use}" for text, use, _ in NEAR])
def test_the_url_that_was_meant_is_proposed(text: str, use: str, url: str) -> None:
    if not url:
        assert parse_transport(text).check_use(use).kind == COMMAND
        return
    with pytest.raises(UsageError) as caught:
        parse_transport(text).check_use(use)
    assert f"(did you mean {url}?)" in str(caught.value)


def test_a_program_whose_name_is_like_a_url_is_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tcp:foo").write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="neither a URL nor a program"):
        parse_transport("tcp:foo").check_use(CONNECT)
    (tmp_path / "tcp:foo").chmod(0o755)
    for text in ("tcp:foo", "tcp:foo 80", f"{tmp_path}/tcp:foo"):
        assert parse_transport(text).check_use(CONNECT).kind == COMMAND


@pytest.mark.parametrize(("text", "fields"), RIGHT, ids=[text for text, _ in RIGHT])
def test_what_is_read(text: str, fields: dict[str, object]) -> None:
    transport = parse_transport(text)
    assert transport.kind == text.partition("://")[0]
    assert str(transport) == text
    for name in FIELDS:
        assert getattr(transport, name) == fields.get(name, type(getattr(transport, name))()), name


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_transport(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_scheme_is_tried() -> None:
    assert {text.partition("://")[0] for text, _ in RIGHT} == set(SCHEMES)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for prefix in ("", *(f"{name}://" for name in SCHEMES)):
        try:
            transport = parse_transport(prefix + text)
        except UsageError:
            continue
        assert transport.text == prefix + text


@given(
    st.sampled_from([row for row in SCHEMES.values() if row.options]),
    st.lists(st.tuples(st.sampled_from(["bind", "timeout", "lossy", "x", ""]), st.text(max_size=8)), max_size=4),
)
def test_options_are_those_of_the_row(row: object, options: list[tuple[str, str]]) -> None:
    start = next(text for text, _ in RIGHT if text.startswith(f"{row.name}://") and " " not in text)  # type: ignore[attr-defined]
    query = "&".join(f"{name}={value}" for name, value in options)
    try:
        transport = parse_transport(f"{start.partition('?')[0]}?{query}")
    except UsageError:
        return
    assert set(transport.options) <= set(row.options)  # type: ignore[attr-defined]


def test_commands() -> None:
    assert parse_transport("-").kind == STDIO
    for text in ("ssh bob r2 connect -", "curl http://x/", "a:b", "tcp:h:1", "exec", "Exec:x", "socat - tcp:h:1"):
        transport = parse_transport(text)
        assert (transport.kind, transport.command, transport.how) == (COMMAND, text, COMMAND)
    for text in ("socat tcp-l:1,fork exec:-", "x -% y", 'socat tcp-l:1 EXEC:"-"', "ssh h 'socat tcp-l:1 system:-'"):
        assert parse_transport(text).kind == LINK_COMMAND
    for text in ("echo -%x", "socat - exec:-x", "cat -", "socat tcp-l:1 'exec:r2 connect -'", "x >-%"):
        assert parse_transport(text).kind == COMMAND
    spelled = parse_transport("exec:socat tcp-l:1,fork exec:-")
    assert (spelled.kind, spelled.command) == (COMMAND, "socat tcp-l:1,fork exec:-")


@pytest.mark.parametrize(
    ("command", "lossy"),
    [
        ("socat udp:example.com:47210 -", True),
        ("socat interface:eth0 -", True),
        ("/usr/bin/socat -d -d UDP4-LISTEN:1,fork exec:-", True),
        ("socat udp-l:47210,fork exec:'r2 connect -'", True),
        ("socat - udp6-sendto:[::1]:5", True),
        ("socat udplite:h:1 -", True),
        ("socat - ip4-sendto:10.0.0.1:17", True),
        ("socat IP:10.0.0.1:17 -", True),
        ("socat tun,iff-up,device-name=r20 -", True),
        ("socat tun:10.0.0.1/24,up -", True),
        ("socat openssl-dtls-client:h:1 -", True),
        ("socat - /dev/ttyUSB0,b115200,raw", True),
        ("socat - open:/dev/ttyS0", True),
        ("socat - GOPEN:/dev/ttyACM0,b9600", True),
        ("socat -!!udp:h:1 tcp-l:5", True),
        ("sudo socat if:eth0 -", True),
        ("ssh host 'socat udp:h:1 -'", True),
        ("X=1; socat - udp:h:1", True),
        ("socat tcp:udp.example.com:1 -", False),
        ("socat tcp:h:1 -", False),
        ("socat - exec:udp", False),
        ("socat - open:/dev/tty", False),
        ("socat - /dev/null", False),
        ("socat - /tmp/udp:1", False),
        ("socat - unix:/run/udp.sock", False),
        ("socat - ssl:h:1", False),
        ("socat tcp:h:1 - | tee udp:h:1", False),
        ("socat - tcp:h:1; echo udp:h:1", False),
        ("socat - tcp:h:1 >udp:h:1", False),
        ("socat - tcp:h:1\necho udp:h:1", False),
        ("socat 2>&1 - udp:h:1", True),
        ("socat - 'udp:h:1'", True),
        ("so\\cat - u\"dp:h:1\"", True),
        ("socat tcp-l:1 'exec:socat - udp:h:1'", True),
        ("socat - udp\\ x:1", False),
        ("cat my\\ file", False),
        ("echo udp:h:1", False),
        ("nosocat udp:h:1", False),
        ("rfcomm connect /dev/rfcomm0 00:B0:D0:63:C2:26 3", False),
        ("ssh bob r2 connect -", False),
        ("", False),
    ],
)
def test_which_commands_lose_bytes(command: str, lossy: bool) -> None:
    assert is_lossy_command(command) == lossy
    if command:
        assert parse_transport(command).is_lossy == lossy


def test_what_is_lossy_and_how() -> None:
    for name in ("udp", "udp-listen", "serial"):
        assert SCHEMES[name].is_lossy
    assert parse_transport("serial:///dev/ttyS0").is_lossy
    assert not parse_transport("serial:///dev/ttyS0?lossy=0").is_lossy
    assert parse_transport("tcp://h:1?lossy=1").is_lossy
    assert not parse_transport("tcp://h:1").is_lossy
    assert not parse_transport("-").is_lossy
    transport = parse_transport("udp://h:1?mtu=500&keepalive=2m")
    assert (transport.mtu, transport.keepalive, transport.is_datagrams) == (500, 120, True)
    plain = parse_transport("unix://x")
    assert (plain.mtu, plain.keepalive, plain.is_datagrams) == (0, 0, False)


@pytest.mark.parametrize("use", [CONNECT, TUNNEL, SERVE])
def test_where_each_may_be_used(use: str) -> None:
    for text, fields in RIGHT:
        transport = parse_transport(text)
        options = fields.get("options", {})
        assert isinstance(options, dict)
        row = SCHEMES[transport.kind]
        for_links = use != CONNECT and any(row.options[name].for_links for name in options)
        if use in row.uses and not for_links:
            assert transport.check_use(use) is transport
            continue
        with pytest.raises(UsageError) as caught:
            transport.check_use(use)
        assert text in str(caught.value)
        assert ("for links" if use in row.uses else "cannot") in str(caught.value)
    assert parse_transport("cat").check_use(use).kind == COMMAND


def test_stdio_and_starters_where_they_cannot_be() -> None:
    starter = Transport("x -%", LINK_COMMAND, command="x -%")
    assert starter.check_use(CONNECT) is starter
    for transport, use in ((starter, TUNNEL), (starter, SERVE), (parse_transport("-"), SERVE)):
        with pytest.raises(UsageError):
            transport.check_use(use)
    assert parse_transport("-").check_use(TUNNEL).kind == STDIO


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/usr/sbin/sshd -i", "sshd"),
        ("exec:/usr/sbin/sshd -i", "sshd"),
        ("pty:///bin/login -f", "login"),
        ("pty://?link=x", None),
        ("tcp://127.0.0.1:22", None),
        ("serial:///dev/ttyS0", None),
        ("exec:A=b c", None),
    ],
)
def test_the_name_of_a_service(text: str, name: str | None) -> None:
    if name is not None:
        assert service_name(text) == name
        return
    with pytest.raises(AddressError) as caught:
        service_name(text)
    assert "exec" in text or "has no base name" in str(caught.value)


def test_help_has_every_scheme_and_option() -> None:
    for use in (CONNECT, TUNNEL, SERVE):
        urls, options = (dict(rows) for _, rows in explain(use))
        for row in SCHEMES.values():
            assert (f"{row.name}://{row.form}" in urls) == (use in row.uses)
            for option in row.options.values():
                if use in row.uses and option.fits(use):
                    assert f"{option.name}={option.form}" in options
                    assert re.search(rf"; takes .*\b{option.name}\b", urls[f"{row.name}://{row.form}"])
        assert all(name in summary(use) for name, row in SCHEMES.items() if use in row.uses)


def test_baud_rates_are_those_that_systems_have() -> None:
    import termios

    ours = {baud for baud in BAUDS if hasattr(termios, f"B{baud}")}
    theirs = {int(name[1:]) for name in dir(termios) if name[:1] == "B" and name[1:].isdigit()} - {0}
    assert theirs <= set(BAUDS)
    assert {9600, 115200} <= ours


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5), ("5s", 5), ("500ms", 0.5), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1.5m", 90), ("0", 0),
        (".5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5x", "-1", "+1", "1e3", "inf", "nan", "5 s", " 5", "1_000", "٣", ".", "1.2.3", "5sm", "400d"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|more than a year"):
        parse_duration(text)


@given(st.integers(1, 31_000_000))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
