"""Clock of the fold, parts of large packs, restarts, and truncated logs (laws 1, 3, 7)."""

from itertools import count

import pytest
from support.fold.fold_driver import NOON, Folding, at, event

from schemas.facts import Fact, Outcome
from schemas.log import Dismiss, Pack, Restore, SetPreferences, SetState
from schemas.scalars import DAY, HOUR, MINUTE
from schemas.views import MarkRow, PreferencesRow
from streams.core.config import FoldConfig
from streams.core.fold.fold import MAX_PART_BYTES, POSITION_JUMP


def test_due_by_priority_and_overdue_by_tick() -> None:
    view = Folding()
    view.pack(*(event("task.blocked", priority, 0, title="T", priority=priority)
                for priority in ("urgent", "high", "normal", "low")))
    assert {row.source_id: row.due_at - NOON for row in view.listed()} == {
        "urgent": 15 * MINUTE, "high": HOUR, "normal": 8 * HOUR, "low": 3 * DAY}
    assert view.fold.next_timer() == NOON + 15 * MINUTE
    view.restart()
    view.pack(clock=60)
    assert {row.source_id: (row.band, row.overdue) for row in view.listed()} == {
        "urgent": (0, True), "high": (0, True), "normal": (2, False), "low": (3, False)}
    assert view.fold.next_timer() == NOON + 8 * HOUR


def test_a_message_without_a_question_is_never_due_and_last_in_its_band() -> None:
    view = Folding()
    view.pack(event("message.posted", "early", 0, title="T"), event("task.blocked", "task", 1, title="T"),
              event("message.posted", "due", 2, title="T", due_at=at(900)))
    assert [row.source_id for row in view.listed()] == ["task", "due", "early"]
    view.pack(clock=30 * 24 * 60 - 1)
    assert [row.overdue for row in view.listed() if row.source_id == "early"] == [False]
    with_target = Folding(FoldConfig(targets=FoldConfig().targets | {"message": HOUR}))
    with_target.pack(event("message.posted", "early", 0, title="T"))
    assert with_target.listed()[0].due_at == NOON + HOUR


def test_an_item_that_comes_late_is_overdue_at_once() -> None:
    view = Folding()
    view.pack(event("message.posted", title="T", due_at=at(-5)), clock=0)
    assert view.listed()[0].overdue


def test_a_mass_of_due_rows_is_woken_in_steps() -> None:
    view = Folding()
    view.pack(*(event("task.blocked", f"m{n}", 0, title="T") for n in range(2000)))
    view.pack(clock=9 * 60)
    overdue = sum(row.overdue for row in view.listed())
    assert 100 < overdue < 2000
    while (wake := view.fold.next_timer()) is not None and wake <= view.fold.context.log_clock:
        view.pack(clock=9 * 60)
    assert all(row.overdue for row in view.listed())


def test_resolved_rows_go_after_the_retention_and_a_late_repeat_stays_unknown() -> None:
    view = Folding(FoldConfig(retention=DAY, dedupe=2 * DAY))
    view.pack(event("message.posted", id="m", title="T"), event("message.withdrawn", minutes=1), clock=1)
    view.pack(clock=24 * 60)
    assert view.items("resolved")
    view.pack(clock=24 * 60 + 1)
    assert not view.items()
    view.pack(event("message.posted", id="m", title="T"), clock=24 * 60 + 2)
    assert not view.items()
    view.pack(clock=3 * 24 * 60)
    assert set(view.rows) == {b"~:0"}


def test_a_pack_that_changes_too_much_is_folded_in_parts() -> None:
    entries = [event("message.posted", f"m{n}", 0, title="T", body_md="b" * 60_000) for n in range(60)]
    view = Folding()
    view.pack(*entries)
    assert view.batches > 3
    assert len(view.listed()) == 60
    position = view.fold.position
    assert (position.next, position.part, position.shift) == (1, 0, view.batches - 1)
    ids = [(fact.pos, fact.index) for fact in view.facts]
    assert ids == sorted(set(ids))
    small = [event("waitpoint.created", f"w{n}", 0, title="T") for n in range(3)]
    grouped = Folding()  # the cut does not depend on other packs of the batch (law 1)
    for pack in ([*small], [*entries]):
        while not grouped.fold.apply(Pack(NOON, pack), grouped.fold.position.next):
            grouped.commit()
    grouped.commit()
    assert grouped.fold.position.shift == position.shift


def test_a_fold_continues_at_its_part_after_a_crash() -> None:
    entries = [event("message.posted", f"m{n}", 0, title="T", body_md="b" * 60_000) for n in range(40)]
    view = Folding()
    pack = Pack(NOON, entries)
    assert not view.fold.apply(pack, 0)
    view.commit()
    assert 0 < view.fold.position.part < 40
    view.restart()
    while not view.fold.apply(pack, 0):
        view.commit()
    view.commit()
    assert len(view.listed()) == 40
    assert sum(isinstance(fact, Fact) for fact in view.facts) == 40
    assert MAX_PART_BYTES > 60_000


