"""Devices: serial lines, terminals, inherited descriptors, network interfaces.

Each is opened as a `Device`.  Its descriptors are non-blocking and shared with no other program.
"""

from __future__ import annotations

import os
import socket
import struct

from ...errors import TransportError
from ..io import process
from ..io.shell import shell_line
from ..io.stdio import put_null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .transport import Transport

FIRST_INHERITED = 3  # the lowest descriptor that is not stdin, stdout or stderr
TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF, _IFF_TUN, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 1, 2, 0x1000  # linux/if_tun.h
_SIOCGIFINDEX, _SIOCSIFMTU = 0x8933, 0x8922  # linux/sockios.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_NEWADDR, _NEWROUTE, _CREATE = 20, 24, 0x1 | 0x4 | 0x200 | 0x400  # linux/netlink.h: request, ack, excl, create
_NODAD, _SCOPE_LINK, _TABLE_MAIN, _BY_ADMIN, _UNICAST = 0x02, 253, 254, 4, 1  # linux/rtnetlink.h
_CRTSCTS = 0x80000000  # on Linux; termios lacks the name on some systems before Python 3.12


class Device:
    """An open device: `fds` are one descriptor, or one to read and one to write; the caller closes them.

    `pid` is the command on the other side of a terminal, or 0.  Call `release()` after use.
    """

    __slots__ = ("_kept", "_link", "_name", "fds", "pid")

    def __init__(self, fds: tuple[int, ...], pid: int = 0) -> None:
        self.fds = fds
        self.pid = pid
        self._kept = -1
        self._link = self._name = ""

    def keep(self, fd: int, link: str) -> None:
        """Keep the slave `fd` open, so that the terminal outlives the programs that open it by the symlink `link`."""
        self._kept, self._link, self._name = fd, link, os.ttyname(fd)

    def release(self) -> None:
        """Close the slave and remove the symlink.  Safe to call again."""
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1
            try:
                if os.readlink(self._link) == self._name:
                    os.unlink(self._link)
            except OSError:
                return  # already removed or replaced


def open_device(
    transport: Transport, environment: Mapping[str, str] | None = None, with_stderr: bool = False, leash: int = -1
) -> Device:
    """Open the device of `transport`, whose `how` is DEVICE.  TransportError with the reason if that fails.

    For a command on a terminal: `environment` is added to ours, `with_stderr` connects its stderr to the terminal too,
    `leash` is as in `process.start`.
    """
    try:
        if transport.kind == "pty" and transport.command:
            return _open_command(transport, environment or {}, with_stderr, leash)
        return _OPENERS[transport.kind](transport)
    except OSError as error:
        where = f"{error.filename}: " if error.filename and error.filename != transport.path else ""
        raise TransportError(where + (error.strerror or str(error))) from None


# -- terminals ------------------------------------------------------------------------------------------------------


def _make_raw(fd: int) -> None:
    """Set raw mode (cfmakeraw(3)); a read returns the available bytes."""
    import termios

    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(fd)
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON | termios.IXOFF | termios.IXANY | termios.INPCK
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def _open_serial(transport: Transport) -> Device:
    import fcntl
    import termios

    # Without O_NONBLOCK, open would wait for a carrier.
    fd = os.open(transport.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not os.isatty(fd):
            raise TransportError("not a serial line")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # binds root too, unlike TIOCEXCL
        except BlockingIOError:
            raise TransportError("another program uses this line") from None
        fcntl.ioctl(fd, termios.TIOCEXCL)
        _make_raw(fd)
        _set_line(fd, transport)
        if transport.is_lossy:
            termios.tcflush(fd, termios.TCIOFLUSH)  # bytes received at another rate are noise
    except (termios.error, TransportError) as error:
        os.close(fd)
        raise error if isinstance(error, TransportError) else TransportError(str(error.args[-1])) from None
    return Device((fd,))


def _set_line(fd: int, transport: Transport) -> None:
    import termios

    options = transport.options
    iflag, oflag, cflag, lflag, _, _, cc = termios.tcgetattr(fd)
    baud = options.get("baud", 115200)
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise TransportError(f"this system has no baud rate {baud}")
    parity, flow = options.get("parity", "none"), options.get("flow", "none")
    rtscts = getattr(termios, "CRTSCTS", _CRTSCTS)
    cflag &= ~(termios.CSIZE | termios.CSTOPB | termios.PARENB | termios.PARODD | rtscts)
    cflag |= termios.CLOCAL | termios.CREAD | getattr(termios, f"CS{options.get('bits', '8')}")
    cflag |= termios.CSTOPB if options.get("stop") == "2" else 0
    cflag |= {"none": 0, "even": termios.PARENB, "odd": termios.PARENB | termios.PARODD}[parity]
    iflag |= termios.INPCK if parity != "none" else 0
    cflag |= rtscts if flow == "rtscts" else 0
    iflag |= termios.IXON | termios.IXOFF if flow == "xonxoff" else 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, speed, speed, cc])


