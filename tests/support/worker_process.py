"""A worker as a process of its own, which may kill itself at a chosen point: `worker_process.py [POINT:N]`.

POINT is where the crash happens, the Nth time it comes by: `facts` (before they are written), `rows` (facts are
durable, rows are not), `table` (rows are durable, the table does not know), `log` (packs are sent, not acknowledged),
`commit` (packs are durable, offsets are not committed), `loading` (rows are read, nothing else has happened).
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from schemas.settings import Settings
from schemas.topics import FACTS
from streams import views
from streams.agents import fold, ingest
from streams.core.fold import Fold
from streams.group import Group
from streams.worker import run


def arm(crash: str) -> None:
    point, _, count = crash.partition(":")
    left = int(count)

    def crashing(before: bool, function: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> Any:
        async def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if not when(*args):
                return await function(*args, **kwargs)
            left -= 1
            if before and left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            found = await function(*args, **kwargs)
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found
        return armed

    if point == "facts":
        fold.write_rows = crashing(True, fold.write_rows)
    elif point == "rows":
        fold.write_rows = crashing(False, fold.write_rows)
    elif point == "table":
        views.write_rows = crashing(False, views.write_rows)
    elif point == "log":
        ingest.acknowledged = crashing(True, ingest.acknowledged)
    elif point == "commit":
        Group.commit = crashing(True, Group.commit, lambda _, done: bool(done))
    elif point == "loading":
        def load(self: Fold) -> None:
            os.kill(os.getpid(), signal.SIGKILL)
        Fold.load = load
    else:
        raise SystemExit(f"no such point: {point} ({FACTS})")


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(Settings(), stop)


if __name__ == "__main__":
    line = "%(asctime)s %(process)d %(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"), format=line)
    if sys.argv[1:] and sys.argv[1]:
        arm(sys.argv[1])
    asyncio.run(main())
