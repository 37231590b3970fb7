"""Runs an edge as a process: `edge_process.py [acknowledged]`. Settings: `ATTN_*` of the environment.

With `acknowledged` the process kills itself once Kafka has acknowledged the first events sent over HTTP, before it
answers the request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from api.intake.sender import EventSender
from api.main import run
from schemas.settings import Settings

_send = EventSender.send


async def send_and_die(self: EventSender, *arguments: Any) -> None:
    await _send(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:] == ["acknowledged"]:
        EventSender.send = send_and_die  # type: ignore[method-assign]
    asyncio.run(run(Settings(_env_file=None), asyncio.Event()))
