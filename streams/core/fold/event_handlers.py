"""Source events: which rows each changes, and the fact it leaves. A handler a family of types, in one table."""

from __future__ import annotations

from collections.abc import Callable

from schemas.facts import Fact
from schemas.log import Event
from schemas.views import DraftRow, ItemRow, ProofsRow
from streams.core.domain import drafts, items, periods, proofs
from streams.core.domain.event_types import BY_HAND, COUNTED, RULES
from streams.core.domain.items import Stamp
from streams.core.domain.keys import draft_key, event_name, item_id, item_key, proofs_key
from streams.core.domain.proofs import expiring
from streams.core.fold import activity, incident_groups
from streams.core.fold.context import FoldContext

__all__ = ["apply", "item_of"]


def apply(context: FoldContext, event: Event, digest: bytes) -> None:
    """Folds an event that is not a repeat: rows, then its fact."""
    data = event.data
    fact = Fact(
        ws=event.ws, pos=0, index=0, event_id=event_name(event.source, event.id), time=event.time, type=event.type,
        subject=event.subject, at=context.log_clock, state=data.state, proof_id=data.proof_id, task_id=data.task_id,
    )
    HANDLERS.get(event.type, _plain)(context, event, (event.time, digest.hex()), fact)
    context.emit(fact)


def item_of(context: FoldContext, ws: str, kind: str, source_id: str) -> tuple[bytes, ItemRow]:
    """The row of a source, known or new."""
    item = item_id(ws, kind, source_id)
    key = item_key(item)
    row = context.state.item(key)
    return key, row if row is not None else ItemRow(id=item, ws=ws, kind=kind, source_id=source_id)