def _open_command(transport: Transport, environment: Mapping[str, str], with_stderr: bool, leash: int) -> Device:
    """A command on a new terminal, which becomes its controlling terminal."""
    master, slave = os.openpty()
    try:
        _make_raw(slave)
        os.set_blocking(master, False)
        # A session leader that opens a terminal gets it as its controlling terminal.
        opening = f"exec 0<>{os.ttyname(slave)} 1>&0{' 2>&0' if with_stderr else ''}\n"
        line = opening + shell_line(transport.command)
        pid = process.start(line, slave, slave, environment=environment, new_session=True, leash=leash)
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return Device((master,), pid)


def _open_terminal(transport: Transport) -> Device:
    """A terminal for a program that opens it by the symlink at ?link=."""
    master, slave = os.openpty()
    link = transport.options["link"]
    try:
        _make_raw(slave)
        os.set_blocking(master, False)
        if os.path.islink(link) and not os.path.exists(link):
            os.unlink(link)  # of a terminal that no longer exists
        os.symlink(os.ttyname(slave), link)
    except OSError:
        os.close(master)
        os.close(slave)
        raise
    device = Device((master,))
    device.keep(slave, link)
    return device


def _open_descriptors(transport: Transport) -> Device:
    """Inherited descriptors.  (Those that this program opens are all close-on-exec, which distinguishes them.)"""
    import fcntl

    for fd in transport.descriptors:
        try:
            is_ours = fd >= FIRST_INHERITED and not os.get_inheritable(fd)
        except OSError:
            is_ours = True
        if is_ours:
            raise TransportError(f"{fd} is no descriptor that was open when this program was started")
    taken = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_INHERITED) for fd in transport.descriptors)
    put_null(transport.descriptors)
    return Device(taken)


# -- network interfaces ---------------------------------------------------------------------------------------------


def _open_interface(transport: Transport) -> Device:
    import fcntl

    fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = _IFF_TUN if transport.kind == "tun" else _IFF_TAP
        request = struct.pack("16sH22x", transport.path.encode(), kind | _IFF_NO_PI)
        name = fcntl.ioctl(fd, _TUNSETIFF, request)[:16]
        _set_interface(name, transport)
    except OSError as error:
        os.close(fd)
        raise TransportError(f"{transport.path or 'a new interface'}: {error.strerror}") from None
    except TransportError:
        os.close(fd)
        raise
    return Device((fd,))


def _set_interface(name: bytes, transport: Transport) -> None:
    import fcntl

    options = transport.options
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if "mtu" in options:
            fcntl.ioctl(sock, _SIOCSIFMTU, struct.pack("16si20x", name, options["mtu"]))
        index = struct.unpack_from("i", fcntl.ioctl(sock, _SIOCGIFINDEX, name + bytes(24)), 16)[0]
        for host, prefix in options.get("addr", ()):
            _request(_NEWADDR, host, prefix, index)
        if options.get("up", "addr" in options or "route" in options):
            flags = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, name + bytes(24)), 16)[0]
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | _IFF_UP))
        for host, prefix in options.get("route", ()):
            _request(_NEWROUTE, host, prefix, index)


def _request(what: int, host: str, prefix: int, index: int) -> None:
    """Give the interface `index` an address, or a route to a network (rtnetlink(7)).  TransportError if refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.inet_pton(family, host)
    if what == _NEWADDR:
        flags = _NODAD if family == socket.AF_INET6 else 0  # usable at once
        body = struct.pack("=BBBBI", family, prefix, flags, 0, index) + _attribute(1, address) + _attribute(2, address)
    else:
        scope = _SCOPE_LINK if family == socket.AF_INET else 0
        body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, _TABLE_MAIN, _BY_ADMIN, scope, _UNICAST, 0)
        body += _attribute(1, address) + _attribute(4, struct.pack("=I", index))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:  # type: ignore[attr-defined, unused-ignore]
        sock.send(struct.pack("=IHHII", 16 + len(body), what, _CREATE, 1, 0) + body)
        code: int = -struct.unpack_from("=i", sock.recv(4096), 16)[0]
    if code:
        raise TransportError(f"{'addr' if what == _NEWADDR else 'route'}={host}/{prefix}: {os.strerror(code)}")


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data  # 4 or 16 bytes, so no padding


_OPENERS: dict[str, Callable[[Transport], Device]] = {
    "serial": _open_serial,
    "pty": _open_terminal,
    "fd": _open_descriptors,
    "tun": _open_interface,
    "tap": _open_interface,
}
