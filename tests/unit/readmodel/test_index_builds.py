"""Requests that need different indexes of one workspace at the same time."""

from __future__ import annotations

import asyncio

import pytest

from api.edge.index_builder import IndexBuilder
from api.readmodel.workspace import Workspace


@pytest.mark.timeout(30)  # the fault blocked the event loop, so a timeout of asyncio would not end the test
@pytest.mark.parametrize("steps", range(5))
async def test_a_request_between_the_end_of_a_build_and_its_callbacks_starts_another(steps: int) -> None:
    builder, workspace = IndexBuilder(), Workspace("w1", {})

    async def later() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        await builder.build(workspace, frozenset({"asking"}))

    await asyncio.gather(builder.build(workspace, frozenset({"newest"})), later())
    assert {"newest", "asking"} <= workspace.families
