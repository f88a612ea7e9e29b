"""A real sshd as a service of bob, and the options with which a real ssh finds it."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path

from .processes import Place, need


def prepare_sshd(place: Place) -> tuple[str, str]:
    """The command to serve as sshd; the options for ssh."""
    need("ssh", "sshd", "ssh-keygen", "scp")
    path = place.path
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for key in ("host", "user"):
        place.run(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
    shutil.copy(path / "user.pub", path / "authorized")
    (path / "sshd.conf").write_text(
        f"HostKey {path}/host\nAuthorizedKeysFile {path}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    kind, public, *_ = (path / "host.pub").read_text().split()
    (path / "known").write_text(f"r2/bob,bob {kind} {public}\n")
    (path / "ssh.conf").write_text(
        f"User {getpass.getuser()}\nIdentityFile {path}/user\nIdentitiesOnly yes\nUserKnownHostsFile {path}/known\n"
        "GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nBatchMode yes\nLogLevel ERROR\n"
    )
    return f"{sshd} -i -f {path}/sshd.conf -E {path}/sshd.log", f"-F {path}/ssh.conf"


def serve_sshd(place: Place) -> str:
    """Serve it at bob; the options for ssh."""
    command, options = prepare_sshd(place)
    place.serve("bob", command, "sshd")
    return options
