"""Runs `attn rebuild` and kills it at its Nth write; the claim is the first: `rebuild_process.py N ARGUMENTS...`."""

import os
import signal
import sys
from typing import Any

from ops.cli.main import main
from streams.kafka.fencing import FencedProducer
from streams.rebuild import rebuild

left = int(sys.argv.pop(1))
write = FencedProducer.write
rebuild._CHUNK_BYTES = 1  # bytes: each row is a batch


async def dying(self: FencedProducer, *arguments: Any) -> int:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return await write(self, *arguments)


FencedProducer.write = dying  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
