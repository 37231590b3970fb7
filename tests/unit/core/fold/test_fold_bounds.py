"""Law 7 in the fold: the size of rows depends on current items, not on past ones."""

from __future__ import annotations

from support.fold.fold_driver import NOON, Folding, event

from schemas.log import Dismiss
from schemas.scalars import DAY, MINUTE, parse_timestamp
from schemas.views import ItemRow, MarkRow
from streams.core.config import FoldConfig

RULES = FoldConfig(retention=MINUTE, dedupe=MINUTE, activity_window=MINUTE)
FAR = "2190-01-01T00:00:00Z"


def dismiss(number: int, item: str, until: int | None) -> Dismiss:
    return Dismiss(ws="ws", id=f"c{number}", time=NOON, user="ann", roles=("MEMBER",), item=item, until=until)


def test_superseded_proofs_are_deleted_long_before_they_would_expire() -> None:
    view = Folding(RULES)
    for minute in range(100):
        view.pack(event("proof.attached", f"p{minute}", minute, case_id="c", expires_at=FAR), clock=minute)
    assert len(view.all(ItemRow)) < 5, "99 of the 100 proofs are superseded"


def test_a_proof_that_no_longer_expires_is_deleted() -> None:
    view = Folding(FoldConfig(retention=MINUTE, dedupe=MINUTE, proof_window=200 * 366 * DAY))
    view.pack(event("proof.attached", expires_at=FAR))
    assert view.items("unread")
    view.pack(event("proof.attached", minutes=1), clock=1)
    assert not view.items()
    view.pack(clock=3)
    assert not view.all(ItemRow)


def test_an_incident_undone_by_late_events_is_deleted() -> None:
    view = Folding(RULES)
    run = {"pipeline": "p", "title": "T", "due_at": FAR}
    view.pack(event("run.failed", "a", 0, cluster="x", **run), event("run.failed", "b", 2, cluster="y", **run), clock=2)
    assert view.items("unread")
    view.pack(event("run.retried", "a", 1), event("run.retried", "b", 3), clock=3)
    assert {row.kind for row in view.items()} == {"failed_run"}
    view.pack(clock=5)
    assert not view.all(ItemRow)


def test_a_mark_is_deleted_with_its_item_despite_a_long_dismissal() -> None:
    view = Folding(RULES)
    for minute in range(100):
        view.pack(event("message.posted", f"m{minute}", minute, title="T"), clock=minute)
        view.pack(dismiss(minute, view.item("message", f"m{minute}").id, parse_timestamp(FAR)),
                  event("message.withdrawn", f"m{minute}", minute + 0.5), clock=minute + 0.5)
    assert len(view.all(ItemRow)) < 5
    assert len(view.all(MarkRow)) < 5


def test_a_long_snooze_holds_while_its_item_waits_and_ends_in_time() -> None:
    view = Folding(RULES)
    view.pack(event("message.posted", title="T"))
    view.pack(dismiss(0, view.item("message").id, NOON + 100 * MINUTE))
    for half in range(1, 200):
        view.pack(clock=half / 2)
        assert view.all(MarkRow), half / 2
    assert view.fold.next_timer() == NOON + 100 * MINUTE
    view.pack(clock=100)
    assert not view.all(MarkRow)


def test_a_subject_that_returns_after_the_retention_is_not_dismissed() -> None:
    view = Folding(RULES)
    view.pack(event("message.posted", title="T"))
    view.pack(dismiss(0, view.item("message").id, None))
    view.pack(event("message.withdrawn", minutes=0.9), clock=0.9)
    for clock in (1.0, 1.5):
        view.pack(clock=clock)
        assert view.all(MarkRow), "the item exists, and is listed among the dismissed ones"
    view.pack(clock=1.91)
    assert not view.all(ItemRow)
    assert not view.all(MarkRow)
    view.pack(event("message.posted", minutes=1.95, title="T"), clock=1.95)
    assert view.items("unread")


def test_a_mark_that_no_longer_applies_is_deleted() -> None:
    view = Folding(RULES)
    view.pack(event("message.posted", title="T"))
    view.pack(dismiss(0, view.item("message").id, None))
    view.pack(event("message.withdrawn", minutes=0.2), event("message.posted", minutes=0.3, title="T"), clock=0.3)
    view.pack(clock=1)
    assert view.items("unread")
    assert not view.all(MarkRow)
