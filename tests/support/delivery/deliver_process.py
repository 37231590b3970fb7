"""Runs `attn deliver` as a process that may kill itself at a chosen point: `deliver_process.py [POINT:N]`.

The process kills itself (SIGKILL) at the Nth pass of POINT:
    read      a decision is in memory, nothing is posted
    post      before a request is sent
    posted    the receiver has answered, nothing is reported
    report    a report is sent, not acknowledged
    reported  a report is durable, the entry is not finished
    commit    before offsets are committed
    committed after offsets are committed
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from schemas.settings import Settings
from streams.delivery import reporter
from streams.delivery.backlog import Backlog
from streams.delivery.consumer import DecisionConsumer
from streams.delivery.dispatcher import Dispatcher
from streams.delivery.http.client import HttpClient
from streams.delivery.main import run


def arm(crash: str) -> None:
    point, _, count = crash.partition(":")
    left = int(count)

    def passed() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Any:
        async def armed(*args: Any, **kwargs: Any) -> Any:
            passed()
            return await function(*args, **kwargs)
        return armed

    def after(function: Callable[..., Any]) -> Any:
        async def armed(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            passed()
            return result
        return armed

    if point == "read":
        add = Backlog.add

        def counted(self: Backlog, entry: Any) -> None:
            add(self, entry)
            passed()
        Backlog.add = counted
    elif point == "post":
        HttpClient.post = before(HttpClient.post)
    elif point == "posted":
        HttpClient.post = after(HttpClient.post)
    elif point == "report":
        reporter.wait_acknowledged = before(reporter.wait_acknowledged)
    elif point == "reported":
        Dispatcher._report = after(Dispatcher._report)
    elif point == "commit":
        DecisionConsumer._commit = before(DecisionConsumer._commit)
    elif point == "committed":
        DecisionConsumer._commit = after(DecisionConsumer._commit)
    else:
        raise SystemExit(f"unknown point: {point}")


if __name__ == "__main__":
    if crash := "".join(sys.argv[1:]):
        arm(crash)

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await run(Settings(_env_file=None), stop)

    asyncio.run(main())
