"""Reads and validates the policy files of `attn rank-report` (TOML or JSON)."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from ops.cli.durations import parse_duration
from ops.cli.rank_report.policy import CRITERIA, Policy
from ops.errors import UserError
from schemas.scalars import SECOND
from streams.core.domain.event_types import KINDS

__all__ = ["PolicyFile", "load"]

_MAX_BYTES = 1 << 20

Priority = Literal["urgent", "high", "normal", "low"]


def _duration(value: object) -> object:
    """Returns the seconds of a duration such as `15m`. Pydantic parses other values: numbers of seconds, ISO 8601."""
    seconds = parse_duration(value, fractions=True) if isinstance(value, str) else None
    return value if seconds is None else seconds


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(), le=timedelta(days=3650))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Kind(_Strict):
    """Either one priority for all items of a kind, or one for each priority of the source."""

    priority: Priority | None = None
    priorities: dict[Priority, Priority] = {}


class PolicyFile(_Strict):
    """The differences from today's policy; all fields are optional."""

    targets: dict[Priority, Duration] = {}
    kinds: dict[str, Kind] = {}
    order: list[Literal["band", "blocking", "due", "created"]] = []
    overdue_raises: bool = True

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: dict[str, Kind]) -> dict[str, Kind]:
        for name in value:
            if name not in KINDS:
                raise ValueError(f"{name} is no kind; they are {', '.join(sorted(KINDS))}")
        return value

    @field_validator("order")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a criterion is named twice")
        return value

    def over(self, today: Policy) -> Policy:
        """Returns `today` with the differences of this file. Criteria that `order` omits follow in today's order."""
        targets: dict[str, int] = {name: int(target.total_seconds() * SECOND) for name, target in self.targets.items()}
        return Policy(
            {**today.targets, **targets},
            {name: {str(source): str(replacement) for source, replacement in kind.priorities.items()}
             | ({"*": kind.priority} if kind.priority else {}) for name, kind in self.kinds.items()},
            (*self.order, *(name for name in CRITERIA if name not in self.order)), self.overdue_raises,
        )


def load(path: Path) -> PolicyFile:
    """Reads a policy file. Raises UserError with the reason if it is invalid."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(raw) > _MAX_BYTES:
        raise UserError(f"{path} is too large for a policy")
    try:
        content: Any = json.loads(raw) if path.suffix == ".json" else tomllib.loads(raw.decode())
        return PolicyFile.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        raise UserError(f"{path}: {'; '.join(problems)}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
