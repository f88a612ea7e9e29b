"""Port forwarding by asyncssh.  Run by path: `server PORT`, or `client PORT`, which forwards as it is asked.

The client reads the number of a port from a line of its stdin, forwards another to it, and answers with that one's.
Whoever connects is let in, on 127.0.0.1 and for the time of a measurement.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

asyncssh: Any = importlib.import_module("asyncssh")


def open_server() -> Any:
    class Open(asyncssh.SSHServer):  # type: ignore[misc]  # where it is not installed, its classes are not known
        def begin_auth(self, username: str) -> bool:
            return False

        def connection_requested(self, *where: object) -> bool:
            return True

    return Open()


async def serve(port: int) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen("127.0.0.1", port, server_factory=open_server, server_host_keys=[key])
    await asyncio.get_running_loop().create_future()


async def forward(port: int) -> None:
    loop = asyncio.get_running_loop()
    options = {"known_hosts": None, "username": "bench", "config": None, "client_keys": None, "agent_path": None}
    async with asyncssh.connect("127.0.0.1", port, **options) as connection:
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                return
            listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", int(line))
            print(listener.get_port(), flush=True)


if __name__ == "__main__":
    asyncio.run({"server": serve, "client": forward}[sys.argv[1]](int(sys.argv[2])))
