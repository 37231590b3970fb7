"""Shared fixtures. Tests in tests/unit may not touch the network; a broker is the fixture `broker`."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from unittest.mock import patch

import pytest
import pytest_asyncio

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # from support.x import y

from ops.broker import EmbeddedBroker, binary  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Unit tests do no I/O on the network: a connection or a bound port fails them."""
    if TESTS / "unit" not in item.path.parents:
        return (yield)

    def refuse(self: socket.socket, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"a test in tests/unit used the network: {args[:1]}")

    with patch.multiple(socket.socket, connect=refuse, connect_ex=refuse, bind=refuse, sendto=refuse):
        return (yield)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Bootstrap address of an embedded broker that the whole session shares: use topic names of your own."""
    if binary() is None:
        pytest.skip("noida-db is not installed (pip install 'attn[embedded]')")
    embedded = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    await embedded.start()
    yield embedded.bootstrap
    await embedded.stop()
