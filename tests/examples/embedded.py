"""A node in a thread of a program that does something else: asyncio here, which serves and dials on it.

    python embedded.py carl.sock TRANSPORT PATH       (links over TRANSPORT, and talks to the service at PATH)
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import r2box


def run(node: r2box.Node, ready: threading.Event) -> None:
    node.run(ready.set)  # in this thread, which is ours; Node.start makes one by itself


async def main(node: r2box.Node, transport: str, path: str) -> None:
    loop = asyncio.get_running_loop()
    link = node.connect(transport)
    print("linked to", await loop.run_in_executor(None, link.wait, 10))
    sock = await loop.run_in_executor(None, node.dial, path, 10)
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"hello from inside")
    writer.write_eof()
    print((await reader.read()).decode())
    writer.close()
    await writer.wait_closed()
    await loop.run_in_executor(None, link.close, 10)


if __name__ == "__main__":
    node, ready = r2box.Node("carl", socket=sys.argv[1]), threading.Event()
    thread = threading.Thread(target=run, args=(node, ready))
    thread.start()
    ready.wait(10)
    try:
        asyncio.run(main(node, *sys.argv[2:]))
    except (r2box.R2Error, TimeoutError, socket.timeout) as error:
        sys.exit(f"embedded: {error}")
    finally:
        node.stop()
        thread.join()
