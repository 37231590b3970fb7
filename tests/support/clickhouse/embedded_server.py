"""An embedded ClickHouse with its HTTP server for one test module, and helpers to insert facts and to read by edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.settings import Settings
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.embedded import query_server

__all__ = ["Archived", "archived"]


class Archived:
    """The database of one test module. Edges read `url`; `keep` inserts facts as the history does."""

    def __init__(self, store: ActivityRepository, url: str) -> None:
        self.store, self.url = store, url
        self._batches = 0

    def keep(self, facts: Iterable[object], partition: int = 0) -> list[Fact]:
        """Inserts the facts of source events and commands as one batch. Returns them."""
        inserted = [fact for fact in facts if isinstance(fact, Fact) and not fact.derived]
        if inserted:
            self._batches += 1
            self.store.insert(columns(inserted, [partition] * len(inserted)), f"batch {self._batches}")
        return inserted


@contextmanager
def archived(directory: Path) -> Iterator[Archived]:
    settings = Settings(data_dir=directory, clickhouse_port=free_port(), _env_file=None)
    writer = client.connect(settings)
    migrate.apply(writer, "attn")
    store = ActivityRepository(writer, "attn", local=True)
    try:
        with query_server.serve(settings, client.directory(settings)) as port:
            password = settings.clickhouse_password_file.read_text().strip()
            yield Archived(store, f"http://reader:{password}@127.0.0.1:{port}/attn")
    finally:
        store.close()
