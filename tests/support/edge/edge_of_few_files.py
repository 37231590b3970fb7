"""An edge in memory, as a process of its own that may open few files: `python -m ... SOFT HARD`.

Prints its port and its capacity of streams, then serves until its input ends.
"""

from __future__ import annotations

import asyncio
import resource
import sys

import uvloop
from support.edge.edges import Fed, serving
from support.edge.random_rows import item

from api.open_files import raise_file_limit


async def main() -> None:
    soft, hard = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raise_file_limit() == hard
    fed = Fed(max_streams=10_000)
    fed.put(item("w1", "s1"))
    async with serving(fed.edge) as base:
        sys.stdout.write(f"{base.rsplit(':', 1)[1]} {fed.edge.connections.capacity}\n")
        sys.stdout.flush()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()


if __name__ == "__main__":
    uvloop.run(main())
