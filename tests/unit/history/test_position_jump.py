"""The jump of the fold's position after a log truncation, and the jump that the history recognises."""

from __future__ import annotations

from importlib import resources

from streams.core.fold.fold import POSITION_JUMP
from streams.history.clickhouse.columns import MIN_POSITION_JUMP


def test_the_history_recognises_half_of_the_jump_of_the_fold() -> None:
    # A fold jumps from its stored position, which may be behind the position of the newest fact.
    assert POSITION_JUMP == 2 * MIN_POSITION_JUMP


def test_the_frozen_migration_groups_positions_by_the_same_number() -> None:
    migrations = resources.files("streams.history.clickhouse") / "migrations"
    sql = (migrations / "0001_activity.sql").read_text()
    assert f"intDiv(position, {MIN_POSITION_JUMP}) AS stretch" in sql
