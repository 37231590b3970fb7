"""CloudEvent models of the source topics: one pydantic model per event type (CONTRACT §2). Unknown fields are ignored,
wrong types are errors.

`title` is required if the event opens an item. Models of types that always open one declare that. If it depends on the
data (an AI's edit, a blocked case), `streams.core.normalise` checks it. It also checks the size limits, which are
settings.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from schemas.asking.ask import Ask
from schemas.scalars import EMPTY_TO_NONE, ROLES, ClampedTimestamp, Id, OptionalId, Role, Timestamp, not_blank

__all__ = [
    "MAX_REPORT_REASON", "MAX_URL", "MODELS", "ROLES", "CloudEvent", "DecisionReportData", "EventData", "Role",
    "is_link",
]

MAX_URL = 2048  # characters of a link
MAX_REPORT_REASON = 1024  # characters
_ABSOLUTE = re.compile("https?://", re.IGNORECASE)


def is_link(url: str) -> bool:
    """Returns whether a page may render the text as a link: an absolute http(s) URL, or an absolute path.

    False for URLs that a browser reads differently from a person: with control characters, white space, format
    characters (which reverse text), a backslash (which browsers read as a slash), user information, or without a host.
    """
    if len(url) > MAX_URL or not url.isprintable() or " " in url or "\\" in url:
        return False
    if url.startswith("/"):
        return not url.startswith("//")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_absolute = _ABSOLUTE.match(url) is not None
    return is_absolute and bool(parts.hostname) and "@" not in parts.netloc and port != 0


def _usable_link(value: Any) -> Any:
    # Drops an unusable link instead of rejecting the event: users see an item without link, but not a rejected event.
    return None if isinstance(value, str) and not is_link(value) else value


Name = Annotated[str, StringConstraints(max_length=1024)]
Title = Annotated[str, AfterValidator(not_blank)]
OptionalUrl = Annotated[Annotated[str, StringConstraints(max_length=MAX_URL)] | None, BeforeValidator(_usable_link)]


class _Model(BaseModel):
    # Built at the first event of its type: all of them take 0.1 s of CPU, which each process would spend at its start.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)


class Sender(_Model):
    type: Name | None = None
    id: Name | None = None
    name: Name | None = None


class PlanStep(_Model):
    title: Name
    mode: Literal["auto", "confirm"]


class DraftEditor(_Model):
    type: Literal["user", "ai"]
    id: Id
    name: Name | None = None


class EventData(_Model):
    """Fields that every event type may have."""

    title: Title | None = None
    body_md: str | None = None
    priority: Annotated[Literal["low", "normal", "high", "urgent"] | None, EMPTY_TO_NONE] = None
    blocking: bool | None = None
    target_user_id: Id | None = None
    target_role: Role | None = None
    sender: Sender | None = None
    cluster: OptionalId = None
    stack: Name | None = None
    conversation_id: Name | None = None
    case_id: OptionalId = None
    case_title: Name | None = None
    session_id: OptionalId = None
    action_url: OptionalUrl = None
    due_at: ClampedTimestamp = None
    expires_at: ClampedTimestamp = None
    payload: dict[str, Any] | None = None
    by_user_id: OptionalId = None
    ask: Ask | None = None


class OpeningData(EventData):
    title: Title


class EscalationResolvedData(EventData):
    action: Annotated[Annotated[str, StringConstraints(min_length=1, max_length=128)] | None, EMPTY_TO_NONE] = None


class RunData(EventData):
    pipeline: Name | None = None
    step: Name | None = None
    error: str | None = None
    incident_key: OptionalId = None


class RunFailedData(RunData):
    title: Title


class PlanProposedData(OpeningData):
    steps: Annotated[list[PlanStep], Field(max_length=500)] | None = None


class ActionRequestedData(OpeningData):
    risk: Annotated[Literal["low", "medium", "high", "critical"] | None, EMPTY_TO_NONE] = None
    reversible: bool | None = None


class DraftData(EventData):
    owner_user_id: OptionalId = None


class DraftEditedData(DraftData):
    editor: DraftEditor


class CaseData(EventData):
    task_id: OptionalId = None
    proof_id: OptionalId = None


class CaseStateData(CaseData):
    state: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class CaseOpeningData(CaseData):
    title: Title


class DecisionReportData(_Model):
    """What became of a decision (CONTRACT §7). Without `decision`: the current one of the subject's item."""

    decision: Annotated[
        Annotated[str, StringConstraints(pattern=r"^dec_[0-9a-f]{32}$")] | None, EMPTY_TO_NONE] = None
    reason: Annotated[str | None, StringConstraints(max_length=MAX_REPORT_REASON), EMPTY_TO_NONE] = None
    error: Annotated[str | None, StringConstraints(max_length=MAX_REPORT_REASON), EMPTY_TO_NONE] = None  # as `reason`
    by_user_id: OptionalId = None


class CloudEvent(_Model):
    """CloudEvents 1.0 envelope with the extension attribute `workspaceid`; `time` and `subject` are required."""

    specversion: Literal["1.0"]
    id: Id
    source: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    type: str
    subject: Id
    time: Timestamp
    workspaceid: Id
    data: Any


def _model(event_type: str, data: type[BaseModel]) -> type[CloudEvent]:
    name = "".join(part.title() for part in event_type.replace("_", ".").split("."))
    body: dict[str, Any] = {
        "__annotations__": {"type": Literal[event_type], "data": data},
        "__module__": __name__,
        "__doc__": f"CloudEvent `{event_type}`.",
    }
    if not any(field.is_required() for field in data.model_fields.values()):
        # An event that closes needs no data. A factory, because an instance as default would build its model.
        defaults = {name: field.default for name, field in data.model_fields.items()}
        body["data"] = Field(default_factory=data, json_schema_extra={"default": defaults})
    return type(name, (CloudEvent,), body)


_DATA: dict[str, type[BaseModel]] = {
    "waitpoint.created": OpeningData,
    "waitpoint.approved": EventData,
    "waitpoint.rejected": EventData,
    "waitpoint.cancelled": EventData,
    "waitpoint.expired": EventData,
    "escalation.opened": OpeningData,
    "escalation.updated": EventData,
    "escalation.resolved": EscalationResolvedData,
    "run.failed": RunFailedData,
    "run.retried": RunData,
    "run.recovered": RunData,
    "run.cancelled": RunData,
    "message.posted": OpeningData,
    "message.withdrawn": EventData,
    "session.started": EventData,
    "session.waiting": OpeningData,
    "session.resumed": EventData,
    "session.completed": EventData,
    "session.failed": EventData,
    "plan.proposed": PlanProposedData,
    "plan.approved": EventData,
    "plan.rejected": EventData,
    "plan.superseded": EventData,
    "action.requested": ActionRequestedData,
    "action.confirmed": EventData,
    "action.declined": EventData,
    "action.expired": EventData,
    "draft.edited": DraftEditedData,
    "draft.committed": DraftData,
    "draft.discarded": DraftData,
    "case.state_changed": CaseStateData,
    "task.blocked": CaseOpeningData,
    "task.unblocked": CaseData,
    "session.verifying": CaseOpeningData,
    "proof.attached": CaseData,
    "proof.expired": CaseData,
    "decision.applied": DecisionReportData,
    "decision.refused": DecisionReportData,
}

MODELS: dict[str, type[CloudEvent]] = {event_type: _model(event_type, data) for event_type, data in _DATA.items()}
