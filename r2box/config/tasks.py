"""Commands that run on events of the network.

For each name, a task runs one command at a time; further events of that name while it runs make it run once more.  At
most `MAX_RUNNING` commands run at a time; the others are queued, at most one per task and name.
"""

from __future__ import annotations

import os

from ..net.client.job import Job
from ..net.client.query import ask_all, names_of
from ..net.io import process
from ..net.io.leash import Leash
from ..net.io.process import Child
from ..proto.link.policy import fits
from ..proto.wire import messages
from ..proto.wire.address import format_path
from .placeholders import ADDRESS, fill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..net.client.client import Client
    from ..net.io.log import Log
    from ..net.io.loop import Loop
    from .records import Task

    # a command to run: its task, the name, and the environment
    Run = tuple[Task, str, dict[str, str]]

MAX_RUNNING = 64  # commands at a time: a network that comes up makes thousands of events


class Tasks(Job):
    """Runs `tasks` on events of the daemon of the watched client; `change` replaces the list."""

    def __init__(self, loop: Loop, log: Log, socket_path: str, tasks: list[Task]) -> None:
        self._loop = loop
        self._log = log
        self._environment = {"R2_SOCKET": os.path.abspath(socket_path)}
        self._tasks = tasks
        self._client: Client | None = None
        self._running: dict[tuple[int, str], Child] = {}  # by task and name
        self._waiting: dict[tuple[int, str], Run] = {}
        self._done: Callable[[], None] | None = None
        self._is_ending = False
        self._leash = loop.shared(Leash)

    def begin(self, client: Client) -> None:
        """Subscribe to events of the daemon of `client`."""
        self._client = client
        client.request(messages.WATCH, self._event_received)

    def change(self, tasks: list[Task]) -> None:
        """Replace the tasks.  New ones run for the nodes and services that are up already."""
        added = [task for task in tasks if task not in self._tasks]
        # Running commands are indexed by the identity of the record: keep the records that stay.
        self._tasks = [next((old for old in self._tasks if old == task), task) for task in tasks]
        if added and self._client is not None:
            ask_all(
                self._client,
                messages.NETWORK,
                (),
                lambda _, known: self._catch_up(added, known),
                lambda error: self._log.warning(f"tasks: {error}"),
            )

    def _catch_up(self, added: list[Task], known: list[dict[str, Any]]) -> None:
        for entry in known:
            name = entry["path"][-1]
            for task in added:
                self._match(task, "node-up", name, entry["path"])
                for service in names_of(entry):
                    self._match(task, "service-up", f"{name}/{service}", entry["path"])

    def _event_received(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.ERROR:
            self._log.error(f"tasks: {body['text']}")
            return
        if body.kind != messages.EVENT:
            return
        if body["missed"]:
            self._log.warning(f"tasks: {body['missed']} events were missed: they came faster than they were processed")
        for task in self._tasks:
            self._match(task, body["what"], body["name"], body["path"])

    def _match(self, task: Task, event: str, name: str, path: tuple[str, ...]) -> None:
        if event == task.event and fits(name, (task.name,)) and not self._is_ending:
            more = {"R2_EVENT": event, "R2_NAME": name, "R2_PATH": format_path(path)}
            self._waiting[id(task), name] = (task, name, more)
            self._start()

    def _start(self) -> None:
        for key in list(self._waiting):
            if len(self._running) >= MAX_RUNNING:
                return
            if key not in self._running:
                self._run(key, *self._waiting.pop(key))

    def _run(self, key: tuple[int, str], task: Task, name: str, more: dict[str, str]) -> None:
        command = fill(task.cmd, {ADDRESS: name})  # names contain no characters that are special to the shell
        self._log.debug(f"{more['R2_EVENT']} {name}: {command}")
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            environment = {**self._environment, **more}
            pid = process.start(command, null, 2, environment=environment, new_session=True, leash=self._leash.open())
        except OSError as error:
            self._log.error(f"{command}: {error.strerror}")
            return
        finally:
            os.close(null)
        self._running[key] = Child(
            self._loop, pid, lambda status: self._ended(key, command, status), group=True, leash=self._leash
        )

    def _ended(self, key: tuple[int, str], command: str, status: int) -> None:
        del self._running[key]
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._log.warning(f"{command}: {how}")
        if not self._is_ending:
            self._start()
        elif not self._running:
            self._leave()

    def end(self, done: Callable[[], None]) -> None:
        """Terminate the running commands and start no more; done() when they have ended, or after LEAVE_TIME."""
        self._done = done
        self._is_ending = True
        self._waiting.clear()
        for running in self._running.values():
            running.end()
        if self._running:
            self._loop.later(process.LEAVE_TIME, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()
