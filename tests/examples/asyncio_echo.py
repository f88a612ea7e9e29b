"""asyncio over a tunnel: many conversations at once with an echo service.

    python asyncio_echo.py bob/echo
"""

from __future__ import annotations

import asyncio
import sys

import r2box


async def talk(path: str, number: int) -> bytes:
    loop = asyncio.get_running_loop()
    sock = await loop.run_in_executor(None, lambda: r2box.dial(path, timeout=10))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"conversation %d" % number)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def main(path: str) -> None:
    for answer in await asyncio.gather(*[talk(path, number) for number in range(10)]):
        print(answer.decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