def _plain(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """One subject, one item: opened, updated or closed as the table says."""
    rule = RULES[event.type]
    key, row = item_of(context, event.ws, rule.kind, event.subject)
    was_open = row.open
    if rule.effect == "open":
        items.open_(row, event.data, stamp)
    elif rule.effect == "update":
        items.update(row, event.data, event.cleared, stamp)
    elif rule.effect == "close":
        items.close(row, stamp, event.data.action or rule.action, event.data.by_user_id)
    _settle(context, key, row, event)
    _tell(fact, event, row, was_open)
    if event.type in COUNTED:
        activity.count(context, row, event, stamp, fact.actor)


def _settle(context: FoldContext, key: bytes, row: ItemRow, event: Event) -> None:
    """Derives the row's state and stores it; groups and activity follow it."""
    row.updated_at = max(row.updated_at, event.time)
    row.touched = context.log_clock
    items.settle(row, context.log_clock, context.config)
    row.rev = context.revision
    if row.kind == "failed_run":
        incident_groups.follow(context, row)
    context.state.put(key, row)
    if row.done:
        activity.follow(context, row)


def _tell(fact: Fact, event: Event, row: ItemRow, was_open: bool) -> None:
    """Fills the fact's fields about the item: what the event names itself, else what the item shows.

    An item that was never shown (no opening has arrived yet, or a proof that waits for its time) gives the fact no id
    and no priority: nobody may see that item.
    """
    data, named, shown = event.data, event.data, row.data
    fact.item, fact.kind, fact.priority = row.id, row.kind, row.priority
    fact.target_user_id, fact.target_role = _addressed(event, row)
    if (fact.target_user_id, fact.target_role) != (row.target_user_id, row.target_role):
        if row.open != was_open:  # the fact counts the item as opened or closed: with its readers and its texts
            fact.target_user_id, fact.target_role, named = row.target_user_id, row.target_role, shown
        else:  # what the item shows is for other readers
            fact.item = fact.kind = fact.priority = None
            shown = named
    if row.state == "hidden" and not was_open:
        fact.item = fact.priority = None
        fact.kind = row.kind if row.base is None else None
    fact.title = named.title or shown.title
    fact.cluster = named.cluster or shown.cluster
    fact.stack = named.stack or shown.stack
    fact.case_id = data.case_id or shown.case_id  # a case's history has every event that names the case
    fact.session_id = named.session_id or shown.session_id
    fact.actor = data.by_user_id or (data.sender.id if data.sender is not None else None)
    fact.opened = row.open and not was_open and row.kind != "proof_expiring"  # that one has a fact of its own
    if was_open and not row.open:
        # A proof that had expired before its item opened by itself leaves none that is resolved, yet was how it ended.
        fact.resolved_action = row.resolved_action or (row.closed[2] if row.closed is not None else None) or BY_HAND
        fact.seconds_open = items.seconds_open(row, event.time)
    elif not row.open and row.closed is not None and row.closed[0] == event.time:
        fact.resolved_action = row.closed[2] or BY_HAND


def _addressed(event: Event, row: ItemRow) -> tuple[str | None, str | None]:
    """Returns the targets that decide who may read the fact.

    The item's targets, with two exceptions: an opening or update that names its own targets keeps them (it may be older
    than what the item shows, and its texts were written for them), and an event whose item has no known targets yet has
    its own. A draft's review always goes to the draft's owner or last editor (streams.core.domain.drafts); where
    neither is
    known, a draft's event is for the person who did it.
    """
    data, known = event.data, (row.target_user_id, row.target_role)
    own = (data.target_user_id, data.target_role)
    opens = RULES[event.type].effect in ("open", "update") and data.state in (None, "BLOCKED")
    if any(own) and opens and row.kind != "draft_review":
        return own
    if any(known) or row.base is not None:
        return known
    return (data.by_user_id, None) if row.kind == "draft_review" and not any(own) else own


def _session(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """`data.session_id` is the subject where it is not given (CONTRACT §2)."""
    event.data.session_id = event.data.session_id or event.subject
    if RULES[event.type].effect != "note":
        _plain(context, event, stamp, fact)
        return
    _, row = item_of(context, event.ws, RULES[event.type].kind, event.subject)
    _tell(fact, event, row, row.open)
    fact.item = fact.kind = fact.priority = fact.resolved_action = None  # it starts; nothing waits for anybody


def _case(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """`blocked_case` is open while the newest state is BLOCKED."""
    data = event.data
    data.case_id = data.case_id or event.subject
    key, row = item_of(context, event.ws, "blocked_case", event.subject)
    was_open = row.open
    fact.stale = event.time < periods.newest(row.periods)
    if data.state == "BLOCKED":
        items.open_(row, data, stamp)
    else:
        items.close(row, stamp, RULES[event.type].action, data.by_user_id)
    _settle(context, key, row, event)
    _tell(fact, event, row, was_open)
    if row.base is None:
        fact.item = fact.kind = fact.priority = fact.resolved_action = None


def _draft(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    key = draft_key(event.ws, event.subject)
    draft = context.state.get(key)
    if draft is None:
        draft = DraftRow(ws=event.ws, draft_id=event.subject)
    assert isinstance(draft, DraftRow)
    drafts.apply(draft, event, stamp)
    draft.rev, draft.touched = context.revision, context.log_clock
    draft.wake = draft.wake or context.log_clock + context.config.retention
    context.state.put(key, draft)
    item, row = item_of(context, event.ws, "draft_review", event.subject)
    was_open = row.open
    drafts.review(row, event, stamp)
    drafts.target(row, draft)
    _settle(context, item, row, event)
    _tell(fact, event, row, was_open)
    if event.data.editor is not None:
        fact.actor = event.data.editor.id


def _proof(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """A proof ends its session's wait for one, follows the case's older proofs, and will expire itself."""
    data = event.data
    key, row = item_of(context, event.ws, "proof_expiring", event.subject)
    if event.type == "proof.attached":
        items.show(row, data, stamp)
        if row.base == stamp:
            row.superseded = None  # it is of this event's case from now on, if of any
        if data.case_id is not None:
            _follow_case(context, event, row)
    else:
        items.close(row, stamp, RULES[event.type].action, data.by_user_id)
    was_open = row.open
    _settle_proof(context, key, row)
    _tell(fact, event, row, was_open)
    if event.type == "proof.attached" and data.session_id is not None:
        _verified(context, event, stamp, fact)
    fact.proof_id = data.proof_id or event.subject


def _verified(context: FoldContext, event: Event, stamp: Stamp, fact: Fact) -> None:
    """The session has its proof. If an item waited for it, the fact is that item's end."""
    key, row = item_of(context, event.ws, "verifying_no_proof", event.data.session_id or "")
    was_open = row.open
    items.close(row, stamp, "attached", event.data.by_user_id)
    _settle(context, key, row, event)
    if was_open:
        _tell(fact, event, row, was_open)
        fact.title = row.data.title  # readers of this item need not be those of the proof
        fact.target_user_id, fact.target_role = row.target_user_id, row.target_role


def _follow_case(context: FoldContext, event: Event, row: ItemRow) -> None:
    """Tells the proofs of the case which one came after them; one changed at most beside the event's own."""
    case = event.data.case_id
    key = proofs_key(event.ws, case or "")
    known = context.state.get(key)
    if known is None:
        known = ProofsRow(event.ws)
    assert isinstance(known, ProofsRow)
    for proof, after in proofs.attach(known, event.subject, event.time):
        other, older = (None, row) if proof == event.subject else item_of(context, event.ws, "proof_expiring", proof)
        if older.data.case_id != case:
            continue  # it was attached to another case since
        older.superseded = after
        if other is not None:
            _settle_proof(context, other, older)
    known.touched = context.log_clock
    known.wake = known.wake or context.log_clock + context.config.retention
    context.state.put(key, known)


def _settle_proof(context: FoldContext, key: bytes, row: ItemRow) -> None:
    row.touched = context.log_clock
    row.rev = context.revision
    opened = proofs.settle(row, context.log_clock, context.config)
    context.state.put(key, row)
    if opened:
        context.emit(expiring(row, context.log_clock))


_Handler = Callable[[FoldContext, Event, Stamp, Fact], None]
_SESSION = ("started", "waiting", "resumed", "completed", "failed", "verifying")
_DRAFT = ("edited", "committed", "discarded")
HANDLERS: dict[str, _Handler] = {
    **{f"session.{what}": _session for what in _SESSION},
    **{f"draft.{what}": _draft for what in _DRAFT},
    "case.state_changed": _case,
    "proof.attached": _proof,
    "proof.expired": _proof,
}
