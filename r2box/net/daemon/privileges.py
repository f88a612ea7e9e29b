"""Change of user (--user): open the control socket as root, then drop all privileges."""

from __future__ import annotations

import fcntl  # noqa: F401  `socket_file` needs it; after the change of user, root's Python may not be readable
import grp
import os
import pwd
from collections import namedtuple

from ...errors import DaemonError, UsageError
from ..transport.socket_file import listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

User = namedtuple("User", "name uid gid home")


def find_user(text: str) -> User:
    """The user of `USER[:GROUP]`, each a name or a number.  UsageError if there is none, DaemonError if not root."""
    name, colon, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise UsageError(f"--user {text}: there is no user {name}") from None
    gid = entry.pw_gid
    if colon:
        try:
            gid = (grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)).gr_gid
        except (KeyError, OverflowError):
            raise UsageError(f"--user {text}: there is no group {group}") from None
    if os.geteuid() != 0:
        raise DaemonError(f"--user {text}: only root can become another user")
    return User(entry.pw_name, entry.pw_uid, gid, entry.pw_dir)


def listen_for(path: str, user: User, makes: bool = False) -> socket.socket:
    """As root, do `socket_file.listen` for a socket of `user`.  With `makes`, make a missing directory for the user.

    In a directory of the user this works with the user's rights: there, symbolic links could mislead root.
    """
    folder = near = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(near):
        near = os.path.dirname(near)
    if near != folder and not makes:
        return listen(path)  # fails with the reason
    if os.stat(near).st_uid != user.uid:
        if near == folder:
            sock = listen(path)
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
            return sock
        os.makedirs(folder, mode=0o700)
        os.chown(folder, user.uid, user.gid)
    old = os.getegid()
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        return listen(path)
    finally:
        os.seteuid(0)
        os.setegid(old)


def become(user: User) -> None:
    """Change to `user` and its groups irrevocably.  DaemonError if any of root's privileges remain."""
    try:
        os.initgroups(user.name, user.gid)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)  # last: it takes away the right to do the others
    except OSError as error:
        raise DaemonError(f"--user {user.name}: {error.strerror}") from None
    if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3 or _can_return(user):
        raise DaemonError(f"--user {user.name}: root's privileges could not be dropped")
    os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)


def _can_return(user: User) -> bool:
    if user.uid == 0:
        return False
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True
