"""State of a stack draft and of its review item (CONTRACT §2, A16)."""

from __future__ import annotations

from schemas.log import Event
from schemas.views import DraftEditor, DraftRow, ItemRow, Stamp
from streams.core.domain import items
from streams.core.domain.event_types import EVENT_RULES

__all__ = ["apply_edit", "derive_target", "draft_users", "update_review"]

_NEVER = Stamp(-1, "")  # older than any event
MAX_EDITORS = 50  # the newest editors; bounds the row


def apply_edit(draft: DraftRow, event: Event, stamp: Stamp) -> None:
    """Updates the draft row: editors, times of the newest edits, and each field by the newest event that names it."""
    data, time = event.data, event.time
    for name, value in (("title", data.title), ("cluster", data.cluster), ("stack", data.stack),
                        ("owner", data.owner_user_id)):
        if value is not None and stamp > draft.stamps.get(name, _NEVER):
            setattr(draft, name, value)
            draft.stamps[name] = stamp
    if event.type != "draft.edited" or data.editor is None:
        draft.done_at = max(draft.done_at, time)
        return
    draft.touched_at = max(draft.touched_at, time)
    if data.editor.type == "ai":
        draft.ai_at = max(draft.ai_at, time)
    _upsert_editor(draft, DraftEditor(data.editor.type, data.editor.id, data.editor.name, time))


def _upsert_editor(draft: DraftRow, editor: DraftEditor) -> None:
    known = next((other for other in draft.editors if (other.type, other.id) == (editor.type, editor.id)), None)
    if known is None:
        draft.editors.append(editor)
    elif known.at < editor.at:
        known.at, known.name = editor.at, editor.name or known.name
    draft.editors.sort(key=lambda other: (-other.at, other.type, other.id))
    del draft.editors[MAX_EDITORS:]


def update_review(row: ItemRow, event: Event, stamp: Stamp) -> None:
    """Updates the review item: an AI's edit opens it; a user's edit, a commit or a discard closes it."""
    editor = event.data.editor
    if event.type == "draft.edited" and editor is not None and editor.type == "ai":
        items.record_open(row, event.data, stamp)
        return
    by = editor.id if editor is not None else event.data.by_user_id
    items.record_close(row, stamp, EVENT_RULES[event.type].action, by)


def derive_target(row: ItemRow, draft: DraftRow) -> None:
    """Sets the target of the review item: the owner, else the last user who edited the draft, else the target that the
    AI's edit names."""
    last_user = next((editor.id for editor in draft.editors if editor.type == "user"), None)
    if draft.owner or last_user:
        row.data.target_user_id, row.data.target_role = draft.owner or last_user, None


def draft_users(draft: DraftRow) -> set[str]:
    """Returns the users whose list of recent drafts has this draft: its owner and the users who edited it."""
    editors = {editor.id for editor in draft.editors if editor.type == "user"}
    return editors | {draft.owner} if draft.owner else editors
