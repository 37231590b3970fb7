"""`attn rank-report` with decisions: time that items waited for their decision, by band and position."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.examples import law
from support.fold.decision_play import STEPS, WS, Play
from support.fold.fold_driver import NOON, Folding, event
from support.processes.cli import attn_here

from ops.cli.commands.records.rank_report import _show
from ops.cli.rank_report.placements import placements
from ops.cli.rank_report.policy import Policy, due_of, policy_rank_key
from ops.cli.rank_report.replay import replay
from ops.cli.rank_report.statistics import compare
from schemas.facts import Fact, decode_fact
from schemas.log import BatchAnswer, Decide, DecideMany, Report, TakeBack
from schemas.scalars import MINUTE
from schemas.views import ItemRow
from streams.core.config import FoldConfig
from streams.core.domain.keys import item_id
from streams.core.domain.questions import question_digest, shown_ask
from streams.core.domain.rank import rank_key

TODAY = Policy(FoldConfig().targets)
OPTIONS = [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]
step = st.sampled_from(sorted(STEPS)).flatmap(lambda name: st.tuples(
    st.just(name), st.tuples(*(st.integers(0, most) for most in STEPS[name]))))


def asks(subject: str, minutes: float, **data: Any) -> Any:
    ask = {"options": OPTIONS, **data.pop("ask", {})}
    return event("waitpoint.created", subject, minutes, **{"title": "T", "ask": ask, "priority": "high", **data})


def digest(opening: Any) -> str:
    row = ItemRow(id="", ws=opening.ws, kind="waitpoint", source_id=opening.subject, source=opening.source,
                  data=opening.data)
    return question_digest(row, shown_ask(opening.data.ask, "waitpoint"))


def command(number: int, minutes: float, user: str = "ann") -> dict[str, Any]:
    return {"ws": "ws", "id": f"c{number}", "time": NOON + int(minutes * MINUTE), "user": user, "roles": ("OWNER",),
            "edge": "e"}


def decides(number: int, minutes: float, opening: Any, option: str = "yes", user: str = "ann") -> Decide:
    return Decide(**command(number, minutes, user), item=item_id("ws", "waitpoint", opening.subject), option=option,
                  digest=digest(opening), role="OWNER")


def test_waiting_ends_with_the_decision_and_not_with_its_outcome() -> None:
    first, second, third = asks("a", 0), asks("b", 5, priority="low"), asks("c", 6, priority="low")
    entries = [
        first, second, third, decides(1, 10, first), decides(2, 20, second), event("waitpoint.approved", "a", 22),
        event("waitpoint.approved", "c", 30), event("message.posted", "m", 31, title="T")]
    past = replay(entries, FoldConfig())
    assert past.decided == {"ws": {(item_id("ws", "waitpoint", "a"), NOON + 10 * MINUTE),
                                   (item_id("ws", "waitpoint", "b"), NOON + 20 * MINUTE)}}
    report = compare(past.changes, TODAY, TODAY, NOON + 31 * MINUTE, past.decided)
    assert (report["all"]["stays"], report["all"]["decided"]) == (3, 2)
    assert report["kinds"]["waitpoint"]["seconds_until_decided"] == {"p50": 600, "p90": 900}
    wait = {"decided": 1, "seconds_until_decided": {"p50": 600, "p90": 600}, "position": {"p50": 1, "p90": 1}}
    assert report["decisions"]["today"]["bands"] == {
        "high": wait, "low": {**wait, "seconds_until_decided": {"p50": 900, "p90": 900}}}
    assert list(report["decisions"]["today"]["positions"]) == ["1"]
    assert report["decisions"]["today"] == report["decisions"]["policy"]


def test_a_policy_changes_band_and_position_at_the_decision_and_not_the_wait() -> None:
    plain = [asks(f"p{number}", 0) for number in range(4)]
    urgent = asks("u", 1, priority="low")
    past = replay([*plain, urgent, decides(1, 30, urgent), event("message.posted", "m", 31, title="T")], FoldConfig())
    policy = Policy(TODAY.targets, {"waitpoint": {"low": "urgent"}})
    report = compare(past.changes, TODAY, policy, NOON + 31 * MINUTE, past.decided)["decisions"]
    assert list(report["today"]["bands"]) == ["low"]
    assert list(report["policy"]["bands"]) == ["urgent"]
    assert (list(report["today"]["positions"]), list(report["policy"]["positions"])) == (["4-10"], ["1"])
    assert report["today"]["positions"]["4-10"]["position"] == {"p50": 5, "p90": 5}
    assert report["today"]["positions"]["4-10"]["seconds_until_decided"] == {"p50": 29 * 60, "p90": 29 * 60}


def test_a_refused_and_an_unconfirmed_decision_wait_again_from_the_time_they_came_back() -> None:
    refused, silent = asks("r", 0), asks("s", 0)
    entries = [refused, silent, decides(1, 10, refused), decides(2, 10, silent),
               event("decision.refused", "r", 12, reason="quota"), decides(3, 20, refused, "no"),
               event("message.posted", "m", 60, title="T")]
    past = replay(entries, FoldConfig())
    stays = {(stay.item, (stay.start - NOON) // MINUTE): stay for stay in placements(past.changes["ws"], TODAY,
                                                                                  NOON + 60 * MINUTE)}
    refused_id, silent_id = item_id("ws", "waitpoint", "r"), item_id("ws", "waitpoint", "s")
    assert stays[refused_id, 12].length == 8 * MINUTE
    confirm = NOON + 10 * MINUTE + FoldConfig().undo + FoldConfig().confirm
    (back,) = [stay for (item, start), stay in stays.items() if item == silent_id and start > 0]
    assert back.start == confirm, "the timer runs at its own time, not at the time of the next event"


def test_commands_for_many_and_reports_are_replayed() -> None:
    asked = [asks(name, 0) for name in "ab"]
    ids = [item_id("ws", "waitpoint", name) for name in "ab"]
    many = DecideMany(**command(1, 10), answers=tuple(BatchAnswer(item, 12345) for item in ids), option="yes",
                      role="OWNER")
    later = event("message.posted", "m", 60, title="T")
    past = replay([*asked, many, TakeBack(**command(2, 10.05), item=ids[0]), later], FoldConfig())
    assert past.decided == {"ws": {(item, NOON + 10 * MINUTE) for item in ids}}
    last = {item: ranked for _, item, ranked in past.changes["ws"]}
    assert last[ids[0]] is not None, "the decision was undone"
    made = next(fact.decision for fact in _facts([asked[0], decides(1, 10, asked[0])]) if fact.type == "decision.made")
    past = replay([asked[0], decides(1, 10, asked[0]),
                   Report("ws", "r", NOON + 20 * MINUTE, str(made), "undeliverable", "gone")], FoldConfig())
    assert past.changes["ws"][-1][0] == NOON + 20 * MINUTE
    assert past.changes["ws"][-1][2] is not None


def _facts(entries: list[Any]) -> list[Fact]:
    folding = Folding()
    for entry in entries:
        folding.pack(entry, clock=(entry.time - NOON) / MINUTE)
    return [fact for fact in folding.facts if isinstance(fact, Fact)]


def _with_revisions_of(play: Play, entry: Any) -> Any:
    """Returns the entry with the item revisions of this log, which differ because this log has ticks."""
    if not isinstance(entry, DecideMany):
        return entry
    revisions = {row.id: row.rev for row in play.rows(ItemRow)}
    return msgspec.structs.replace(entry, answers=tuple(
        msgspec.structs.replace(answer, rev=revisions.get(answer.item, answer.rev)) for answer in entry.answers))


@law(60, suppress_health_check=list(HealthCheck))
@given(st.lists(step, max_size=30).map(lambda script: [("open", (0, 0, 0, 0)), *script]))
def test_a_replay_of_questions_equals_the_fold(script: list[Any]) -> None:
    """A replay and a fold with a worker's ticks end with the same list and the same decisions. Each entry has its own
    pack."""
    play, calm = Play(), Play()
    for name, numbers in script:
        # revision 0: a replay has other revisions, so an outdated one would be refused in one of the two only
        if name == "many":
            play.step(name, (*numbers[:-1], 0))
        elif name != "late":  # the log is in the order of its times
            play.step(name, numbers)
    entries = [entry for _, entry in play.entries if entry is not None]
    past = replay(entries, FoldConfig())
    for entry in entries:
        while (due := calm.worker.fold.next_timer()) is not None and due < entry.time:
            calm.clock = due
            calm._append()
        calm.clock = entry.time
        calm._append(_with_revisions_of(calm, entry))
    last = {item: ranked for _, item, ranked in past.changes.get(WS, [])}
    now = sorted((ranked for ranked in last.values() if ranked is not None),
                 key=lambda ranked: policy_rank_key(ranked, TODAY, due_of(ranked, TODAY) <= calm.clock))
    listed = sorted((row for row in calm.rows(ItemRow) if row.is_listed), key=rank_key)
    assert [ranked.item for ranked in now] == [row.id for row in listed]
    made = {(fact.item, fact.time) for fact in map(decode_fact, calm.worker.facts)
            if isinstance(fact, Fact) and fact.type == "decision.made" and fact.actor}
    assert past.decided.get(WS, set()) == made


def test_the_command_shows_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording holds source events only, so this test renders a report that has decisions."""
    first = asks("a", 0)
    past = replay([first, decides(1, 10, first), event("message.posted", "m", 50, title="T")], FoldConfig())
    flat = Policy(TODAY.targets, {"waitpoint": {"*": "low"}})
    report = compare(past.changes, TODAY, flat, NOON + 50 * MINUTE, past.decided)
    _show({"events": 3, "since": "x", "until": "y", **report})
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("1 of these times ended with a decision", "band high │ 1 → –", "band low │ – → 1", "10.0 m"):
        assert part in shown, shown
    recording, policy = tmp_path / "past.jsonl.gz", tmp_path / "p.toml"
    policy.write_text('[kinds.message]\npriority = "urgent"')
    events = (("waitpoint.created", {"title": "T", "ask": {"options": OPTIONS, "reply": {"token": "secret"}}}),
              ("waitpoint.approved", {}))
    recording.write_bytes(gzip.compress(b"\n".join(orjson.dumps({"topic": "waitpoints", "value": {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": kind, "subject": "s",
        "time": f"2026-05-20T08:0{number}:00Z", "workspaceid": "ws", "data": data,
    }}) for number, (kind, data) in enumerate(events))))
    assert attn_here("rank-report", "--policy", str(policy), "--json", str(recording)) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["all"]["stays"], output["all"]["decided"], output["decisions"]["today"]) == (
        1, 0, {"bands": {}, "positions": {}})
