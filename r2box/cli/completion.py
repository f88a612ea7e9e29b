"""Shell completion: scripts for bash, zsh and fish, and `r2box --complete`, which they call.

At each Tab a script passes the words of the line up to the cursor, the last one incomplete.  The output is one
candidate per line, with a tab and its description; a candidate that ends in / : or = is incomplete.  A line that starts
with the tab stands for file names.  Nodes and services are requested from the running daemon; without a timely answer
there are none, and nothing is printed on stderr.
"""

from __future__ import annotations

import os

from ..errors import OK, R2Error
from ..proto.wire.address import ANY, MAX_ADDRESS, SERVICE, check_address, join_targets
from .registry import TOOLS, WORDS, load, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .command import Argument, Command, Option

    Found = Iterable[tuple[str, str]]  # (word, description)

TIMEOUT = 1.0  # seconds for the answer of the daemon
FILES = ("", "")

# The scripts print and compare names from the network; they never evaluate them.
_BASH = """\
_r2box() {
    local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^:=]} words=() i word cur last files=
    for ((i = 0; i <= COMP_CWORD; i++)); do  # bash has cut tcp://a into three
        if ((i == 0)) || [[ -z $line || $line == [[:space:]]* ]]; then words+=(''); fi
        line=${line#"${line%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$line
        line=${line#"$word"}
        words[${#words[@]}-1]+=$word
    done
    cur=${words[${#words[@]}-1]} last=$cur
    [[ -z $breaks ]] || last=${cur##*[$breaks]}
    [[ $last != *@* || $COMP_WORDBREAKS != *@* ]] || last=@${last##*@}  # which bash keeps in front of a host
    COMPREPLY=()
    while IFS= read -r word; do
        word=${word%%$'\\t'*}
        if [[ $word ]]; then COMPREPLY+=("${word#"${cur%"$last"}"}"); else files=1; fi
    done < <(r2box --complete "${words[@]}" 2>/dev/null)
    [[ $files ]] || compopt +o default 2>/dev/null
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[/:=] ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _r2box @PROGRAMS@
"""
_ZSH = """\
#compdef @PROGRAMS@
_r2box() {
    local -a found more
    local line word files
    for line in "${(@f)$(r2box --complete "${(@)words[1,CURRENT-1]}" "$IPREFIX$PREFIX" 2>/dev/null)}"; do
        word=${line%%$'\\t'*}
        word=${${word#$IPREFIX}//:/\\\\:}:${line#*$'\\t'}
        case $line in
            '') ;;
            $'\\t'*) files=1 ;;
            *[/:=]$'\\t'*) more+=("$word") ;;
            *) found+=("$word") ;;
        esac
    done
    (($#found + $#more)) && _describe r2 found -- more -S '' && return
    [[ -n $files ]] && { compset -P '--[a-z]##='; _files }
}
if [[ ${funcstack[1]} == _r2box ]]; then _r2box "$@"; else compdef _r2box @PROGRAMS@; fi
"""
_FISH = """\
function __r2box
    set -l cur (commandline -ct)
    for line in (r2box --complete (commandline -opc) "$cur" 2>/dev/null)
        if test "$line" = \\t
            set -l option (string match -r '^--[a-z]+=' -- $cur)
            string replace -r -- '^' "$option" (__fish_complete_path (string replace -- "$option" '' $cur))
        else
            echo $line
        end
    end
end
for program in @PROGRAMS@; complete -c $program -f -a '(__r2box)'; end
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """The completion script for `shell`, one of SCRIPTS."""
    return SCRIPTS[shell].replace("@PROGRAMS@", " ".join(["r2box", *TOOLS]))


def main(box: Command, words: list[str]) -> int:
    """Print the candidates for the last of `words`, the line up to the cursor.  `box` is the command of r2box."""
    typed = [_unquote(word) for word in words[:-1]]
    current = (words or [""])[-1].lstrip("\"'")
    try:
        shown = {word: text for word, text in _candidates(box, typed, current) if word.startswith(current) or not word}
    except (R2Error, OSError):
        return OK  # no daemon, or an invalid word: no candidates, and no message in the user's line
    for word, text in shown.items():
        print(f"{word}\t{' '.join(text.split())}")
    return OK


def _unquote(word: str) -> str:
    """Expand quotes and ~ of `word` as the shell does."""
    from shlex import split

    try:
        return os.path.expanduser("".join(split(word)))
    except ValueError:  # an open quote
        return word


# ---- parse the line


class _Line:
    """The words typed after a command: values of options by dest, arguments, and the option that lacks its value."""

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        self.plain: list[str] = []
        self.lacks_value: Option | None = None
        self.is_over = False  # no more options

    def read(self, options: Sequence[Option], words: Sequence[str], most: int) -> list[str]:
        """Read options and up to `most` arguments; return the remaining words."""
        index = {flag: option for option in options for flag in option.flags}
        left = list(reversed(words))
        while left and self.lacks_value is None:
            word = left.pop()
            if self.is_over or not word.startswith("-") or word == "-":
                if len(self.plain) == most:
                    return [word, *reversed(left)]
                self.plain.append(word)
                continue
            long = word.startswith("--")
            flag, equals, value = word.partition("=") if long else (word[:2], word[2:], word[2:])
            option = index.get(flag)
            if word == "--":
                self.is_over = True
            elif option is not None and option.metavar and not equals and not left:
                self.lacks_value = option
            elif option is not None and option.metavar:
                self.given.setdefault(option.dest, []).append(value if equals else left.pop())
            elif value and not long:
                left.append("-" + value)
        return []


def _candidates(box: Command, words: list[str], current: str) -> Found:
    name, words = os.path.basename(words[0]) if words else "", words[1:]
    line = _Line()
    if name not in TOOLS:
        name, words = resolve(words)
        if not name:
            line.read(box.options, words, 9)
            return _next(box, line, current)
    command = load(TOOLS[name])[0]
    if name == "r2":
        word, *words = line.read(command.options, words, 0) or [""]
        if not word:
            return _next(command, line, current)
        if word not in WORDS:
            return ()
        command = load(WORDS[word])[0]
    ends = (place for place, argument in enumerate(command.arguments) if argument.rest and not argument.mixed)
    rest = next(ends, 99)
    line.is_over = rest == 0
    words = line.read(command.options, words, rest)
    line.is_over = line.is_over or bool(words)
    line.plain += words
    return _next(command, line, current)


def _next(command: Command, line: _Line, current: str) -> Found:
    """The candidates for `current` at the end of `line`."""
    if line.lacks_value is not None:
        return _values(line.lacks_value, command, line, current)
    if current.startswith("-") and not line.is_over:
        index = {flag: option for option in command.shown for flag in option.flags}
        flag, equals, value = current.partition("=")
        if not current.startswith("--"):
            flag, equals, value = current[:2], "", current[2:]
        option = index.get(flag)
        if option is None or not (equals or value):
            return [(flag, option.help) for flag, option in index.items()]
        return _prefixed(flag + equals, _values(option, command, line, value) if option.metavar else ())
    arguments = [*command.arguments[: len(line.plain) + 1]]
    if not arguments or (len(line.plain) >= len(arguments) and not arguments[-1].rest):
        return ()
    return _values(arguments[-1], command, line, current)


def _prefixed(prefix: str, found: Found) -> Found:
    return [(prefix + word if word else word, text) for word, text in found]


def _values(what: Option | Argument, command: Command, line: _Line, current: str) -> Found:
    """The candidates for the value of an option, or for an argument."""
    choices = getattr(what, "choices", ())
    if choices:
        return [(word, "") for word in choices]
    make = _BY_NAME.get(getattr(what, "metavar", "") or getattr(what, "name", ""))
    return make(command, line, current) if make else ()


# ---- candidates


def _words(command: Command, line: _Line, current: str) -> Found:
    """The commands of r2; for any other tool, file names."""
    return _words_of_r2(current) if command.name == "r2" else [FILES]


def _words_of_r2(current: str) -> Found:
    return [(word, load(place)[0].summary) for word, place in WORDS.items() if word.startswith(current)]


def _tools(command: Command, line: _Line, current: str) -> Found:
    places = {**TOOLS, **WORDS}  # r2box connect is r2-connect too
    return [(name, load(place)[0].summary) for name, place in places.items() if name.startswith(current)]


def _pages(command: Command, line: _Line, current: str) -> Found:
    from .pages import names

    return [(name, "") for name in names()]


def _files(command: Command, line: _Line, current: str) -> Found:
    return [FILES]


def _transports(command: Command, line: _Line, current: str) -> Found:
    """Schemes; after :// paths, after ? options; else the file names of commands."""
    from ..net.transport.urls import SCHEMES, WORDS

    use = command.name.rpartition("-")[2].rpartition(" ")[2]
    rows = [row for row in SCHEMES.values() if use in row.uses or use not in WORDS]
    scheme, found, rest = current.partition("://")
    row = SCHEMES.get(scheme)
    if not found or row is None:
        return [*((f"{row.name}://", f"{row.form}: {row.help}") for row in rows), FILES]
    path, question, _ = rest.partition("?")
    if not question:
        import glob

        has_path = path and row.form in ("PATH", "DEVICE")
        paths = glob.glob(glob.escape(path) + "*") if has_path else ()
        return [(f"{scheme}://{path}{'/' * os.path.isdir(path)}", "") for path in sorted(paths)]
    head, name, equals, _ = _last_option(current)
    if not equals:
        return [(f"{head}{option.name}=", f"{option.form}: {option.help}") for option in row.options.values()]
    forms = row.options[name].form.split("|") if name in row.options else []
    return [(f"{head}{name}={form}", "") for form in forms if len(forms) > 1]


