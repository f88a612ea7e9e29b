"""A link over somebody else's overlay, in networks of the test's own.

    a --- m --- b      three hosts in a row, no IP route from a to b, and yggdrasil on each, which joins all of them
    alice ===== bob    what r2 sees: one link
"""

from __future__ import annotations

import json
import os
from subprocess import PIPE

from support.namespaces import Namespaces
from support.processes import Place, Program, eventually, need

MIB = 1 << 20
PORT = 47210  # in a network of its own: nobody else has it


class Overlay:
    """A yggdrasil for each of the namespaces a, m and b."""

    def __init__(self, place: Place, hosts: Namespaces) -> None:
        self._place, self._hosts = place, hosts
        # The one in the middle calls the others, for it calls at once when it starts; others would wait a minute.
        self._configure("a", Listen=["tcp://10.77.1.1:9001"])
        self._configure("m", Peers=["tcp://10.77.1.1:9001", "tcp://10.77.2.1:9001"])
        self._configure("b", Listen=["tcp://10.77.2.1:9001"])

    def _configure(self, host: str, **settings: object) -> None:
        config = json.loads(self._place.run("yggdrasil -genconf -json").out)
        config.update(settings, AdminListen="none", MulticastInterfaces=[], IfName="ygg0")
        (self._place.path / f"{host}.conf").write_text(json.dumps(config))

    def start(self, host: str) -> Program:
        return self._hosts.start(host, f"yggdrasil -useconffile {host}.conf").prints("Interface MTU")

    def address(self, host: str) -> str:
        return self._place.run(f"yggdrasil -useconffile {host}.conf -address").out.strip()


def test_a_link_over_yggdrasil(place: Place) -> None:
    """What goes over it survives that the overlay's middle is away for longer than a transport may be silent."""
    need("yggdrasil")
    hosts = Namespaces(place, "a", "m", "b", tun=True)
    hosts.join("a", "m", "10.77.1.1/24", "10.77.1.2/24")
    hosts.join("m", "b", "10.77.2.2/24", "10.77.2.1/24")
    assert "unreachable" in hosts.run("a", "ip route get 10.77.2.1", status=2).err
    overlay = Overlay(place, hosts)
    *_, middle = [overlay.start(host) for host in "abm"]

    hosts.start("a", "r2d -s alice.sock alice").says("listening at")
    hosts.start("b", "r2d -s bob.sock bob").says("listening at")
    bob = f"[{overlay.address('b')}]:{PORT}?keepalive=1"
    waiting = hosts.start("b", f"r2 -v -s bob.sock connect -n alice 'tcp-listen://{bob}'")
    # The first packets are lost until the overlay knows the way.
    linked = hosts.start("a", f"r2 -v -s alice.sock connect --retry -n bob 'tcp://{bob}&timeout=2'")
    linked.says("linked to", patience=60)
    assert place.run("r2 -s alice.sock ls").out == "bob\n"
    place.serve("bob", "cat", "echo")

    data, last = os.urandom(4 * MIB), os.urandom(60_000)  # which a pipe takes even while nobody reads
    (place.path / "data").write_bytes(data)
    tunnel = hosts.start("a", "sh -c 'cat data - | r2 -s alice.sock -t bob/echo tunnel -'", stdin=PIPE)
    eventually(lambda: len(tunnel.raw) > MIB, "the first MiB")
    middle.kill()
    tunnel.stdin.write(last)
    tunnel.stdin.close()
    linked.says("nothing received for")
    assert tunnel.runs
    overlay.start("m")
    tunnel.ends(0, 60)
    assert tunnel.raw == data + last
    linked.says("linked to bob", 2)
    waiting.says("linked to alice", 2)
