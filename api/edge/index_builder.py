"""Makes a workspace's indexes while it goes on changing, a little at a time, so that others wait for milliseconds only.

A large workspace takes a second. Its rows are noted as they are when it begins, its indexes made from these, and what
has changed meanwhile is applied at the end, at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from api.readmodel.workspace import Workspace
from schemas.views import decode_row_or_none

__all__ = ["IndexBuilder", "build_steps", "run_cooperatively"]

TIME_SLICE = 0.01  # seconds of work after which everybody else has a turn


async def run_cooperatively(steps: Iterator[None]) -> None:
    """All the steps, a turn at a time."""
    begun = time.perf_counter()
    for _ in steps:
        if time.perf_counter() - begun > TIME_SLICE:
            await asyncio.sleep(0)
            begun = time.perf_counter()


def build_steps(space: Workspace, families: Iterable[str]) -> Iterator[None]:
    """Steps, between which the workspace may change; after the last one it has indexes of these families too."""
    keys = space.existing_keys()
    then = Workspace(space.workspace_id, {key: space.rows[key] for key in keys})
    then.keys = keys
    changes = space.changes_during_build = []
    try:
        yield from then.build({*space.families, *families})
        for key, raw in changes:
            then.apply(key, raw, decode_row_or_none(key, then.rows.get(key)), decode_row_or_none(key, raw))
    finally:
        space.changes_during_build = None
    space.sets, space.tallies, space.families, space.is_indexed = then.sets, then.tallies, then.families, True


class IndexBuilder:
    """One at a time for each workspace."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def build(self, space: Workspace, families: frozenset[str]) -> None:
        """Returns when the workspace has its indexes, of these families among others."""
        while not (space.is_indexed and families <= space.families):
            task = self._running.get(space.workspace_id)
            if task is None:
                task = asyncio.create_task(run_cooperatively(build_steps(space, families)))
                self._running[space.workspace_id] = task
                task.add_done_callback(lambda _: self._running.pop(space.workspace_id))
            await asyncio.shield(task)  # others wait for it too