def _last_option(url: str) -> tuple[str, str, str, str]:
    """(the URL before it, name, =, value) of the last option of `url`."""
    at = max(url.rfind("?"), url.rfind("&")) + 1
    return (url[:at], *url[at:].partition("="))


def _destination(command: Command, line: _Line, current: str) -> Found:
    """[USER@]NODE of ssh, unless an option lacks its value or the node is complete."""
    if any(not word.startswith("-") for word in line.plain[-1:]) or current.startswith("-"):
        return [FILES]
    user, at, node = current.rpartition("@")
    return _prefixed(user + at, [row for row in _targets(command, line, node) if not row[0].startswith(ANY)])


def _shells(command: Command, line: _Line, current: str) -> Found:
    """DESTINATION of iosh: a node, or a command."""
    try:
        nodes = [row for row in _targets(command, line, current) if not row[1].startswith("service")]
    except (R2Error, OSError):
        return [FILES]
    return nodes if any(word.startswith(current) for word, _ in nodes) else [FILES]


def _targets(command: Command, line: _Line, current: str) -> Found:
    """Names of nodes and services after the hops that are typed, or all that are known."""
    head, slash, _ = current.rpartition("/")
    head = "" if head + slash == ANY else head  # any/ is part of the names
    is_service = head == SERVICE[:-1]
    path = join_targets([*line.given.get("target", ()), *([head] if head and not is_service else [])])
    socket = os.path.expanduser(line.given.get("socket", [""])[-1])
    known = [row for row in _query(socket, path) if _is_name(row[0])]
    found = [row for row in known if not is_service or row[1].startswith("service")]
    return _prefixed(head + slash if head else "", found)


