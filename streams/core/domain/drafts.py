"""Stack drafts: who worked on them, and when one waits for a review (CONTRACT §2, A16)."""

from __future__ import annotations

from schemas.log import Event
from schemas.views import DraftEditor, DraftRow, ItemRow, Stamp
from streams.core.domain import items
from streams.core.domain.event_types import EVENT_RULES

__all__ = ["apply_edit", "derive_target", "draft_users", "update_review"]

_NEVER = Stamp(-1, "")  # older than any event
MAX_EDITORS = 50  # the newest; a draft with more people is a document, not a draft


def apply_edit(draft: DraftRow, event: Event, stamp: Stamp) -> None:
    """The draft's own row: editors, newest edits, and its fields by the newest event that names them."""
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
    known = next((item for item in draft.editors if (item.type, item.id) == (editor.type, editor.id)), None)
    if known is None:
        draft.editors.append(editor)
    elif known.at < editor.at:
        known.at, known.name = editor.at, editor.name or known.name
    draft.editors.sort(key=lambda item: (-item.at, item.type, item.id))
    del draft.editors[MAX_EDITORS:]


def update_review(row: ItemRow, event: Event, stamp: Stamp) -> None:
    """The item: an AI's edit opens it; a person's edit, a commit or a discard closes it."""
    editor = event.data.editor
    if event.type == "draft.edited" and editor is not None and editor.type == "ai":
        items.record_open(row, event.data, stamp)
        return
    by = editor.id if editor is not None else event.data.by_user_id
    items.record_close(row, stamp, EVENT_RULES[event.type].action, by)


def derive_target(row: ItemRow, draft: DraftRow) -> None:
    """Whose review it is: the owner's, else the last person's who edited it, else whom the AI's edit names."""
    person = next((editor.id for editor in draft.editors if editor.type == "user"), None)
    if draft.owner or person:
        row.data.target_user_id, row.data.target_role = draft.owner or person, None


def draft_users(draft: DraftRow) -> set[str]:
    """Those whose recent drafts it is one of."""
    found = {editor.id for editor in draft.editors if editor.type == "user"}
    return found | {draft.owner} if draft.owner else found
