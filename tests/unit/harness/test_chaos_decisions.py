"""The checks of decisions after chaos: each detects its fault, and a run without faults has no finding."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from support.fold.decision_play import STEPS, WS, Play
from support.model import Reader

from chaos.checks.decisions import LogReplay, answers_differ, decisions_of, effects_differ, records_differ
from chaos.checks.expected_fold import Refold
from chaos.workload.council import Answered
from chaos.workload.questions import PEOPLE, Questions
from chaos.workload.receiver import TOPICS, answer, refuses
from schemas.asking.decision_event import encode_decision
from schemas.asking.question import DecisionRow
from schemas.facts import Outcome
from schemas.log import Pack, encode_pack
from schemas.settings import Settings
from streams.core.normalise import normalise

SETTINGS = Settings(_env_file=None)
# Asks with their own options, because attn computes the digest of default options.
ASKS = range(10)


def record(offset: int, value: bytes) -> Any:
    return SimpleNamespace(offset=offset, key=None, value=value, timestamp=0, headers=[])


def random_play(seed: int, count: int) -> Play:
    """Returns random steps without those that the chaos run does not send. Most waits are short, otherwise every
    question expires."""
    rng, play_of_seed = random.Random(seed), Play()
    names = ("open", "update", "close", "late", "back", "report", "source", "tick", *["decide"] * 16)
    play_of_seed.step("open", (0, 0, 0, 0))
    for _ in range(count):
        name = rng.choice(names)
        numbers = [rng.choice((0, 0, 0, 0, 1, 1, 2, 3, 5)), *(rng.randint(0, limit) for limit in STEPS[name][1:])]
        if name in ("open", "update"):
            numbers[2] = rng.choice(ASKS)
        play_of_seed.step(name, numbers)
    return play_of_seed


@pytest.fixture(scope="module")
def play() -> Play:
    return random_play(12, 700)


@pytest.fixture
def fold(play: Play) -> Refold:
    refold = Refold(0, SETTINGS)
    refold.replay([record(offset, value) for offset, value in enumerate(play.worker.log)])
    return refold


def replayed(play: Play, fold: Refold, log: list[bytes] | None = None) -> list[str]:
    replay = LogReplay(SETTINGS, fold, [WS], {(WS, line["value"]["source"], line["value"]["id"]): line
                                              for line in play.lines})
    replay.replay([record(offset, value) for offset, value in enumerate(log or play.worker.log)])
    return replay.differences


def test_a_log_without_faults_equals_the_model(play: Play, fold: Refold) -> None:
    assert replayed(play, fold) == []
    assert Counter(outcome.status for outcome in play.outcomes).keys() >= {200, 201, 202, 403, 404, 409, 410, 412, 422}


@pytest.mark.parametrize("seed", range(12))
def test_the_same_entries_in_packs_of_any_size_equal_the_model(seed: int) -> None:
    """The log's clock moves once per pack: questions expire and decisions go out later. Events may arrive late."""
    rng, play = random.Random(seed), random_play(seed, 250)
    log: list[bytes] = []
    left = list(play.entries)
    while left:
        size = rng.randint(1, 12)
        log.append(encode_pack(Pack(left[:size][-1][0], [entry for _, entry in left[:size] if entry is not None])))
        del left[:size]
    refold = Refold(0, SETTINGS)
    refold.replay([record(offset, value) for offset, value in enumerate(log)])
    assert replayed(play, refold, log) == []


@pytest.mark.parametrize(("status", "as_if"), [(201, 409), (409, 201), (202, 201), (410, 201)])
def test_another_outcome_than_the_models_is_a_difference(
    play: Play, fold: Refold, status: int, as_if: int,
) -> None:
    place = next(n for n, fact in enumerate(fold.facts) if isinstance(fact, Outcome) and fact.status == status)
    fold.facts[place] = replace(cast("Outcome", fold.facts[place]), status=as_if)
    assert len(replayed(play, fold)) == 1


def test_a_decision_in_another_state_than_the_models_is_a_difference(play: Play, fold: Refold) -> None:
    key = next(key for key, value in fold.rows.items() if key.startswith(b"c:") and b'"state":"applied"' in value)
    fold.rows[key] = fold.rows[key].replace(b'"state":"applied"', b'"state":"refused"')
    assert any("applied" in line and "refused" in line for line in replayed(play, fold))
    del fold.rows[key]
    assert any("decisions differ" in line for line in replayed(play, fold))


def test_records_that_are_absent_changed_extra_or_out_of_order_are_differences(fold: Refold) -> None:
    values = [encode_decision(event) for event in fold.decisions]
    records = [record(offset, value) for offset, value in enumerate(values)]
    assert records_differ(0, records, fold.decisions)[0] == []
    repeats = values.index(values[1]) + 1  # the first records again, as a worker writes them after a crash
    crashed = [*records[:2], *records[:2], *records[2:]]
    assert records_differ(0, crashed, fold.decisions) == ([], records_differ(0, records, fold.decisions)[1] + repeats)
    assert "is not on the topic" in records_differ(0, records[1:], fold.decisions)[0][0]
    assert "does not write it" in records_differ(0, records, fold.decisions[1:])[0][0]
    other = record(99, values[0].replace(b'"workspaceid":"ws"', b'"workspaceid":"xx"'))
    assert "differs from its first record" in records_differ(0, [*records, other], fold.decisions)[0][0]
    assert "the fold has" in records_differ(0, [other, *records[1:]], fold.decisions)[0][0]
    assert "another order" in records_differ(0, [records[1], records[0], *records[2:]], fold.decisions)[0][0]