def _is_name(word: str) -> bool:
    try:
        return len(word) <= MAX_ADDRESS + len(ANY) and bool(check_address(word.rpartition("/")[2]))
    except R2Error:
        return False


def _query(socket: str, path: tuple[str, ...]) -> Found:
    """Request names from the daemon.  After TIMEOUT the process exits and prints nothing."""
    import signal

    from ..net.client.client import Client, ask
    from ..net.client.query import ask_all, give_up, names_of, seconds_of
    from ..proto.wire import messages

    found: dict[str, str] = {}

    def steps(client: Client, done: Callable[[], None]) -> None:
        def listed(_: str, entries: list[dict[str, Any]]) -> None:
            for entry in entries:
                name, kind = entry["name"], entry["kind"]
                found[name.removeprefix(SERVICE) if name.startswith(SERVICE) else name] = (
                    f"{kind} {entry['detail']}" if kind == "service" else kind
                )
            if path:
                done()
            else:
                ask_all(client, messages.NETWORK, (), known, give_up)

        def known(_: str, entries: list[dict[str, Any]]) -> None:
            for entry in entries:
                found[entry["path"][-1]] = f"node, {seconds_of(entry)[0] * 1000:.1f} ms"
                for name in names_of(entry):
                    found.setdefault(ANY + name, "service, the nearest of that name")
            done()

        ask_all(client, messages.LIST, path, listed, give_up)

    signal.signal(signal.SIGALRM, lambda *_: os._exit(OK))
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    ask(socket or None, steps, wait=0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return found.items()


_BY_NAME: dict[str, Callable[[Command, _Line, str], Found]] = {
    "ARGUMENTS": _destination,
    "COMMAND": _words,
    "DESTINATION": _shells,
    "NODE": _targets,
    "PATH": _targets,
    "PATTERN": _targets,
    "TARGET": _targets,
    "TOOL": _tools,
    "PAGE": _pages,
    "TRANSPORT": _transports,
    "MORE": _transports,
    **dict.fromkeys(("CONFIG", "DIR", "FILE", "SOCKET", "WHAT"), _files),
}
