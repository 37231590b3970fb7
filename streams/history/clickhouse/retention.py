"""TTLs of the history's tables from settings. Every start compares them with the tables and changes what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.settings import Settings
from streams.history.clickhouse.migrate import Client, MigrationError, fill

__all__ = ["check", "retention_statements"]

# Column with the age of a row. For facts it is the time of the log's clock: a late event is kept as long as others.
_AGE = {"activity": "accepted_at", "activity_hourly": "hour", "items_hourly": "hour"}
_ENGINE = "SELECT engine_full FROM system.tables WHERE database = {db:String} AND name = {name:String}"
_OURS = re.compile(r" TTL toDateTime\(\w+\) \+ toIntervalDay\((\d+)\)")


def check(settings: Settings) -> None:
    """Raises MigrationError if ATTN_HISTORY_DAYS is shorter than the time in which a fact may be emitted again. Such a
    fact would count twice."""
    least = settings.facts_retention_hours / 24 + settings.dedupe_days
    if 0 < settings.history_days < least:
        raise MigrationError(
            f"ATTN_HISTORY_DAYS={settings.history_days} is too short: facts may be emitted again for {least:g} days "
            "(ATTN_FACTS_RETENTION_HOURS plus ATTN_DEDUPE_DAYS); set it to at least that, or to 0 for no limit"
        )


def retention_statements(client: Client, database: str, settings: Settings) -> Iterator[str]:
    """Returns the statements that change the TTLs to those of the settings. TTLs of any other form than ours are not
    recognised, so a setting of 0 does not remove them."""
    check(settings)
    days = dict.fromkeys(_AGE, settings.history_hourly_days) | {"activity": settings.history_days}
    for table, age in _AGE.items():
        engine = client.query(_ENGINE, parameters={"db": database, "name": table}).result_rows
        now = _OURS.search(engine[0][0]) if engine else None
        if days[table] == (int(now[1]) if now else 0):
            continue
        change = f"MODIFY TTL toDateTime({age}) + INTERVAL {days[table]} DAY" if days[table] else "REMOVE TTL"
        yield fill(f"ALTER TABLE {{database}}.{table} {{on_cluster}} {change}", database, settings.clickhouse_cluster)
