"""r2-ssh, alone and under the programs that use ssh, against a real sshd."""

from __future__ import annotations

import getpass
import os
from typing import Any

import pytest

from support.processes import Place, need

MIB = 1 << 20


@pytest.fixture
def user(place: Place, ssh: str) -> dict[str, Any]:
    """The environment of a user whose daemon is alice."""
    (place.path / "file").write_bytes(os.urandom(MIB))
    return {"R2_SOCKET": f"{place.path}/alice.sock"}


@pytest.fixture
def plain(place: Place, user: dict[str, Any]) -> dict[str, str]:
    """The same for one who has what --config prints among the options of ssh."""
    stanza = place.run("r2-ssh --config").out
    assert stanza.startswith("Host r2/* *.r2\n")
    with open(place.path / "ssh.conf", "a") as file:
        file.write(stanza)
    known = (place.path / "known").read_text()
    (place.path / "known").write_text(known.replace("r2/bob,", "r2/bob,bob.r2,r2/alice/bob,alice~bob.r2,"))
    return user


def test_options_of_ssh(place: Place, user: dict[str, Any]) -> None:
    conf = "-F ssh.conf"
    me = getpass.getuser()
    assert place.run(f"r2-ssh {conf} bob -l {me} echo hello", **user).out == "hello\n"
    assert place.run(f"r2-ssh {conf} ssh://{me}@bob echo hello", **user).out == "hello\n"
    assert place.run(f"r2-ssh {conf} {me}@alice/bob true", status=255, **user).err.count("Host key verification failed")
    assert place.run(f"r2-ssh {conf} -o HostKeyAlias=bob alice~bob echo hello", **user).out == "hello\n"
    assert "hostname r2/bob\n" in place.run(f"r2-ssh {conf} -G bob", **user).out
    assert "OpenSSH" in place.run("r2-ssh -V").err
    assert "--config" in place.run("r2-ssh --help").out
    assert "does not know nobody" in place.run(f"r2-ssh {conf} nobody true", status=255, **user).err


def test_scp_and_sftp(place: Place, user: dict[str, Any]) -> None:
    need("sftp")
    far = f"bob:{place.path}"
    place.run(f"scp -F ssh.conf -S r2-ssh file {far}/scp && cmp file scp", **user)
    place.run(f"scp -O -F ssh.conf -S r2-ssh {far}/file old && cmp file old", **user)
    place.run("sftp -F ssh.conf -S r2-ssh -b - bob", f"put file {place.path}/sftp\n".encode(), **user)
    place.run("cmp file sftp")


def test_rsync(place: Place, user: dict[str, Any]) -> None:
    need("rsync")
    place.run("mkdir dir && cp file dir/one && echo x >dir/two")
    place.run(f"rsync -a -e 'r2-ssh -F ssh.conf' dir/ bob:{place.path}/there/ && diff -r dir there", **user)


def test_git(place: Place, user: dict[str, Any]) -> None:
    need("git")
    git = "git -c user.name=a -c user.email=a@b"
    place.run(f"git init -q -b main work && cp file work && cd work && git add . && {git} commit -qm x")
    for variant in ("auto", "ssh"):
        more = {**user, "GIT_SSH_COMMAND": f"r2-ssh -F {place.path}/ssh.conf", "GIT_SSH_VARIANT": variant}
        place.run(f"git clone -q bob:{place.path}/work {variant} && cmp file {variant}/file", **more)
    place.run(f"git clone -q ssh://bob{place.path}/work url && cmp file url/file", **more)


def test_plain_ssh_with_the_stanza(place: Place, plain: dict[str, Any]) -> None:
    need("sftp", "rsync", "git")
    conf = "-F ssh.conf"
    for host in ("r2/bob", "bob.r2", "r2/alice/bob", "alice~bob.r2"):
        assert place.run(f"ssh {conf} {host} 'echo hello; exit 5'", status=5, **plain).out == "hello\n"
    place.run(f"scp {conf} file bob.r2:{place.path}/scp && cmp file scp", **plain)
    place.run(f"sftp {conf} -b - r2/bob", f"put file {place.path}/sftp\n".encode(), **plain)
    place.run(f"rsync -e 'ssh {conf}' bob.r2:{place.path}/file rsync && cmp file rsync && cmp file sftp", **plain)
    assert "does not know nobody" in place.run(f"ssh {conf} r2/nobody true", status=255, **plain).err
    own = "-o ProxyCommand='r2 -t bob -t service/sshd tunnel -'"  # which the stanza must leave alone
    assert place.run(f"ssh {conf} {own} r2/bob echo hello", **plain).out == "hello\n"
