"""r2-ssh: ssh to the service sshd of a node."""

from __future__ import annotations

import os

from ..cli.command import Argument, Command, Option
from ..errors import NOT_FOUND, OK, TOOL_FAILED, UsageError
from ..net.client.reach import tunnel_words
from ..net.io.process import become
from ..net.io.words import quote, this_command
from ..proto.wire.address import SERVICE, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2-ssh",
    "ssh to a node through tunnels",
    arguments=[Argument("ARGUMENTS", "options of ssh, [USER@]NODE, and a command", required=False, rest=True)],
    options=[
        Option(("--config",), "print configuration for ~/.ssh/config: ssh r2/NODE", kind="flag"),
        Option(("--proxy",), "the ProxyCommand of --config, for HOST", "HOST", hidden=True),
    ],
    description=(
        "Runs ssh with a ProxyCommand that opens a tunnel to the service sshd of NODE and passes it to ssh.  "
        "The host key is stored under the alias r2/NODE.  NODE may be a path such as carl/bob; since scp and "
        "rsync do not accept / in a host, carl~bob is the same.  All ssh options are passed on.  The daemon is "
        "that of R2_SOCKET, or the default one.\n\n"
        "With the output of --config in its configuration, every program that uses ssh reaches r2/NODE, or "
        "NODE.r2 where a slash is not allowed: ssh r2/bob, scp file bob.r2:."
    ),
    examples=[
        ("r2-ssh bob uptime", "run a command on the node bob"),
        ("scp -S r2-ssh file bob:", "copy a file there; sftp takes -S too"),
        ("rsync -a -e r2-ssh dir/ bob:dir/", "copy a directory"),
        ("GIT_SSH_COMMAND=r2-ssh git clone bob:src", "clone a repository"),
        ("r2-ssh --config >>~/.ssh/config", "make plain ssh reach r2/bob"),
    ],
    statuses=[("ssh's", "or that of the remote command"), ("255", "the connection failed"), ("2", "wrong usage")],
    environment=[("R2_SOCKET", "the control socket of the daemon")],
    common=False,
    seealso=["ssh(1)", "ssh_config(5)", "r2(1)", "r2-serve(1)", "r2-forward(1)"],
)

_WITH_VALUE = frozenset("BbcDEeFIiJLlmOoPpQRSWw")  # options of ssh that take a value, as of OpenSSH 9
_ALONE = frozenset("QV")  # options that need no destination
PREFIX, SUFFIX = "r2/", ".r2"  # of host names in the output of --config


def find_destination(words: list[str]) -> int:
    """The index of the destination among ssh's arguments; -1 if none is needed.  UsageError if it is missing."""
    at = 0
    alone = False
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if len(word) < 2 or word[0] != "-":
            break
        for place, letter in enumerate(word[1:], 2):
            alone = alone or letter in _ALONE
            if letter in _WITH_VALUE:
                at += place == len(word)  # the value is the next word
                break
        at += 1
    if at < len(words):
        return at
    if alone:
        return -1
    raise UsageError("missing NODE")


def proxy_words(node: str, *options: str) -> list[str]:
    """ProxyCommand: a tunnel to the service sshd of `node`, a path joined by / or ~.  `options` are for r2-tunnel."""
    path = parse_path(node.replace("~", "/"))
    if not path or path[-1].startswith(SERVICE):
        raise UsageError(f"{node}: is not a node; r2-ssh uses the service sshd of a node")
    return tunnel_words((*path, SERVICE + "sshd"), None, *options)


def spell(words: list[str]) -> str:
    """Quote `words` for the shell, and % for ssh."""
    return " ".join(quote(word).replace("%", "%%") for word in words)


def main(args: Args) -> int:
    if args.config:
        # Not ProxyUseFdpass: it would also apply to a ProxyCommand of the command line, which replaces this one.
        print(f"Host {PREFIX}* *{SUFFIX}\n    ProxyCommand {spell([*this_command(), 'r2-ssh', '--proxy'])} %n")
        return OK
    if args.proxy:
        host = args.proxy
        words = proxy_words(host[len(PREFIX) :] if host.startswith(PREFIX) else host[: -len(SUFFIX)])
        os.execv(words[0], words)
    words = list(args.arguments or ())
    at = find_destination(words)
    if at >= 0:
        user, separator, node = words[at].removeprefix("ssh://").rpartition("@")
        words[at] = f"{user}{separator}{PREFIX}{node.replace('~', '/')}"
        words = ["-o", f"ProxyCommand={spell(proxy_words(node, '--fdpass'))}", "-o", "ProxyUseFdpass=yes", *words]
    try:
        return become(["ssh", *words])
    except OSError as error:
        return _unable(error)


def _unable(error: OSError) -> int:
    import sys

    is_missing = isinstance(error, FileNotFoundError)
    why = "not found on PATH (Debian: openssh-client)" if is_missing else error.strerror
    print(f"r2-ssh: ssh: {why}", file=sys.stderr)
    return NOT_FOUND if is_missing else TOOL_FAILED
