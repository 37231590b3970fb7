"""Encodes rows as the JSON of each API dialect (CONTRACT §4, seeds). Fields without a value are omitted."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from api.contract.asking.question_json import DECIDER_ROLES, question_fields, raw_fragment
from schemas.log import NO_PAYLOAD
from schemas.scalars import DAY, HOUR, format_timestamp
from schemas.sources import is_link
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow
from streams.core.domain.rank import BANDS, NO_DUE, rank_reasons, rank_text, sort_key

__all__ = [
    "activity_entry", "ankra_item", "crewship_item", "draft", "preferences", "window_name", "zero_item",
]

_SESSIONS = ("session_waiting", "verifying_no_proof")  # kinds whose `source_id` is a session
_ZERO_KINDS = {"session_waiting": "ask_user"}
_DOT_SEGMENTS = {".", ".."}  # ids that no path can contain: clients drop these segments, even percent-encoded
_URGENCY = {"urgent": "high", "high": "high", "normal": "medium", "low": "low"}


def ankra_item(
    row: ItemRow, pinned: bool = False, mark: MarkRow | None = None, decider_roles: frozenset[str] = DECIDER_ROLES,
) -> bytes:
    """Returns an item of the ranked list: the fields of Crewship's dialect, its rank, and the fields of its kind.

    The list is sorted by `rank` as text, then by `id`. `pinned`: the reader pinned the cluster. `mark`: the reader's
    mark of a dismissed item. `decider_roles`: ATTN_DECIDER_ROLES.
    """
    data = row.data
    item = _crewship_fields(row, decider_roles)
    item |= {
        "band": BANDS[row.band], "overdue": row.overdue,
        "rank_reasons": rank_reasons(row, pinned), "rank": rank_text(sort_key(row, pinned)),
    }
    item |= _without_empty({
        "due_at": format_timestamp(row.due_at) if row.due_at != NO_DUE else None,
        "cluster": data.cluster, "stack": data.stack, "conversation_id": data.conversation_id,
        "case_id": _case_id(row), "case_title": data.case_title, "session_id": _session_id(row),
        "action_url": _action_url(row), "expires_at": _time_or_none(data.expires_at),
        "risk": data.risk, "reversible": data.reversible,
        "pipeline": data.pipeline, "step": data.step, "error": data.error, "incident_key": data.incident_key,
        "task_id": data.task_id, "proof_id": data.proof_id,
    })
    if data.steps is not None:
        auto = sum(step.mode == "auto" for step in data.steps)
        item["plan"] = {"auto": auto, "confirm": len(data.steps) - auto, "steps": data.steps}
    if data.editor is not None:
        item["editor"] = _without_empty({"type": data.editor.type, "id": data.editor.id, "name": data.editor.name})
    if row.kind == "incident":
        item |= {"clusters": row.clusters, "count": row.count, "members": row.members}
    if mark is not None and mark.until is not None:
        item["dismissed_until"] = format_timestamp(mark.until)
    return orjson.dumps(item, default=_struct_fields)


def crewship_item(row: ItemRow, decider_roles: frozenset[str] = DECIDER_ROLES) -> bytes:
    """Returns an item in Crewship's dialect, with its question if it asks."""
    return orjson.dumps(_crewship_fields(row, decider_roles))


def zero_item(row: ItemRow) -> dict[str, Any]:
    """Returns an item in Zero's dialect."""
    return _without_empty({
        "id": row.id, "kind": _ZERO_KINDS.get(row.kind, row.kind), "urgency": _URGENCY[row.priority],
        "case_id": _case_id(row), "case_title": row.data.case_title, "title": row.data.title,
        "description": row.data.body_md, "session_id": _session_id(row), "action_url": _action_url(row),
    })


def draft(row: DraftRow, user: str) -> dict[str, Any]:
    """Returns one of the recent drafts of `user`; `co_editors` are the other editors."""
    return _without_empty({
        "draft_id": row.draft_id, "cluster": row.cluster, "stack": row.stack, "title": row.title,
        "last_touched_at": format_timestamp(row.touched_at), "has_ai_edits": row.has_ai_edits,
    }) | {
        "co_editors": [
            _without_empty({"type": editor.type, "id": editor.id, "name": editor.name})
            for editor in row.editors if (editor.type, editor.id) != ("user", user)
        ],
    }


def preferences(row: PreferencesRow | None) -> dict[str, Any]:
    """Returns the preferences of a user; empty lists without a row."""
    if row is None:
        return {"pinned_clusters": [], "widgets": []}
    widgets = [{"id": widget.id, "visible": widget.visible} for widget in row.widgets]
    return {"pinned_clusters": row.pinned_clusters, "widgets": widgets}


def activity_entry(row: ActivityRow) -> dict[str, Any]:
    """Returns one entry of the recent activity."""
    return _without_empty({
        "type": row.type, "at": format_timestamp(row.at), "item": row.item, "kind": row.kind, "title": row.title,
        "cluster": row.cluster, "case_id": row.case_id, "session_id": row.session_id, "by_user_id": row.by,
    })


def window_name(us: int) -> str:
    """Returns a length of time in microseconds as `7d` or `24h`; a single day is `24h`."""
    return f"{us // DAY}d" if us % DAY == 0 and us > DAY else f"{us // HOUR}h"


def _crewship_fields(row: ItemRow, decider_roles: frozenset[str]) -> dict[str, Any]:
    data, sender = row.data, row.data.sender
    item: dict[str, Any] = {
        "id": row.id, "workspace_id": row.ws, "kind": row.kind, "source_id": row.source_id, "title": data.title,
        "state": row.state, "priority": row.priority, "blocking": row.blocking,
        "created_at": format_timestamp(row.created_at),
        "updated_at": format_timestamp(row.updated_at), "revision": row.rev,
    }
    item |= _without_empty({
        "target_user_id": row.target_user_id, "target_role": row.target_role, "body_md": data.body_md,
        "read_at": _time_or_none(row.read_at), "resolved_at": _time_or_none(row.resolved_at),
        "resolved_by_user_id": row.resolved_by, "resolved_action": row.resolved_action,
    })
    if sender is not None:
        item |= _without_empty({"sender_type": sender.type, "sender_id": sender.id, "sender_name": sender.name})
    if data.payload is not NO_PAYLOAD and (raw := bytes(data.payload)):
        item["payload"] = raw_fragment(raw)
    return item | question_fields(row, decider_roles) if row.question is not None else item


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _time_or_none(us: int | None) -> str | None:
    return format_timestamp(us) if us is not None else None


def _case_id(row: ItemRow) -> str | None:
    return row.data.case_id or (row.source_id if row.kind == "blocked_case" else None)


def _session_id(row: ItemRow) -> str | None:
    return row.data.session_id or (row.source_id if row.kind in _SESSIONS else None)


def _action_url(row: ItemRow) -> str | None:
    if row.data.action_url is not None and is_link(row.data.action_url):  # older rows may hold another one
        return row.data.action_url
    case, session = _case_id(row), _session_id(row)
    if case is None or case in _DOT_SEGMENTS:
        return None
    page = f"/cases/{quote(case, safe='')}"
    return page if session is None or session in _DOT_SEGMENTS else f"{page}/sessions/{quote(session, safe='')}"


def _struct_fields(value: Any) -> Any:
    """Returns the fields of a msgspec struct, which orjson does not encode itself."""
    return {name: getattr(value, name) for name in value.__struct_fields__}
