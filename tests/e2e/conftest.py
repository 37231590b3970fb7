"""Fixtures of the dashboard's tests: one stack and browser per file, one workspace per test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.clients.browsers import Scene, stage
from support.processes.up import Up


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Any]]:
    with stage(tmp_path_factory.mktemp("stage")) as both:
        yield both


@pytest.fixture
def scene(running: tuple[Up, Any], request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(*running, ws=request.node.name.removeprefix("test_"))
    try:
        yield made
    finally:
        made.close()
