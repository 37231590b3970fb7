"""Makes a workspace's indexes while it goes on changing, a little at a time, so that others wait for milliseconds only.

A large workspace takes a second. Its rows are noted as they are when it begins, its indexes made from these, and what
has changed meanwhile is applied at the end, at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from api.readmodel.workspace import Workspace
from schemas.views import Row, decode_row

__all__ = ["Builders", "paced", "rebuilt"]

TURN = 0.01  # seconds of work after which everybody else has a turn


async def paced(steps: Iterator[None]) -> None:
    """All the steps, a turn at a time."""
    begun = time.perf_counter()
    for _ in steps:
        if time.perf_counter() - begun > TURN:
            await asyncio.sleep(0)
            begun = time.perf_counter()


def rebuilt(space: Workspace, families: Iterable[str]) -> Iterator[None]:
    """Steps, between which the workspace may change; after the last one it has indexes of these families too."""
    keys = space.own_keys()
    then = Workspace(space.name, {key: space.rows[key] for key in keys})
    then.keys = keys
    changes = space.changes = []
    try:
        yield from then.build({*space.families, *families})
        for key, raw in changes:
            then.apply(key, raw, _row(key, then.rows.get(key)), _row(key, raw))
    finally:
        space.changes = None
    space.lists, space.tallies, space.families, space.built = then.lists, then.tallies, then.families, True


def _row(key: bytes, raw: bytes | None) -> Row | None:
    return decode_row(key, raw) if raw is not None else None


class Builders:
    """One at a time for each workspace."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def build(self, space: Workspace, families: frozenset[str]) -> None:
        """Returns when the workspace has its indexes, of these families among others."""
        while not (space.built and families <= space.families):
            task = self._running.get(space.name)
            if task is None:
                task = self._running[space.name] = asyncio.create_task(paced(rebuilt(space, families)))
                task.add_done_callback(lambda _: self._running.pop(space.name))
            await asyncio.shield(task)  # others wait for it too
