"""The processes of one `attn up`, and the memory of each."""

from __future__ import annotations

from typing import NamedTuple

import psutil
from support.processes.up import Up

__all__ = ["Memory", "find_processes", "memory"]

_MB = 1 << 20


class Memory(NamedTuple):
    """Megabytes of a process and its children. `private`: pages that no other process maps."""

    pss: float
    rss: float
    private: float


def find_processes(up: Up) -> dict[str, psutil.Process]:
    """Returns the supervisor and its processes by name. Without the embedded broker no broker is among them."""
    assert up.process is not None
    found = {"supervisor": psutil.Process(up.process.pid)}
    return found | {name: psutil.Process(part.pid) for name, part in up.parts().items()}


def memory(process: psutil.Process) -> Memory:
    """Returns the memory of a process without its children: `attn` starts none while it is idle."""
    full = process.memory_full_info()
    return Memory(full.pss / _MB, full.rss / _MB, full.uss / _MB)
