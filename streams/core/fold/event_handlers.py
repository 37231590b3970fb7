"""Handlers of source events: each changes rows and fills one fact. `HANDLERS` maps event types to handlers."""

from __future__ import annotations

from collections.abc import Callable

from schemas.facts import Fact
from schemas.log import Event
from schemas.views import DraftRow, ItemRow, ProofsRow, Stamp
from streams.core.domain import drafts, items, periods, proofs, questions
from streams.core.domain.event_types import ACTIVITY_COUNTERS, EVENT_RULES, RESOLVED_MANUALLY
from streams.core.domain.keys import draft_key, event_name, item_id, item_key, proofs_key
from streams.core.domain.proofs import proof_expiring_fact
from streams.core.fold import activity, incident_groups
from streams.core.fold.context import FoldContext

__all__ = ["get_or_create_item", "handle_event"]


def handle_event(context: FoldContext, event: Event, digest: bytes) -> None:
    """Applies an event that is not a repeat: changes its rows, then emits its fact. `digest`: the event's digest."""
    data = event.data
    fact = Fact(
        ws=event.ws, pos=0, index=0, event_id=event_name(event.source, event.id), time=event.time, type=event.type,
        subject=event.subject, at=context.log_clock, state=data.state, proof_id=data.proof_id, task_id=data.task_id,
    )
    HANDLERS.get(event.type, _handle_item_event)(context, event, Stamp(event.time, digest.hex()), fact)
    context.emit(fact)


def get_or_create_item(context: FoldContext, ws: str, kind: str, source_id: str) -> tuple[bytes, ItemRow]:
    """Returns key and row of the item of a source; a new hidden row if there is none."""
    item = item_id(ws, kind, source_id)
    key = item_key(item)
    row = context.state.item(key)
    return key, row if row is not None else ItemRow(id=item, ws=ws, kind=kind, source_id=source_id)


