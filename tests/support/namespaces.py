"""Networks of a test's own: namespaces with names, joined by pairs of interfaces, and programs in them.

A namespace is there as long as a program runs in it, and no longer: there is nothing to delete.  A program of its own
holds each, which Place ends by its id like all others.  All are in one user namespace whose root the test is, so no
privilege is needed where the system lets anybody have one.
"""

from __future__ import annotations

import os
import shlex
from subprocess import PIPE
from typing import Any

import pytest

from support.processes import Place, Program, Result, need

HOLD = "sh -c 'echo held >&2; exec cat'"  # until its stdin ends


class Namespaces:
    """Network namespaces for programs of `place`, by name; the test is skipped where there can be none.

    With `tun` also where there can be no interface by /dev/net/tun.  Files, and so the control sockets of daemons, are
    the same in all namespaces and outside.
    """

    def __init__(self, place: Place, *names: str, tun: bool = False) -> None:
        need("unshare", "nsenter", "ip")
        check = place.run("unshare -rn ip link add va type veth peer name vb", status=None)
        if check.status:
            pytest.skip(f"no pair of interfaces in a network namespace here: {check.err.strip()}")
        if tun:
            try:
                os.close(os.open("/dev/net/tun", os.O_RDWR))
            except OSError as error:
                pytest.skip(f"no /dev/net/tun here: {error.strerror}")
        self._place = place
        user = self._hold(f"unshare -r {HOLD}")
        self._held = {name: self._hold(f"{_enter(user, '-U')} unshare -n {HOLD}") for name in names}
        for name in names:
            self.run(name, "ip link set lo up")

    def _hold(self, line: str) -> int:
        return self._place.start(line, stdin=PIPE).says("held").pid

    def join(self, one: str, other: str, ones: str = "", others: str = "") -> None:
        """A pair of interfaces, to-OTHER in `one` and to-ONE in `other`, up, with these addresses (10.0.0.1/24)."""
        self.run(one, f"ip link add to-{other} type veth peer name to-{one} netns {self._held[other]}")
        for name, interface, address in ((one, f"to-{other}", ones), (other, f"to-{one}", others)):
            if address:
                self.run(name, f"ip address add {address} dev {interface}")
            self.run(name, f"ip link set {interface} up")

    def run(self, name: str, line: str, input: bytes | None = None, **options: Any) -> Result:
        """Place.run, in the namespace of this name."""
        return self._place.run(f"{self._enter(name)} sh -c {shlex.quote(line)}", input, **options)

    def start(self, name: str, line: str, **options: Any) -> Program:
        """Place.start of one program, in the namespace of this name."""
        return self._place.start(f"{self._enter(name)} {line}", **options)

    def _enter(self, name: str) -> str:
        return _enter(self._held[name], "-U -n")


def _enter(pid: int, kinds: str) -> str:
    return f"nsenter -t {pid} {kinds} --preserve-credentials --"
