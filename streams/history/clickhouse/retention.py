"""How long rows are kept, as a setting: compared with the tables at every start, and applied where it differs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.settings import Settings
from streams.history.clickhouse.migrate import Client, MigrationError, fill

__all__ = ["check", "retention_statements"]

# Which column tells a row's age: of facts the log's clock, so that a late event is kept as long as any other.
_AGE = {"activity": "accepted_at", "activity_hourly": "hour", "items_hourly": "hour"}
_ENGINE = "SELECT engine_full FROM system.tables WHERE database = {db:String} AND name = {name:String}"
_OURS = re.compile(r" TTL toDateTime\(\w+\) \+ toIntervalDay\((\d+)\)")


def check(settings: Settings) -> None:
    """MigrationError: facts would leave ClickHouse while they may still come again, and count twice then."""
    least = settings.facts_retention_hours / 24 + settings.dedupe_days
    if 0 < settings.history_days < least:
        raise MigrationError(
            f"ATTN_HISTORY_DAYS={settings.history_days} is too short: facts may come again for {least:g} days "
            "(ATTN_FACTS_RETENTION_HOURS and ATTN_DEDUPE_DAYS)"
        )


def retention_statements(client: Client, database: str, settings: Settings) -> Iterator[str]:
    """What makes the tables keep rows as long as the settings say. A TTL somebody wrote otherwise is left alone."""
    check(settings)
    days = dict.fromkeys(_AGE, settings.history_hourly_days) | {"activity": settings.history_days}
    for table, age in _AGE.items():
        found = client.query(_ENGINE, parameters={"db": database, "name": table}).result_rows
        now = _OURS.search(found[0][0]) if found else None
        if days[table] == (int(now[1]) if now else 0):
            continue
        change = f"MODIFY TTL toDateTime({age}) + INTERVAL {days[table]} DAY" if days[table] else "REMOVE TTL"
        yield fill(f"ALTER TABLE {{database}}.{table} {{on_cluster}} {change}", database, settings.clickhouse_cluster)
