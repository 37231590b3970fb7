"""Each test file of `attn mcp` starts its own `attn up`. A shared one would use a sixth of a core until the end of the
run, although idle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.peers.mcp_asking import SETTINGS, McpHttpServer, People, mcp_http
from support.processes.up import Up


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    up = Up(tmp_path_factory.mktemp("mcp"), env=SETTINGS)
    up.start()
    yield People(up)
    up.close()


@pytest.fixture(scope="module")
def http_server(people: People) -> Iterator[McpHttpServer]:
    with mcp_http(people) as server:
        yield server