def test_offsets_must_be_continuous() -> None:
    view = Folding()
    with pytest.raises(ValueError, match="expected offset 0, got 1"):
        view.fold.apply(Pack(NOON), 1)


def test_a_truncated_log_moves_the_position_by_the_jump() -> None:
    view = Folding()
    for _ in range(10):
        view.pack()
    before = view.fold.position.position
    assert view.fold.reconcile(10) is None
    message = view.fold.reconcile(7)
    assert message is not None
    assert "ends at offset 7" in message
    assert view.fold.position.next == 7
    assert view.fold.position.position == before + POSITION_JUMP
    assert view.fold.reconcile(7, incarnation=1) is not None
    assert view.fold.position.next == 7
    view.commit()
    assert view.fold.reconcile(7, incarnation=1) is None
    with pytest.raises(ValueError, match="begins at offset 9"):
        view.fold.reconcile(12, 1, log_start=9)


def test_a_fresh_view_begins_where_the_log_does() -> None:
    view = Folding()
    assert view.fold.reconcile(12, 3, log_start=5)
    assert (view.fold.position.next, view.fold.position.incarnation) == (5, 3)


_serial = count()


def command(kind: type, **given: object) -> object:
    common = {"ws": "ws", "id": f"c{next(_serial)}", "time": NOON + 10 * MINUTE, "user": "ann", "roles": ("MEMBER",)}
    return kind(**{**common, **given})


def outcome(view: Folding) -> tuple[int, bytes]:
    last = [fact for fact in view.facts if isinstance(fact, Outcome)][-1]
    return last.status, bytes(last.body)


def test_snooze_ends_by_tick_and_dismissal_ends_with_a_surge() -> None:
    view = Folding()
    view.pack(event("message.posted", title="T"))
    item = view.item("message").id
    view.pack(command(Dismiss, item=item, until=NOON + HOUR))
    assert outcome(view)[0] == 200
    [mark] = view.all(MarkRow)
    assert (mark.user, mark.surge, mark.until) == ("ann", view.item("message").surge, NOON + HOUR)
    view.restart()
    assert view.fold.next_timer() == NOON + HOUR
    view.pack(clock=60)
    assert not view.all(MarkRow)
    view.pack(command(Dismiss, item=item), clock=61)
    surge = view.item("message").surge
    view.pack(event("message.posted", minutes=3, title="T", priority="urgent"), clock=62)
    assert view.item("message").surge == surge + 1
    view.pack(command(Restore, item=item), clock=63)
    assert not view.all(MarkRow)


def test_a_command_on_an_invisible_item_is_404() -> None:
    view = Folding()
    view.pack(event("message.posted", title="T", target_role="OWNER"))
    item = view.item("message").id
    for kind, more in ((Dismiss, {"item": item}), (SetState, {"items": (item,), "state": "read"})):
        view.pack(command(kind, **more))
        assert outcome(view)[0] == 404
        view.pack(command(kind, **more, ws="other", roles=("OWNER",)))
        assert outcome(view)[0] == 404
    view.pack(command(SetState, items=(item,), state="read", roles=("OWNER",)))
    assert outcome(view) == (200, b'{"id":"%s","state":"read"}' % item.encode())
    assert view.item("message").state == "read"


def test_state_flips() -> None:
    view = Folding()
    view.pack(event("message.posted", "m", title="T"), event("waitpoint.created", "w", title="T"))
    message, waitpoint = view.item("message", "m").id, view.item("waitpoint", "w").id
    view.pack(command(SetState, items=(waitpoint,), state="resolved"))
    assert outcome(view)[0] == 409
    several = (message, waitpoint, "ibx_no")
    view.pack(command(SetState, items=several, state="resolved", resolved_action="ok", bulk=True))
    assert b'"updated":1,"skipped":1' in outcome(view)[1]
    row = view.item("message", "m")
    assert (row.state, row.resolved_action, row.resolved_by, row.resolved_at) == (
        "resolved", "ok", "ann", NOON + 10 * MINUTE)
    view.pack(command(SetState, items=(message,), state="unread"))
    row = view.item("message", "m")
    assert (row.state, row.resolved_at, row.read_at) == ("unread", None, None)
    view.pack(event("message.posted", "m", 5, title="older than the resolve"))
    assert view.item("message", "m").state == "unread"


def test_a_resolve_by_a_person_holds_against_older_openings() -> None:
    view = Folding()
    view.pack(event("message.posted", title="T"))
    view.pack(command(SetState, items=(view.item("message").id,), state="resolved"))
    view.pack(event("message.posted", minutes=9, title="before the resolve"))
    assert view.item("message").state == "resolved"
    view.pack(event("message.posted", minutes=11, title="after it"))
    assert view.item("message").state == "unread"


def test_preferences_replace_the_keys_they_name() -> None:
    view = Folding()
    view.pack(command(SetPreferences, pinned_clusters=["b", "a", "b"]))
    view.pack(command(SetPreferences, widgets=[]))
    [row] = view.all(PreferencesRow)
    assert row.pinned_clusters == ["b", "a"]