def test_repeated_lost_or_undone_effects_are_differences(tmp_path: Path) -> None:
    def row(name: str, state: Any) -> DecisionRow:
        return DecisionRow(
            id=name, ws=WS, item="i", kind="waitpoint", source="/s", subject="s", ask_id="s", digest="d", state=state,
            published=True, actors=(cast("Any", SimpleNamespace(user="ada")),))

    ledger = tmp_path / "ledger"

    def differences(lines: str, rows: list[DecisionRow], hook: Counter[str] | None = None) -> Any:
        ledger.write_text(lines)
        return effects_differ(ledger, hook or Counter(), {decision.id: decision for decision in rows}, {"d2": 5})

    good = [row("d1", "applied"), row("d2", "taken_back")]
    assert differences("d1 applied 1\n", good) == ([], 0)
    assert "applied 2 times" in differences("d1 applied 1\nd1 applied 2\n", good)[0][0]
    assert "applied 2 times" in differences("d1 applied 1\n", good, Counter(d1=1))[0][0]
    assert "did not receive it" in differences("", good)[0][0]
    assert "had been taken back" in differences("d1 applied 1\nd2 applied 6\n", good)[0][0]
    assert "had been taken back" in differences("d1 applied 1\n", good, Counter(d2=1))[0][0]
    assert differences("d1 applied 1\nd2 applied 5\n", good) == ([], 1), (
        "the receiver had not read the record at offset 5")
    assert "nobody decided it" in differences("d1 applied 1\nd9 applied 1\n", good)[0][0]
    assert "at the end" in differences("d1 applied 1\n", [*good, row("d3", "sending")])[0][0]


def test_answers_that_the_fold_or_an_edge_does_not_know_are_differences(fold: Refold) -> None:
    rows = decisions_of(fold)
    made = next(answered for answered in rows.values() if answered.actors and answered.state == "applied")
    user = made.actors[-1].user

    class Edge:
        def __init__(self, *decisions: dict[str, Any]) -> None:
            self.decisions = list(decisions)

        def get(self, *_: object, **__: object) -> Any:
            return {"decisions": self.decisions}

    def differences(answers: list[Answered], edge: Edge) -> list[str]:
        return answers_differ(answers, rows, [cast("Any", edge)], {user: Reader(user, "OWNER")})

    answered = Answered(WS, user, "POST", made.item, 201, made.id)
    edge_of_maker = Edge({"id": made.id, "state": "applied"})
    assert differences([answered], edge_of_maker) == []
    assert "received a 201" in differences([answered, answered], edge_of_maker)[0]
    assert " sees " in differences([answered], Edge())[0]
    assert " sees " in differences([answered], Edge({"id": made.id, "state": "refused"}))[0]
    assert "the fold has" in differences([Answered(WS, user, "POST", made.item, 201, "dec_x")], edge_of_maker)[0]
    assert "was taken back" in differences([Answered(WS, user, "DELETE", made.item, 200, made.id)], edge_of_maker)[0]
    assert "does not have" in differences([Answered(WS, user, "POST", made.item, 409, "dec_x")], edge_of_maker)[0]


# --- the load ---

def asking_events(seed: int, count: int = 400) -> list[dict[str, Any]]:
    questions, rng = Questions("council-0", seed, SETTINGS, http=True), random.Random(seed)
    while len(questions.lines) < count:
        questions._next(rng)
    return questions.lines


def test_the_sources_use_every_form_of_ask_and_attn_accepts_all() -> None:
    lines = asking_events(3)
    events = [normalise(line["topic"], json.dumps(line["value"]).encode()) for line in lines]
    assert len({event.time for event in events}) == len(events), "two events have the same time"
    kinds = {event.type for event in events}
    assert {"waitpoint.created", "escalation.updated", "action.expired", "run.failed"} <= kinds
    asks = [line["value"]["data"]["ask"] for line in lines if "ask" in line["value"]["data"]]
    for name in ("quorum", "deciders", "expires_at", "on_expiry", "reply", "batch"):
        assert any(name in ask for ask in asks), name


def test_the_receiver_refuses_some_and_answers_the_rest_by_events_that_attn_accepts() -> None:
    types = set()
    for number in range(60):
        for kind, topic in TOPICS.items():
            for does in ("approve", "reject", "ignore"):
                event = {"workspaceid": "council-0", "subject": "s", "data": {
                    "decision": f"dec_{number:032x}", "kind": kind, "source": "/council/x", "does": does}}
                sent_to, reply = answer(event)
                assert sent_to == topic
                assert (reply["type"] == "decision.refused") is refuses(event["data"]["decision"])
                types.add(normalise(topic, json.dumps(reply).encode()).type)
    assert {"decision.refused", "decision.applied", "waitpoint.approved", "action.declined", "run.cancelled"} <= types


def test_chaos_deciders_have_all_roles_that_may_decide() -> None:
    assert {role for _, role in PEOPLE} == {"OWNER", "ADMIN", "MANAGER", "MEMBER"}
