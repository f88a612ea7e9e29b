"""What a user notices of the command line: how words are read, what errors say, help, man pages."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.cli.command import COMMON, Argument, Command, Option, parse, parse_leading
from r2box.cli.help import render_help
from r2box.cli.manual import render_man
from r2box.cli.registry import TOOLS, WORDS, load
from r2box.errors import UsageError, suggestion
from support.declarations import ALL, CONNECT, LS, R2, R2D, SSH


# ---- reading a command line
@pytest.mark.parametrize(
    "words",
    [
        ["-v", "-v", "-q", "-s", "S", "-t", "a", "-t", "b"],
        ["-vvq", "-sS", "-ta", "-tb"],
        ["-vvqsS", "-t", "a", "--target=b"],
        ["--verbose", "--verbose", "--quiet", "--socket=S", "--target", "a", "--target", "b"],
        ["-qvvs", "S", "--target", "a", "-tb", "--"],
    ],
)
def test_every_gnu_spelling_means_the_same(words: list[str]) -> None:
    args = parse(LS, words)
    assert (args.verbose, args.quiet, args.socket, args.target) == (2, True, "S", ["a", "b"])


def test_what_is_not_given_has_its_default() -> None:
    args = parse(LS, [])
    assert (args.verbose, args.quiet, args.socket, args.target, args.count) == (0, False, None, [], None)
    assert (args.interval, args.long, args.help, args.version) == (1.5, False, False, False)
    assert "interval" not in args
    assert "interval" in parse(LS, ["-i", "1.5"])


def test_an_undeclared_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError, match="sockte"):
        parse(LS, []).sockte  # noqa: B018
    assert copy.deepcopy(parse(LS, ["-l"])) == parse(LS, ["-l"])


def test_lists_are_not_shared_between_results() -> None:
    parse(LS, []).target.append("x")
    parse(CONNECT, ["-"]).allow.append("x")
    assert parse(LS, []).target == []
    assert parse(CONNECT, ["-"]).allow == ["*"]
    assert parse(CONNECT, ["-", "--allow", "bob"]).allow == ["bob"]


@pytest.mark.parametrize(
    ("words", "transport", "node"),
    [
        (["-"], "-", None),
        (["cmd", "-n", "bob"], "cmd", "bob"),
        (["-n", "bob", "cmd"], "cmd", "bob"),
        (["-n", "-x", "cmd"], "cmd", "-x"),
        (["-n", "bob", "--", "-n"], "-n", "bob"),
        (["--node=", ""], "", ""),
        (["--node=a=b", "cmd"], "cmd", "a=b"),
        (["-n", "--", "cmd"], "cmd", "--"),
    ],
)
def test_options_mix_with_arguments(words: list[str], transport: str, node: str) -> None:
    args = parse(CONNECT, words)
    assert (args.transport, args.node) == (transport, node)


@pytest.mark.parametrize(
    ("words", "node", "rest", "verbose"),
    [
        (["bob"], "bob", [], 0),
        (["-v", "bob", "-v", "-L", "1:h:2", "--", "--help"], "bob", ["-v", "-L", "1:h:2", "--", "--help"], 1),
        (["--", "bob", "-v"], "bob", ["-v"], 0),
        (["bob", "--", "-v"], "bob", ["--", "-v"], 0),
    ],
)
def test_rest_is_untouched(words: list[str], node: str, rest: list[str], verbose: int) -> None:
    args = parse(SSH, words)
    assert (args.node, args.argument, args.verbose) == (node, rest, verbose)


def test_rest_alone_begins_at_the_first_plain_word() -> None:
    args = parse(R2, ["-v", "ls", "-v", "--bogus"])
    assert (args.verbose, args.command) == (1, ["ls", "-v", "--bogus"])


@pytest.mark.parametrize(
    ("command", "words", "text"),
    [
        (LS, ["--sockte", "x"], "unknown option --sockte (did you mean --socket?)"),
        (LS, ["--sockte=x"], "unknown option --sockte (did you mean --socket?)"),
        (LS, ["--sock", "x"], "unknown option --sock (did you mean --socket?)"),  # prefixes are not options
        (LS, ["-json"], "unknown option -j (did you mean --json?)"),
        (LS, ["--zzzzzz"], "unknown option --zzzzzz"),
        (LS, ["--secret-doors"], "unknown option --secret-doors"),  # hidden ones are not suggested
        (LS, ["-vX"], "unknown option -X"),
        (LS, ["-v-q"], "unknown option -- in -v-q"),
        (LS, ["-\n"], "unknown option '-\\n'"),
        (LS, ["-s"], "option -s needs a SOCKET"),
        (LS, ["-vs"], "option -s needs a SOCKET"),
        (LS, ["--socket"], "option --socket needs a SOCKET"),
        (CONNECT, ["-n"], "option -n needs an ADDRESS"),
        (LS, ["--long=yes"], "option --long takes no value"),
        (LS, ["--long="], "option --long takes no value"),
        (CONNECT, [], "missing TRANSPORT"),
        (R2, ["-v"], "missing COMMAND"),
        (LS, ["-u"], "unknown option -u"),  # one letter is like nothing
        (LS, ["--bogus"], "unknown option --bogus"),  # two dashes neither
        (LS, ["x"], "unexpected argument 'x' (to name a node or service, use -t x)"),
        (R2D, ["x", "y"], "unexpected argument 'y'"),
        (LS, ["--order=stat"], "option --order: 'stat' is not one of name, state (did you mean state?)"),
        *((CONNECT, ["a", word], f"{what} (a command of several words is one argument: put it in quotes)")
          for word, what in (("b", "unexpected argument 'b'"), ("-i", "unknown option -i"))),
        (R2D, ["-t", "x", "a"], "unknown option -t"),
        *((LS, ["-c", text], f"option -c: {text!r} is not a whole number") for text in ("x", "", "1.5", "1_0", " 1")),
        *((LS, ["-c", text], f"option -c: {text!r} is not a whole number") for text in ("+-1", "0x1", "\u0661")),
        *((LS, ["-i", text], f"option -i: {text!r} is not a number") for text in ("x", "nan", "inf", "1e999")),
        *((LS, ["-i", text], f"option -i: {text!r} is not a number") for text in ("1_0", "1 ", "\u0661", "")),
    ],
)
def test_a_wrong_command_line_is_explained(command: Command, words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(command, words)
    assert str(caught.value) == text
    assert caught.value.status == 2


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-5", -5), ("+7", 7), ("123456789", 123456789)])
def test_whole_numbers(text: str, number: int) -> None:
    assert parse(LS, ["-c", text]).count == parse(LS, [f"-c{text}"]).count == number


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), (".25", 0.25), ("1e3", 1000.0), ("-2", -2.0)])
def test_numbers(text: str, number: float) -> None:
    assert parse(LS, ["-i", text]).interval == number


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-vh"], ["a", "b", "--help"], ["--help", "--bogus"]])
def test_help_complains_of_nothing_else(words: list[str]) -> None:
    assert parse(CONNECT, words).help is True


def test_version_complains_of_nothing_else() -> None:
    args = parse(CONNECT, ["--version"])
    assert (args.version, args.help, args.transport) == (True, False, None)


def test_a_bundle_may_be_long() -> None:
    assert parse(LS, ["-" + "v" * 5000]).verbose == 5000


# ---- options in front of the subcommand
@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["-s", "X", "-t", "bob", "ls", "-l"], ["ls", "-l"]),
        (["-sX", "--target=bob", "--", "-l"], ["-l"]),
        (["-s", "X", "-tbob", "-", "-v"], ["-", "-v"]),
        (["-s", "X", "-t", "bob"], []),
    ],
)
def test_leading_options_stop_at_the_command(words: list[str], rest: list[str]) -> None:
    lead, left = parse_leading(COMMON, words)
    assert (lead.socket, lead.target, left) == ("X", ["bob"], rest)


def test_leading_options_carry_over() -> None:
    lead, rest = parse_leading(COMMON, ["-v", "-s", "X", "-t", "a", "ls", "-vv", "-s", "Y", "-t", "b"])
    args = parse(LS, rest[1:], lead)
    assert (args.verbose, args.socket, args.target, args.interval) == (3, "Y", ["a", "b"], 1.5)
    assert parse(LS, [], lead).socket == "X"
    assert lead.target == ["a"]  # reading the rest has not changed the lead


def test_leading_help_reaches_the_command() -> None:
    lead, rest = parse_leading(COMMON, ["--help", "connect"])
    assert lead.help
    assert rest == ["connect"]
    assert parse(CONNECT, rest[1:], lead).help


def test_a_leading_option_is_never_dropped_in_silence() -> None:
    lead, _ = parse_leading(COMMON, ["-t", "bob"])
    with pytest.raises(UsageError, match="r2d has no option --target"):
        parse(R2D, ["alice"], lead)


def test_leading_mistakes_are_explained() -> None:
    with pytest.raises(UsageError, match=r"unknown option --targte \(did you mean --target\?\)"):
        parse_leading(COMMON, ["--targte", "x"])


# ---- any order and spelling
@st.composite
def spellings(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Two command lines for `r2 ls`-like words that mean the same, spelled and shuffled differently."""
    words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    chosen: list[tuple[str, str, str | None]] = [("-v", "--verbose", None)] * draw(st.integers(0, 3))
    chosen += draw(st.sampled_from([[], [("-q", "--quiet", None)]]))
    for short, long in (("-s", "--socket"), ("-n", "--node")):
        chosen += [(short, long, draw(words))] * draw(st.integers(0, 1))
    targets = draw(st.lists(words, max_size=3))
    plain = draw(words.filter(lambda word: not word.startswith("-") or word == "-"))

    def spell() -> list[str]:
        units = draw(st.permutations(chosen + [("-t", "--target", "")] * len(targets)))
        place = draw(st.integers(0, len(units)))
        left, bundle = iter(targets), "-"
        line: list[str] = []
        for at in range(len(units) + 1):
            if at == place:
                line, bundle = [*line, *([bundle] if bundle != "-" else []), plain], "-"
            if at == len(units):
                break
            short, long, value = units[at]
            if short == "-t":
                value = next(left)
            ways = ["short", "long", "bundle"] if value is None else ["equals", "long", "short", "bundle"]
            way = draw(st.sampled_from(ways + ["joined"] * bool(value)))
            if way == "bundle":
                bundle += short[1]
                if value is not None:
                    line, bundle = [*line, bundle, value], "-"
                continue
            line, bundle = [*line, *([bundle] if bundle != "-" else [])], "-"
            if way == "joined":
                line += [short + str(value)]
            elif way == "equals":
                line += [f"{long}={value}"]
            else:
                line += [long if way == "long" else short, *([] if value is None else [value])]
        return [*line, *([bundle] if bundle != "-" else [])]

    return spell(), spell()


