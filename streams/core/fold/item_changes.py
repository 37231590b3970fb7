"""What handlers of commands, votes and reports share: access to an item, and storing it after a change."""

from __future__ import annotations

from schemas.log import Command
from schemas.views import ItemRow
from streams.core.domain import items, periods, questions
from streams.core.domain.keys import item_key
from streams.core.domain.visibility import can_see
from streams.core.fold import incident_groups
from streams.core.fold.context import FoldContext

__all__ = ["NOT_FOUND", "find_visible", "store_item"]

NOT_FOUND = {"error": "not found"}


def find_visible(context: FoldContext, command: Command, item: str) -> ItemRow | None:
    """Returns the item if the command's user may see it, else None (law 6)."""
    row = context.state.item(item_key(item))
    if row is None or row.ws != command.ws or row.state == "hidden":
        return None
    return row if can_see(row.target_user_id, row.target_role, command.user, frozenset(command.roles)) else None


def store_item(context: FoldContext, row: ItemRow, time: int) -> None:
    """Derives state and rank of a changed item, stores the row, and updates its group. `time`: of the change, in µs."""
    row.updated_at = max(row.updated_at, time)
    row.touched, row.rev = context.log_clock, context.revision
    before = row.question
    if row.kind not in ("incident", "proof_expiring"):
        items.derive_state(row, context.log_clock, context.config)
    else:
        answered = questions.restore_listed(row)
        if row.kind == "proof_expiring":
            _derive_proof(row)
        items.derive_question(row, answered, context.log_clock, context.config)
        if row.kind == "proof_expiring" or before is not None:
            items.derive_rank(row, context.log_clock, context.config)
    context.note_question(row, before)
    if row.kind == "failed_run":
        incident_groups.sync_group(context, row)
    context.state.put(item_key(row.id), row)


def _derive_proof(row: ItemRow) -> None:
    """Derives the state of a proof's item after a command.

    Unlike `proofs.derive_proof_state`, it never hides an item that a reader may have seen.
    """
    if periods.is_open(row.periods):
        row.created_at = max(row.created_at, periods.newest_opening(row.periods))
    elif row.closed is not None and row.is_open:
        items.resolve(row, row.closed)
