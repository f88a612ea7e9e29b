"""Which control socket is meant, waiting for a daemon that is just starting, and starting one in the background.

The places of a system are those of a folder here, and the user has no other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import r2box
from r2box.errors import DaemonError
from r2box.net.client import reach
from r2box.net.daemon.daemon import STARTUP_TIME
from r2box.net.io import socket_path
from r2box.net.io.socket_path import default_path, expand
from support.processes import Place, eventually, need

UID = 1_000_000_007
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, or have another /run")


@pytest.fixture
def system(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with run/, run/r2/ and home/, for a user with the number UID."""
    monkeypatch.setattr(os, "geteuid", lambda: UID)
    monkeypatch.setattr(socket_path, "SYSTEM_FOLDER", f"{place.path}/run")
    monkeypatch.setattr(socket_path, "RUNTIME_FOLDERS", f"{place.path}/run/user")
    monkeypatch.setenv("HOME", str(place.home))
    for name in ("R2_SOCKET", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("run/r2", "home/.local/state/r2"):
        (place.path / name).mkdir(parents=True)
    return place.path


@contextlib.contextmanager
def listening(*paths: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(path))
            sock.listen()
            stack.callback(path.unlink)
        yield


def found(wait: float = 0.0, given: str | None = None) -> str:
    sock, path = reach.reach(given, wait)
    sock.close()
    return path


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_the_default_place(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = system / "home/.local/state/r2/r2.sock"
    assert default_path() == str(state)
    for given in ("relative", "~/state", ""):
        monkeypatch.setenv("XDG_STATE_HOME", given)
        assert default_path() == str(state)
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_path() == "/somewhere/r2/r2.sock"
    runtime = system / f"run/user/{UID}"
    runtime.mkdir(parents=True)
    assert default_path() == f"{runtime}/r2.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_path() == f"{system}/run/r2.sock"
    monkeypatch.setenv("R2_SOCKET", "~/x.sock")
    assert default_path() == f"{system}/home/x.sock", "as --socket=~/x.sock, where the shell leaves the ~ alone"
    assert default_path("y.sock") == "y.sock"


def test_a_daemon_that_is_older_than_the_runtime_directory_is_found(system: Path) -> None:
    with listening(system / "home/.local/state/r2/r2.sock"):
        (system / f"run/user/{UID}").mkdir(parents=True)
        assert found() == f"{system}/home/.local/state/r2/r2.sock"
        with listening(system / f"run/user/{UID}/r2.sock"):
            assert found() == f"{system}/run/user/{UID}/r2.sock", "the default one is preferred"


@pytest.mark.parametrize("uid", [0, UID])
def test_the_only_daemon_of_a_unit_is_found(system: Path, monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    folder = system / ("run/r2" if uid == 0 else f"run/user/{UID}/r2")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(folder / "stale.sock"))
        os.link(folder / "stale.sock", folder / "left.sock")
        (folder / "note.txt").write_text("no socket")
    with listening(folder / "alice.sock"):
        assert found() == f"{folder}/alice.sock"
        with listening(folder / "bob.sock"):
            with pytest.raises(DaemonError, match=rf"several.*: {folder}/alice\.sock, {folder}/bob\.sock \(") as caught:
                found(60)  # more time would not help
            assert "-s or R2_SOCKET" in str(caught.value)
            assert found(given=f"{folder}/bob.sock") == f"{folder}/bob.sock"
            monkeypatch.setenv("R2_SOCKET", f"{folder}/bob.sock")
            assert found() == f"{folder}/bob.sock"
            monkeypatch.setenv("R2_SOCKET", f"{folder}/carl.sock")
            with pytest.raises(DaemonError, match=r"carl\.sock: no daemon: there is no such socket"):
                found()


def test_no_home_directory(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    for _ in range(2):
        with pytest.raises(DaemonError, match=r"no home directory.*-s or R2_SOCKET"):
            found()
        monkeypatch.setenv("HOME", "~")
    with pytest.raises(ValueError, match="no home directory for ~"):
        expand("~/x")
    assert expand("x~") == "x~"


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["absent", "stale", "no directory"])
def test_a_client_waits_for_a_daemon_that_is_just_starting(system: Path, state: str) -> None:
    path = system / "new/alice.sock"
    if state == "stale":
        with listening(path):
            os.link(path, system / "kept")
        os.rename(system / "kept", path)
    elif state == "absent":
        path.parent.mkdir()
    done = threading.Event()

    def start() -> None:
        path.unlink(missing_ok=True)
        with listening(path):
            done.wait(60)

    thread = threading.Timer(0.2, start)
    thread.start()
    try:
        assert found(60, str(path)) == str(path)
    finally:
        done.set()
        thread.join()


def test_a_client_waits_no_longer_than_it_may(place: Place) -> None:
    begin = time.monotonic()
    said = place.run("r2 --wait 300ms -s 'no one.sock' ls", status=1).err
    assert time.monotonic() - begin >= 0.3
    why = "no daemon: there is no such socket (start one with: r2d -s 'no one.sock' ADDRESS)"
    assert said == f"r2-ls: no one.sock: {why}\n"
    assert "--wait" in place.run("r2 --wait soon -s x.sock ls", status=2).err
    with pytest.raises(DaemonError, match="no daemon"):
        r2box.ping(socket=f"{place.path}/none.sock", timeout=0.1)


@pytest.mark.old_and_new
@pytest.mark.parametrize("line", ["ls", "ping -c 1", "-t alice wait", "map", "status", "-t cat tunnel -"])
def test_commands_and_their_daemon_are_pasted_at_once(place: Place, line: str) -> None:
    text = '[self]\naddr = "alice"\nsocket = "new/alice.sock"\n[[serve]]\ncmd = "cat"\n'
    (place.path / "alice.toml").write_text(text)
    client = f"r2 --wait 60 -s new/alice.sock {line}"
    pasted = place.start(f"r2dm -f alice.toml & {client}; status=$?; kill $!; exit $status", shell=True)
    pasted.ends(0)


def test_a_manager_listens_before_it_is_loaded(place: Place) -> None:
    """A client that connects at once is answered; a signal that comes at once ends the node in order."""
    (place.path / "alice.toml").write_text('[self]\naddr = "alice"\nsocket = "alice.sock"\n[[serve]]\ncmd = "cat"\n')
    manager = place.start("r2dm -f alice.toml")
    place.await_socket("alice.sock")
    assert place.run("r2 -s alice.sock ls").out == "service/cat\n"
    manager.send(signal.SIGTERM)
    manager.ends()
    manager = place.start("r2dm -f alice.toml")
    place.await_socket("alice.sock")
    manager.send(signal.SIGTERM)
    manager.ends()
    assert not (place.path / "alice.sock").exists()


def test_the_library_waits_too(place: Place) -> None:
    daemon = threading.Timer(0.1, lambda: place.start("r2d -s alice.sock alice"))
    daemon.start()
    assert r2box.ping(socket=f"{place.path}/alice.sock", timeout=60, wait=60) > 0
    daemon.join()


# -- where nothing is made ---------------------------------------------------------------------------------------------


@as_root
def test_a_user_without_a_home_is_refused(place: Place) -> None:
    need("setpriv")
    place.path.chmod(0o777)
    become = f"setpriv --reuid {UID} --regid {UID} --clear-groups env -u HOME"
    for line in ("r2d alice", "r2 ls", "r2 serve cat"):
        said = place.run(f"{become} {line}", status=1).err
        assert "no home directory" in said
        assert "-s or R2_SOCKET" in said
    (place.path / "a.toml").write_text('[self]\naddr = "a"\nsocket = "~/a.sock"\n')
    assert "no home directory for ~" in place.run(f"{become} r2dm -f a.toml", status=1).err
    assert "does not exist" in place.run(f"{become} HOME={place.path}/none r2d alice", status=1).err
    assert not [path for path in place.path.iterdir() if path.name in ("~", "none")]
    place.path.chmod(0o755)


def test_only_the_default_directory_is_made(place: Place) -> None:
    for line in ("r2d -s no/such/x.sock alice", "R2_SOCKET=no/such/x.sock r2d alice", "r2d -s '~x/a.sock' alice"):
        assert "there is no directory" in place.run(line, status=1).err
    assert sorted(path.name for path in place.path.iterdir()) == ["home"]


@as_root
def test_the_tools_find_what_the_units_start(place: Place) -> None:
    """With another /run, as root: the socket of r2@alice.service, then of two such services."""
    need("unshare", "mount")
    script = place.path / "script"
    script.write_text(
        "mount -t tmpfs none /run && mkdir /run/r2 || exit 77\n"
        "R2_SOCKET=/run/r2/alice.sock r2d --background alice 2>log || exit 1\nr2 map >map\n"
        "R2_SOCKET=/run/r2/bob.sock r2d --background bob 2>>log || exit 1\nr2 ls 2>several\n"
        "r2d --background carl 2>>log || exit 1\nr2 map >>map\n"
        "kill $(sed -n 's/.*as process //p' log)\n"
    )
    place.run("unshare --mount sh script")
    assert (place.path / "map").read_text() == "alice\ncarl\n"
    assert "/run/r2/alice.sock, /run/r2/bob.sock (choose one" in (place.path / "several").read_text()


# -- in the background -------------------------------------------------------------------------------------------------


def process_of(text: str) -> int:
    return int(text.rpartition("as process ")[2])


@pytest.mark.old_and_new
@pytest.mark.parametrize("tool", ["r2d -s alice.sock alice", "r2dm -f alice.toml"])
def test_in_the_background(place: Place, tool: str) -> None:
    (place.path / "alice.toml").write_text('[self]\naddr = "alice"\nsocket = "alice.sock"\n[[serve]]\ncmd = "cat"\n')
    name, _, rest = tool.partition(" ")
    # stderr, a pipe, is let go of: else this would not come back.
    pid = process_of(place.run(f"{name} --background {rest}").err)
    place.run("r2 -s alice.sock --wait 0 ping -c 1")
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    group, session, terminal = stat[2:5]
    assert terminal == "0"
    assert str(pid) != session == group, "it leads no session, so no terminal that it opens becomes its own"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
    assert "listens here already" in place.run(f"{name} --background {rest}", status=1).err
    os.kill(pid, 15)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    assert not (place.path / "alice.sock").exists()


def test_in_the_background_messages_go_to_a_file_that_was_given(place: Place) -> None:
    place.run("r2d --background -s alice.sock alice 2>log 3>&1")
    log = place.path / "log"
    pid = process_of(log.read_text())
    os.kill(pid, 15)
    eventually(lambda: "alice: shutting down" in log.read_text(), log.read_text)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "its end")


def test_a_node_that_cannot_start_in_the_background_says_why(place: Place) -> None:
    assert "no such file" in place.run("r2dm --background -f none.toml", status=1).err.lower()
    assert "there is no directory" in place.run("r2d --background -s no/x.sock alice", status=1).err


# -- names that are about to be known ----------------------------------------------------------------------------------


@pytest.mark.old_and_new
@pytest.mark.parametrize("line", ["-t bob ls", "-t bob ping -c 1", "-t bob/cat tunnel -", "-t any/cat tunnel -"])
def test_a_name_that_is_not_known_yet_is_asked_for_again_while_links_are_made(place: Place, line: str) -> None:
    """As in a block that starts two nodes and uses one from the other; descriptors are given with each attempt."""
    place.node("bob")
    place.serve("bob", "cat")
    place.node("alice")
    client = place.start(f"echo hello | r2 --wait 60 -s alice.sock {line}", shell=True)
    place.start('r2 -s alice.sock connect "r2 -s bob.sock connect -"')
    client.ends(0)
    assert "tunnel" not in line or client.out == "hello\n"


def test_a_name_that_is_not_known_fails_at_once_where_nothing_is_being_made(place: Place) -> None:
    begin = time.monotonic()
    place.node("alice")
    for line in ("--wait 0 -t nowhere ls", "-t nowhere ls", "-t nowhere tunnel -"):
        assert "does not know nowhere" in place.run(f"r2 -s alice.sock {line}", status=None).err
    with contextlib.closing(r2box.Session(f"{place.path}/alice.sock")) as session:
        while time.monotonic() < begin + STARTUP_TIME:  # what is said then is the rule; no event tells of its beginning
            with pytest.raises(r2box.RefusedError):
                session.ls("nowhere")
            time.sleep(0.1)
    before = time.monotonic()
    place.run("r2 --wait 60 -s alice.sock -t nowhere ls", status=1)
    assert time.monotonic() - before < 30
