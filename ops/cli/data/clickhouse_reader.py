"""A client for the tables of the history: of a server, of a running `attn up`, or of chdb in the data directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from ops import config
from ops.process.ports import free_port
from schemas.settings import Settings

__all__ = ["open_reader"]


@contextmanager
def open_reader(settings: Settings) -> Iterator[tuple[Any, str]]:
    """Yields a client and the database name. Serves chdb's directory meanwhile if no other process does.

    Raises ClickHouseError if neither a server nor the directory can be used.
    """
    from streams.history.clickhouse import client as clients
    from streams.history.embedded import query_server

    with ExitStack() as stack:
        if not settings.clickhouse_query_url:
            stack.enter_context(closing(clients.connect(settings)))
            settings = settings.model_copy(update={"clickhouse_port": free_port()})
            port = stack.enter_context(query_server.serve(settings, clients.directory(settings)))
            url = config.reading_url(settings, port)
            settings = settings.model_copy(update={"clickhouse": url})
        else:
            settings = settings.model_copy(update={"clickhouse": settings.clickhouse_query_url})
        client = stack.enter_context(closing(clients.connect(settings, clients.MIGRATION_SECONDS)))
        yield client, settings.clickhouse_database
