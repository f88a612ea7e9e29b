"""The peer of a socket: its address, or its process, user and command line."""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..io.channel import Channel

MAX_COMMAND = 200  # characters of a command line that are shown
_READ = 4096  # bytes of it that are read
_CREDENTIALS = struct.Struct("3i")  # struct ucred of SO_PEERCRED (unix(7)): process, user, group


def peer_address(channel: Channel) -> str:
    """The remote address of a connected socket, in the form of URLs; "" for any other channel."""
    return _address(channel.sock) if channel.sock is not None else ""


def address_of(fd: int) -> str:
    """The remote address of a descriptor, which the caller keeps."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return ""
    try:
        return _address(sock)
    finally:
        sock.detach()


def _address(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    if sock.family == socket.AF_UNIX:
        return os.fsdecode(name).replace("\0", "@")
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return ":".join(map(str, name)) if isinstance(name, tuple) else ""


def peer_process(channel: Channel) -> int:
    """The process that connected a UNIX socket, or made a socketpair; 0 if the system does not report it."""
    return _credentials(channel.sock)[0] if channel.sock is not None else 0


def peer_user(sock: socket.socket) -> int:
    """The user of the process at the other side of a UNIX socket; -1 if the system does not report it."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int]:
    option = getattr(socket, "SO_PEERCRED", None)
    try:
        if option is not None:
            process, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
            return process, user
    except (OSError, struct.error):
        pass  # not a UNIX socket
    return 0, -1


def command_line(pid: int) -> str:
    """The command line of a process, shortened, without the path of its program and without the Python that runs it; ""
    if it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(_READ)).rstrip("\0").split("\0")
    except OSError:
        return ""
    if len(words) > 1 and os.path.basename(words[0]).startswith("python"):
        if words[1] == "-IS" and len(words) > 2:  # as the r2box file starts it
            words = words[2:]
        elif not words[1].startswith("-"):
            words = words[1:]
    words[0] = os.path.basename(words[0])
    text = " ".join(word if word.isprintable() else ascii(word)[1:-1] for word in words)
    return text if len(text) <= MAX_COMMAND else text[: MAX_COMMAND - 1] + "…"
