"""`FoldConfig`: the settings that decide the result of the fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from schemas.scalars import DAY, HOUR, MINUTE, SECOND
from schemas.settings import Settings

__all__ = ["FoldConfig"]


@dataclass(frozen=True, slots=True)
class FoldConfig:
    """Settings of the fold; all times in microseconds. Every worker must have the same values (law 1)."""

    targets: dict[str, int] = field(
        default_factory=lambda: {"urgent": 15 * MINUTE, "high": HOUR, "normal": 8 * HOUR, "low": 3 * DAY}
    )
    retention: int = 30 * DAY
    dedupe: int = 30 * DAY
    proof_window: int = 24 * HOUR
    activity_window: int = 24 * HOUR
    source_managed: frozenset[str] = frozenset(
        {"waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"}
    )

    decisions: Literal["asks", "all", "off"] = "asks"
    decider_roles: frozenset[str] = frozenset({"OWNER", "ADMIN", "MANAGER", "MEMBER"})
    undo: int = 5 * SECOND
    confirm: int = 15 * MINUTE

    @classmethod
    def from_settings(cls, settings: Settings) -> FoldConfig:
        """Returns the configuration that the `ATTN_*` settings describe."""
        return cls(
            targets=settings.priority_targets,
            retention=int(settings.retention_days * DAY),
            dedupe=int(settings.dedupe_days * DAY),
            proof_window=int(settings.proof_window_hours * HOUR),
            activity_window=int(settings.activity_window_hours * HOUR),
            source_managed=settings.source_managed_kinds,
            decisions=settings.decisions,
            decider_roles=settings.decider_roles,
            undo=int(settings.undo_seconds * SECOND),
            confirm=int(settings.decision_confirm.total_seconds() * SECOND),
        )
