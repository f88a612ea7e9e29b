"""Reserve of descriptors: at the limit of open files only the present request fails.

The kernel assigns the lowest free number.  So a descriptor among the last numbers below RLIMIT_NOFILE shows that no
others are free: its creator closes it and fails with `shortage()`.  These numbers stay free for descriptors that are
held briefly: those attached to a message, and those of a client that is refused with a reason.

Tunnels of neighbours to local services leave another 1/`SHARE` of all numbers free, for links and for local programs.
"""

from __future__ import annotations

import errno
import os

MOST = 32  # descriptors in reserve
SHARE = 8  # and at most this part of all
BASE = 16  # that a tool has for itself


def limit() -> int:
    """How many descriptors this process may have; 0 if that is not bounded."""
    return max(os.sysconf("SC_OPEN_MAX"), 0)


def is_last(fd: int) -> bool:
    """Whether `fd`, which was just made, is one of the reserve."""
    most = limit()
    return bool(most) and fd >= most - _kept(most)


def room(cost: int, most: int) -> int:
    """How many things that cost `cost` descriptors each this process may have at a time: `most`, or fewer."""
    all_ = limit()
    return min(most, max(1, (all_ - _kept(all_) - BASE) // cost)) if all_ else most


def _kept(all_: int) -> int:
    return min(MOST, all_ // SHARE)


def is_short(error: OSError) -> bool:
    """Whether `error` says that no descriptor is left, here (EMFILE) or on the whole system."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def explain() -> str:
    """What is wrong and what to do."""
    return f"too many open files (the limit here is {limit()}; raise it with ulimit -n before this is started)"


def shortage() -> OSError:
    """EMFILE, with that as its text."""
    return OSError(errno.EMFILE, explain())


def check(*fds: int) -> None:
    """Close `fds`, which are new, and raise `shortage()`, if one is of the reserve or was lost on the way (LOST)."""
    if any(fd < 0 or is_last(fd) for fd in fds):
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        raise shortage()


def is_scarce(fd: int) -> bool:
    """Whether no more than `SHARE` of all descriptors and the reserve are free, as `fd`, which was just made, shows."""
    all_ = limit()
    return bool(all_) and fd >= all_ - _kept(all_) - all_ // SHARE


def check_for_neighbour(*fds: int) -> None:
    """The same as `check` for a tunnel that a neighbour has opened, where more must stay free."""
    if any(map(is_scarce, fds)):
        for fd in fds:
            os.close(fd)
        raise shortage()
