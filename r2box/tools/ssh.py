"""r2-ssh: ssh to a node's sshd service."""

from __future__ import annotations

import os

from ..command import Argument, Command
from ..errors import NOT_FOUND, OWN_FAILURE, UsageError
from ..net import socketfile
from ..net.connector import own_command
from ..net.shell import quote
from ..proto.address import SERVICE, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..command import Args

COMMAND = Command(
    "r2-ssh",
    "ssh to a node through the network of nodes",
    arguments=[Argument("ARGUMENTS", "ssh options, [USER@]NODE, a command: as with ssh", required=False, rest=True)],
    description=(
        "Runs ssh with a ProxyCommand that opens a tunnel to the service sshd of NODE and leaves it to ssh, under the "
        "host alias r2/NODE, so that its keys are remembered by that name.  NODE may be a path such as carl/bob.  All "
        "ssh options are passed on; scp and sftp use it with -S r2-ssh.\n\n"
        "The daemon is the one of R2_SOCKET, or the default one."
    ),
    examples=[
        ("r2-ssh bob uptime", "run a command on the node bob"),
        ("scp -S r2-ssh file bob:", "copy a file there"),
    ],
    statuses=[("ssh's", "which passes on the command's"), ("255", "the connection failed")],
    common=False,
    seealso=["ssh(1)", "r2(1)", "r2-serve(1)"],
)

_WITH_VALUE = frozenset("BbcDEeFIiJLlmOoPpQRSWw")  # ssh's options that take a value, as of OpenSSH 9


def find_destination(words: list[str]) -> int:
    """The place of the destination among ssh's arguments.  UsageError if there is none."""
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if len(word) < 2 or word[0] != "-":
            break
        for place, letter in enumerate(word[1:], 2):
            if letter in _WITH_VALUE:
                at += place == len(word)  # the value is the next word
                break
        at += 1
    if at >= len(words):
        raise UsageError("missing NODE")
    return at


def main(args: Args) -> int:
    words = list(args.arguments or ())
    at = find_destination(words)
    user, separator, node = words[at].rpartition("@")
    path = parse_path(node)
    if path[-1].startswith(SERVICE):
        raise UsageError(f"{node}: name the node; its service sshd is meant")
    proxy = [*own_command(), "r2-tunnel", "-s", socketfile.default_path()]
    for step in (*path, SERVICE + "sshd"):
        proxy += ["-t", step]
    line = " ".join(quote(word).replace("%", "%%") for word in [*proxy, "--fdpass", "-"])
    words[at] = f"{user}{separator}r2/{node}"
    try:
        os.execvp("ssh", ["ssh", "-o", f"ProxyCommand={line}", "-o", "ProxyUseFdpass=yes", *words])
    except FileNotFoundError:
        import sys

        print("r2-ssh: ssh: there is no such program on PATH (Debian: openssh-client)", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        import sys

        print(f"r2-ssh: ssh: {error.strerror}", file=sys.stderr)
    return OWN_FAILURE