def _handle_item_event(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Opens, updates or closes the item of the event's subject, as EVENT_RULES says."""
    rule = EVENT_RULES[event.type]
    key, row = get_or_create_item(context, event.ws, rule.kind, event.subject)
    was_open = row.is_pending
    if rule.effect == "open":
        items.record_open(row, event.data, stamp)
    elif rule.effect == "update":
        items.update(row, event.data, event.cleared, stamp)
    elif rule.effect == "close":
        items.record_close(row, stamp, event.data.action or rule.action, event.data.by_user_id)
    questions.set_source(row, event.source, stamp, context.config)
    _update_item(context, key, row, event)
    _fill_fact(fact, event, row, was_open)
    if event.type in ACTIVITY_COUNTERS:
        activity.add_activity(context, row, event, stamp, fact.actor)


def _update_item(context: FoldContext, key: bytes, row: ItemRow, event: Event) -> None:
    """Derives the item's state and stores the row; updates its group and its activity rows."""
    row.updated_at = max(row.updated_at, event.time)
    row.touched = context.log_clock
    before = row.question
    items.derive_state(row, context.log_clock, context.config)
    row.rev = context.revision
    if row.question is not None or before is not None:
        context.note_question(row, before)
    if row.kind == "failed_run":
        incident_groups.sync_group(context, row)
    context.state.put(key, row)
    if row.done:
        activity.sync_activity(context, row)


def _fill_fact(fact: Fact, event: Event, row: ItemRow, was_open: bool) -> None:
    """Fills the fact's fields about the item: from the event's data, else from the item's data.

    The fact has no item id and no priority if the item is hidden and was hidden before (no opening event has arrived,
    or a proof waits for its time): no reader may see that item. `was_open`: before this event.
    """
    data, named, shown = event.data, event.data, row.data
    fact.item, fact.kind, fact.priority = row.id, row.kind, row.priority
    fact.target_user_id, fact.target_role = _fact_targets(event, row)
    if (fact.target_user_id, fact.target_role) != (row.target_user_id, row.target_role):
        if row.is_pending != was_open:  # an opening or close: the item's targets and texts
            fact.target_user_id, fact.target_role, named = row.target_user_id, row.target_role, shown
        else:  # the item's texts are for other readers
            fact.item = fact.kind = fact.priority = None
            shown = named
    if row.state == "hidden" and not was_open:
        fact.item = fact.priority = None
        fact.kind = row.kind if row.base is None else None
    fact.title = named.title or shown.title
    fact.cluster = named.cluster or shown.cluster
    fact.stack = named.stack or shown.stack
    fact.case_id = data.case_id or shown.case_id  # the history of a case has each event that names it
    fact.session_id = named.session_id or shown.session_id
    fact.actor = data.by_user_id or (data.sender.id if data.sender is not None else None)
    fact.opened = row.is_pending and not was_open and row.kind != "proof_expiring"  # a proof has its own
    if was_open and not row.is_pending:
        # A proof may have expired before its item opened by timer: the row is hidden and has no resolved_action then.
        closing_action = row.closed.action if row.closed is not None else None
        fact.resolved_action = row.resolved_action or closing_action or RESOLVED_MANUALLY
        fact.seconds_open = items.seconds_open(row, event.time)
    elif not row.is_pending and row.closed is not None and row.closed.time == event.time:
        fact.resolved_action = row.closed.action or RESOLVED_MANUALLY


def _fact_targets(event: Event, row: ItemRow) -> tuple[str | None, str | None]:
    """Returns the targets that decide who may read the fact.

    These are the item's targets, with two exceptions (decision 0041). An opening or update that names targets keeps
    them: it may be older than the item's data, and its texts were written for its own targets. An event whose item has
    no known targets has its own. A draft review always has the draft's owner or last editor as target
    (streams.core.domain.drafts); if neither is known, the target is the user who caused the event.
    """
    data, known = event.data, (row.target_user_id, row.target_role)
    own = (data.target_user_id, data.target_role)
    opens = EVENT_RULES[event.type].effect in ("open", "update") and data.state in (None, "BLOCKED")
    if any(own) and opens and row.kind != "draft_review":
        return own
    if any(known) or row.base is not None:
        return known
    return (data.by_user_id, None) if row.kind == "draft_review" and not any(own) else own


def _handle_session_event(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Handles an event of a session. Its `data.session_id` defaults to the subject (CONTRACT §2)."""
    event.data.session_id = event.data.session_id or event.subject
    if EVENT_RULES[event.type].effect != "note":
        _handle_item_event(context, event, stamp, fact)
        return
    _, row = get_or_create_item(context, event.ws, EVENT_RULES[event.type].kind, event.subject)
    _fill_fact(fact, event, row, row.is_pending)
    fact.item = fact.kind = fact.priority = fact.resolved_action = None  # a started session waits for no user


def _handle_case_event(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Handles a state change of a case: `blocked_case` is open while the newest state is BLOCKED."""
    data = event.data
    data.case_id = data.case_id or event.subject
    key, row = get_or_create_item(context, event.ws, "blocked_case", event.subject)
    was_open = row.is_pending
    fact.stale = event.time < periods.newest_time(row.periods)
    if data.state == "BLOCKED":
        items.record_open(row, data, stamp)
    else:
        items.record_close(row, stamp, EVENT_RULES[event.type].action, data.by_user_id)
    questions.set_source(row, event.source, stamp, context.config)
    _update_item(context, key, row, event)
    _fill_fact(fact, event, row, was_open)
    if row.base is None:
        fact.item = fact.kind = fact.priority = fact.resolved_action = None


def _handle_draft_event(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Updates the draft and its review item."""
    key = draft_key(event.ws, event.subject)
    draft = context.state.get(key)
    if draft is None:
        draft = DraftRow(ws=event.ws, draft_id=event.subject)
    assert isinstance(draft, DraftRow)
    drafts.apply_edit(draft, event, stamp)
    draft.rev, draft.touched = context.revision, context.log_clock
    draft.wake = draft.wake or context.log_clock + context.config.retention
    context.state.put(key, draft)
    item, row = get_or_create_item(context, event.ws, "draft_review", event.subject)
    was_open = row.is_pending
    drafts.update_review(row, event, stamp)
    drafts.derive_target(row, draft)
    questions.set_source(row, event.source, stamp, context.config)
    _update_item(context, item, row, event)
    _fill_fact(fact, event, row, was_open)
    if event.data.editor is not None:
        fact.actor = event.data.editor.id


def _handle_proof_event(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Handles an attached or expired proof.

    An attached proof opens an item by timer before it expires, supersedes the older proofs of its case, and closes the
    item of a session that waits for a proof.
    """
    data = event.data
    key, row = get_or_create_item(context, event.ws, "proof_expiring", event.subject)
    if event.type == "proof.attached":
        items.set_opening_data(row, data, stamp)
        if row.base == stamp:
            row.superseded = None  # the proof belongs to this event's case now, if to any
            questions.set_source(row, event.source, stamp, context.config)
        if data.case_id is not None:
            _supersede_proofs(context, event, row)
    else:
        items.record_close(row, stamp, EVENT_RULES[event.type].action, data.by_user_id)
    was_open = row.is_pending
    _update_proof_item(context, key, row)
    _fill_fact(fact, event, row, was_open)
    if event.type == "proof.attached" and data.session_id is not None:
        _close_verification(context, event, stamp, fact)
    fact.proof_id = data.proof_id or event.subject


def _close_verification(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """Closes the `verifying_no_proof` item of the session. If it was open, the fact describes its close."""
    key, row = get_or_create_item(context, event.ws, "verifying_no_proof", event.data.session_id or "")
    was_open = row.is_pending
    items.record_close(row, stamp, "attached", event.data.by_user_id)
    _update_item(context, key, row, event)
    if was_open:
        _fill_fact(fact, event, row, was_open)
        fact.title = row.data.title  # the readers of the two items may differ
        fact.target_user_id, fact.target_role = row.target_user_id, row.target_role


def _supersede_proofs(context: FoldContext, event: Event, row: ItemRow) -> None:
    """Inserts the proof into its case. Sets `superseded` of the proofs whose next proof changed: the event's own and at
    most one other."""
    case = event.data.case_id
    key = proofs_key(event.ws, case or "")
    case_proofs = context.state.get(key)
    if case_proofs is None:
        case_proofs = ProofsRow(event.ws)
    assert isinstance(case_proofs, ProofsRow)
    for proof, superseded_at in proofs.insert_proof(case_proofs, event.subject, event.time):
        if proof == event.subject:
            other, older = None, row
        else:
            other, older = get_or_create_item(context, event.ws, "proof_expiring", proof)
        if older.data.case_id != case:
            continue  # another case received the proof later
        older.superseded = superseded_at
        if other is not None:
            _update_proof_item(context, other, older)
    case_proofs.touched = context.log_clock
    case_proofs.wake = case_proofs.wake or context.log_clock + context.config.retention
    context.state.put(key, case_proofs)


def _update_proof_item(context: FoldContext, key: bytes, row: ItemRow) -> None:
    """Derives the state of a proof's item, stores the row, and emits `proof.expiring` if the item opens now."""
    row.touched = context.log_clock
    row.rev = context.revision
    before = row.question
    opened = proofs.derive_proof_state(row, context.log_clock, context.config)
    context.note_question(row, before)
    context.state.put(key, row)
    if opened:
        context.emit(proof_expiring_fact(row, context.log_clock))


_Handler = Callable[[FoldContext, Event, Stamp, Fact], None]
_SESSION = ("started", "waiting", "resumed", "completed", "failed", "verifying")
_DRAFT = ("edited", "committed", "discarded")
HANDLERS: dict[str, _Handler] = {
    **{f"session.{verb}": _handle_session_event for verb in _SESSION},
    **{f"draft.{verb}": _handle_draft_event for verb in _DRAFT},
    "case.state_changed": _handle_case_event,
    "proof.attached": _handle_proof_event,
    "proof.expired": _handle_proof_event,
}
