"""Builds the indexes of a workspace in time slices of 10 ms, while its rows keep changing.

The indexes of a large workspace take a second. The builder copies the rows, indexes the copy step by step, and then
applies the changes of the meantime in one step. Then the workspace adopts the indexes of the copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from functools import partial

from api.readmodel.workspace import Workspace
from schemas.views import decode_row_or_none

__all__ = ["IndexBuilder", "build_steps", "run_cooperatively"]

TIME_SLICE = 0.01  # seconds of work after which a task yields to the event loop


async def run_cooperatively(steps: Iterator[None]) -> None:
    """Runs all steps. Yields to the event loop after each time slice."""
    slice_started = time.perf_counter()
    for _ in steps:
        if time.perf_counter() - slice_started > TIME_SLICE:
            await asyncio.sleep(0)
            slice_started = time.perf_counter()


def build_steps(workspace: Workspace, families: Iterable[str]) -> Iterator[None]:
    """Builds the indexes, these families included, step by step. The workspace may change between two steps."""
    keys = workspace.existing_keys()
    copy = Workspace(workspace.workspace_id, {key: workspace.rows[key] for key in keys})
    copy.keys = keys
    changes = workspace.changes_during_build = []
    try:
        yield from copy.build({*workspace.families, *families})
        for key, raw in changes:
            copy.apply(key, raw, decode_row_or_none(key, copy.rows.get(key)), decode_row_or_none(key, raw))
    finally:
        workspace.changes_during_build = None
    workspace.adopt_indexes(copy)


class IndexBuilder:
    """Runs at most one build for each workspace. Concurrent requests for a workspace wait for the same build."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def build(self, workspace: Workspace, families: frozenset[str]) -> None:
        """Returns when the workspace has indexes of at least these families."""
        while not (workspace.is_indexed and families <= workspace.families):
            task = self._running.get(workspace.workspace_id)
            # A task that is done stays in the table until its callback runs. To await it would not yield to the event
            # loop: this loop would never end, and the callback would never run.
            if task is None or task.done():
                task = asyncio.create_task(run_cooperatively(build_steps(workspace, families)))
                self._running[workspace.workspace_id] = task
                task.add_done_callback(partial(self._forget, workspace.workspace_id))
            await asyncio.shield(task)  # other requests wait for it too

    def _forget(self, workspace_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(workspace_id) is task:
            del self._running[workspace_id]
