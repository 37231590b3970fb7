"""`attn rank-report`: rank positions of items over time, compared with a list that is sorted again at every moment."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import sequences
from support.examples import law
from support.fold.fold_driver import NOON, Folding
from support.processes.cli import attn_here

from ops.cli.rank_report.placements import FIRST, ListChange, placements
from ops.cli.rank_report.policy import CRITERIA, Policy, RankedItem, due_of, policy_rank_key
from ops.cli.rank_report.policy_file import PolicyFile, load
from ops.cli.rank_report.replay import replay
from ops.cli.rank_report.statistics import compare
from ops.errors import UserError
from schemas.log import Event
from schemas.scalars import DAY, HOUR, MINUTE
from schemas.views import ItemRow, decode_row
from streams.core.config import FoldConfig
from streams.core.domain.rank import BANDS, rank_key
from streams.core.normalise import normalise

TODAY = Policy(FoldConfig().targets)
END = 100
TARGETS = st.fixed_dictionaries({name: st.integers(1, 60) for name in BANDS})
POLICIES = st.builds(
    Policy, TARGETS,
    st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from([*BANDS, "*"]), st.sampled_from(BANDS))),
    st.permutations(CRITERIA).map(tuple), st.booleans(),
)


@st.composite
def pasts(draw: Any) -> list[ListChange]:
    """Draws changes of a list: items open, change, leave and open again."""
    changes: list[ListChange] = []
    for number in range(draw(st.integers(1, 14))):
        item, kind = f"i{number}", draw(st.sampled_from("ab"))
        for time in sorted(draw(st.sets(st.integers(0, END), min_size=1, max_size=6))):
            leaves = draw(st.integers(0, 3)) == 0
            due = draw(st.one_of(st.none(), st.integers(0, END + 20)))
            changes.append((time, item, None if leaves else RankedItem(
                item, kind, draw(st.sampled_from(BANDS)), draw(st.booleans()), draw(st.integers(0, time)), due)))
    return changes


def expected(past: list[ListChange], policy: Policy, end: int) -> dict[tuple[str, int], list[int]]:
    """Reference for `placements`: sorts the list at every moment.
    Returns (item, start) -> [sum of positions over time, time among the first n for each n of FIRST]."""
    shown: dict[str, RankedItem | None] = {}
    starts: dict[str, int] = {}
    sums_of: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * (1 + len(FIRST)))
    by_time: dict[int, list[ListChange]] = defaultdict(list)
    for change in past:
        by_time[change[0]].append(change)
    for now in range(end):  # time advances by 1 unit
        for _, item, ranked in by_time[now]:
            shown[item] = ranked
            if ranked is None:
                starts.pop(item, None)
            else:
                starts.setdefault(item, now)
        listed = [ranked for ranked in shown.values() if ranked is not None]
        listed.sort(key=lambda ranked: policy_rank_key(ranked, policy, due_of(ranked, policy) <= now))
        for place, ranked in enumerate(listed, start=1):
            sums = sums_of[ranked.item, starts[ranked.item]]
            sums[0] += place
            for which, first in enumerate(FIRST, start=1):
                sums[which] += place <= first
    return dict(sums_of)


@given(pasts(), POLICIES)
@law(100)
def test_positions_equal_those_of_a_list_that_is_sorted_at_every_moment(past: list[ListChange], policy: Policy) -> None:
    stays = placements(past, policy, END)
    assert {(stay.item, stay.start): [stay.position_time, *stay.first] for stay in stays} == expected(past, policy, END)
    assert all(stay.length > 0 and (stay.seen is None) == (stay.first[-1] == 0) for stay in stays)


@given(pasts(), POLICIES, POLICIES)
@law(100)
def test_sums_of_positions_do_not_depend_on_the_policy(past: list[ListChange], first: Policy, other: Policy) -> None:
    """Positions are 1..n at every moment under any policy, so their sums over time do not depend on the policy."""
    both = [placements(past, policy, END) for policy in (first, other)]
    assert [(stay.item, stay.start, stay.end) for stay in both[0]] == [
        (stay.item, stay.start, stay.end) for stay in both[1]]
    for measure in (lambda stay: stay.position_time, *(lambda stay, n=n: stay.first[n] for n in range(len(FIRST)))):
        assert sum(map(measure, both[0])) == sum(map(measure, both[1]))


@given(pasts(), POLICIES)
@law(100)
def test_the_same_policy_changes_nothing(past: list[ListChange], policy: Policy) -> None:
    report = compare({"ws": past}, policy, policy, END)
    for group in (report["all"], *report["kinds"].values(), *report["priorities"].values()):
        assert group["today"] == group["policy"]
    assert sum(group["stays"] for group in report["kinds"].values()) == report["all"]["stays"]


@given(sequences(40))
@law(40)
def test_the_last_list_of_a_replay_equals_the_list_of_the_fold(lines: list[Any]) -> None:
    """The last list of the replay equals the list of the real fold, order included."""
    events = [normalise(line["topic"], orjson.dumps(line["value"])) for line in lines]
    past = replay(events, FoldConfig()).changes
    view = Folding()
    for event in sorted(events, key=lambda ranked: ranked.time):
        view.pack(event, clock=(event.time - NOON) / MINUTE)
    now = view.fold.position.clock
    for ws, changes in past.items():
        last = {item: ranked for _, item, ranked in sorted(changes, key=lambda change: change[0])}
        replayed = [ranked for ranked in last.values() if ranked is not None]
        replayed.sort(key=lambda ranked: policy_rank_key(ranked, TODAY, due_of(ranked, TODAY) <= now))
        rows = [row for row in map(_row, view.rows.items()) if row is not None and row.ws == ws and row.is_listed]
        assert [ranked.item for ranked in replayed] == [row.id for row in sorted(rows, key=rank_key)]


def _row(pair: tuple[bytes, bytes]) -> ItemRow | None:
    row = decode_row(*pair)
    return row if isinstance(row, ItemRow) else None


def test_positions_equal_those_computed_by_hand() -> None:
    def ranked(item: str, priority: str) -> RankedItem:
        return RankedItem(item, "message", priority, False, 0, None)

    past: list[ListChange] = [
        (0, "a", ranked("a", "normal")), (10 * MINUTE, "b", ranked("b", "high")), (20 * MINUTE, "b", None)]
    a, b = placements(past, TODAY, 30 * MINUTE)
    assert (a.length, a.position_time, a.first[0], a.seen, a.ended) == (30 * MINUTE, 40 * MINUTE, 20 * MINUTE, 0, False)
    assert (b.length, b.position_time, b.first[0], b.seen, b.ended) == (10 * MINUTE, 10 * MINUTE, 10 * MINUTE, 0, True)
    flat = Policy(TODAY.targets, {"message": {"*": "low"}})
    a, b = placements(past, flat, 30 * MINUTE)
    assert (a.position_time, b.position_time) == (30 * MINUTE, 20 * MINUTE)  # item a opened first


def test_policy_files(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("""
        order = ["blocking", "due"]
        overdue_raises = false
        [targets]
        normal = "2h"
        low = "1.5d"
        [kinds.escalation]
        priority = "high"
        [kinds.failed_run.priorities]
        normal = "low"
    """)
    policy = load(file).over(TODAY)
    assert policy.targets == {**TODAY.targets, "normal": 2 * HOUR, "low": 36 * HOUR}
    assert policy.order == ("blocking", "due", "band", "created")
    assert (policy.overdue_raises, TODAY.overdue_raises) == (False, True)
    assert [policy.priority("escalation", "low"), policy.priority("failed_run", "normal"),
            policy.priority("failed_run", "high"), policy.priority("message", "low")] == ["high", "low", "high", "low"]
    assert PolicyFile().over(TODAY) == TODAY
    same = tmp_path / "p.json"
    same.write_text(json.dumps({"targets": {"urgent": 3 * 86400}}))
    assert load(same).over(TODAY).targets["urgent"] == 3 * DAY
    for wrong, why in (
        ("targets = 1", "targets"), ('[targets]\nurgent = "soon"', "urgent"), ('[targets]\nurgent = "0s"', "urgent"),
        ("[kinds.nothing]", "nothing is no kind"), ('order = ["due", "due"]', "twice"), ("colour = 1", "colour"),
        ('[kinds.message]\npriority = "top"', "priority"), ("[", "p.toml"),
    ):
        file.write_text(wrong)
        with pytest.raises(UserError, match=why):
            load(file)
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "absent.toml")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, policy = tmp_path / "past.jsonl.gz", tmp_path / "p.toml"
    policy.write_text('[kinds.message]\npriority = "urgent"')

    def line(number: int, kind: str, topic: str, priority: str) -> bytes:
        time = f"2026-05-20T08:{number:02d}:00Z"
        return orjson.dumps({"topic": topic, "value": {
            "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": kind, "subject": f"s{number}",
            "time": time, "workspaceid": "ws", "data": {"title": "T", "priority": priority, "blocking": False}}})

    lines = [line(0, "escalation.opened", "escalations", "high"), line(1, "message.posted", "messages", "low"),
             line(11, "message.posted", "messages", "low"), b'{"topic": "messages", "value": {}}']
    recording.write_bytes(gzip.compress(b"\n".join([*lines, lines[1]])))
    def ask(*more: str) -> int:
        return attn_here("rank-report", "--policy", str(policy), *more, str(recording))

    assert ask("--json") == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert "invalid events skipped: 1" in output.err
    # the third message arrived at the end of the report, so it has no stay
    assert (report["events"], report["all"]["stays"]) == (4, 2)
    assert report["kinds"]["message"]["today"]["place"]["p50"] == 2
    assert report["kinds"]["message"]["policy"]["place"]["p50"] == 1
    assert report["kinds"]["escalation"]["policy"]["share_of_time"]["first_1"] == pytest.approx(1 / 11)
    assert ask() == 0
    shown = capsys.readouterr().out
    assert "escalation" in shown
    assert "2.0 → 1.0" in shown
    assert ask("--workspace", "none") == 1
    assert ask("--most", "2") == 1


def test_kinds_and_priorities_of_real_events_add_up() -> None:
    sample = Path(__file__).parents[3] / "data" / "incidents-sample.jsonl.gz"
    events: list[Event] = []
    with gzip.open(sample) as lines:
        for raw in lines:
            line = orjson.loads(raw)
            events.append(normalise(line["topic"], orjson.dumps(line["value"])))
    end = max(event.time for event in events)
    urgent = Policy(TODAY.targets, {"escalation": {"*": "urgent"}})
    report = compare(replay(events, FoldConfig()).changes, TODAY, urgent, end)
    assert report["all"]["stays"] > 1000
    for groups in (report["kinds"], report["priorities"]):
        assert sum(group["stays"] for group in groups.values()) == report["all"]["stays"]
    before, after = (report["kinds"]["escalation"][name]["place"]["p50"] for name in ("today", "policy"))
    assert after < before
    assert set(report["kinds"]) == {"escalation", "pending_action", "session_waiting"}