@given(spellings())
def test_order_and_spelling_do_not_matter(pair: tuple[list[str], list[str]]) -> None:
    try:
        expected = parse(CONNECT, pair[1])
    except UsageError:  # an empty SOCKET
        with pytest.raises(UsageError, match="an empty SOCKET"):
            parse(CONNECT, pair[0])
        return
    assert parse(CONNECT, pair[0]) == expected


@given(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(["-v", "-s", "--", "-t", "--socket=", "-vq", "-"]))))
def test_any_words_give_a_result_or_a_usage_error(words: list[str]) -> None:
    try:
        parse(CONNECT, words)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


# ---- declarations
@pytest.mark.parametrize(
    "wrong",
    [
        {"options": (Option(("-s", "--size"), "conflicts with --socket"),)},
        {"options": (Option(("-x",), "one", dest="quiet"),)},
        {"arguments": (Argument("TARGET", "conflicts with --target"),)},
        {"arguments": (Argument("A", "rest", rest=True), Argument("B", "after it"))},
    ],
)
def test_a_contradictory_declaration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="x: "):
        Command("x", "a command", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such kind"):
        Option(("-x",), "help", kind="bool")


@pytest.mark.parametrize(("word", "answer"), [("conect", " (did you mean connect?)"), ("qqq", ""), ("", "")])
def test_suggestion(word: str, answer: str) -> None:
    assert suggestion(word, ["connect", "serve", "tunnel"]) == answer


# ---- help
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_help_fits_a_screen_and_shows_every_option(command: Command) -> None:
    text = render_help(command, ALL)
    lines = text.split("\n")
    assert text.startswith(f"usage: {command.name} ")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
    for option in command.shown:
        assert all(flag in text for flag in option.flags)
    assert "secret" not in text
    for argument in command.arguments:
        assert argument.name in lines[0] + lines[1]


@pytest.mark.parametrize("name", [*TOOLS, *WORDS])
def test_help_of_every_tool_fits_a_screen(name: str) -> None:
    command = load(TOOLS.get(name) or WORDS[name])[0]
    words = [load(place)[0] for place in WORDS.values()] if name == "r2" else []
    lines = render_help(command, words).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("example: ") for line in lines)


def test_help_in_full() -> None:
    assert render_help(R2D) == (
        "usage: r2d [-v]... [-s SOCKET] ADDRESS\n"
        "\n"
        "Run a node.\n"
        "\n"
        "  ADDRESS                its address\n"
        "\n"
        "  -v, --verbose          be verbose; -vv: more verbose\n"
        "  -s, --socket SOCKET    the daemon's control socket\n"
        "  -h, --help, --version  show this help, or the version\n"
    )


def test_help_lists_subcommands_defaults_and_one_example() -> None:
    assert "  connect                make a link\n" in render_help(R2, ALL)
    text = render_help(LS)
    assert "seconds between two looks (default 1.5)" in text
    assert text.endswith("example: r2 -s ~/.local/alice.sock -t bob ls    what bob is connected to\n")
    assert "    or: r2 connect ..." in render_help(CONNECT)


def test_man_page_section_and_date() -> None:
    assert ".Dt R2D 8\n" in render_man(R2D, "0.1", "2025-02-03")
    with pytest.raises(ValueError, match="yesterday"):
        render_man(R2D, "0.1", "yesterday")
