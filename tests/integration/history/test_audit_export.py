"""`attn audit export` writes rows that equal the facts, continues after any cursor, and writes no secret."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clickhouse.access_trail import USERS, AccessHistory
from support.clickhouse.decisions import decision_facts
from support.fold.fold_driver import NOON
from support.processes.cli import attn_here

from ops.cli.commands.access import audit as command
from ops.cli.data.clickhouse_reader import open_reader
from schemas.facts import Fact, encode_fact
from schemas.scalars import HOUR, SECOND, format_timestamp
from schemas.settings import Settings
from streams.history.clickhouse import audit, client, migrate
from streams.history.clickhouse.audit import (
    ACCESS_TYPES,
    AUDIT_TYPES,
    AuditFact,
    AuditFilter,
    format_cursor,
    parse_cursor,
    read_audit,
)
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.writer import PendingBatch, Writer

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

PARTITIONS = 3


class Trail:
    """Random facts of three partitions, and the data directory of the chdb that stores them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        histories = [AccessHistory(seed, 30, (f"ws_{seed}", f"ws_{seed}b"), hours=48) for seed in range(PARTITIONS)]
        self.secrets = [secret for history in histories for secret in history.secrets]
        self.facts = {partition: history.facts for partition, history in enumerate(histories)}
        for partition, facts in self.facts.items():  # other facts; their clock is earlier, as after a lost log
            facts += decision_facts(partition, 8, f"ws_{partition}", NOON, hours=2)
            facts.append(Fact(ws=f"ws_{partition}", pos=9_000_000, index=0, event_id=f"/s {partition}", time=NOON,
                              at=NOON, type="plan.approved", subject="p", actor="ann"))
        self.late = AccessHistory(77, 12, ("ws_0",), begin=NOON - 40 * HOUR, hours=2).facts
        for fact in self.late:
            fact.pos += 10_000_000
        self.insert(self.facts)

    def insert(self, by_partition: dict[int, list[Fact]]) -> None:
        """Inserts the facts as the history does: records in batches, some of them repeated."""
        rng = random.Random(5)
        with closing(client.connect(Settings(data_dir=self.directory, _env_file=None))) as connection:
            migrate.apply(connection, "attn")
            writer = Writer(ActivityRepository(connection, "attn", local=True), 30)
            writer.open(range(PARTITIONS))
            for partition, facts in by_partition.items():
                records = [SimpleNamespace(value=encode_fact(fact), offset=number, timestamp=0)
                           for number, fact in enumerate(facts)]
                for start in range(0, len(records), 50):
                    batch = PendingBatch()
                    batch.add(partition, records[max(0, start - rng.randrange(20)):start + 50])
                    writer.write(writer.plan(batch))

    @property
    def expected(self) -> dict[int, list[Fact]]:
        return {partition: [fact for fact in facts if fact.type in AUDIT_TYPES]
                for partition, facts in self.facts.items()}

    @contextmanager
    def client(self) -> Iterator[Any]:
        with open_reader(Settings(data_dir=self.directory, _env_file=None)) as (connection, _):
            yield connection


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    return Trail(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def here(trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes to a new working directory, in which `attn` uses the chdb of the trail. Returns the directory."""
    monkeypatch.setenv("ATTN_DATA_DIR", str(trail.directory))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def positions(facts: list[AuditFact]) -> dict[int, list[tuple[int, int, str]]]:
    """Returns position, index and event id of the exported facts, by partition."""
    of_partition: dict[int, list[tuple[int, int, str]]] = {}
    for fact in facts:
        of_partition.setdefault(fact.partition, []).append((fact.position, fact.fact_index, fact.values[-1]))
    return of_partition


def expected_positions(by_partition: dict[int, list[Fact]]) -> dict[int, list[tuple[int, int, str]]]:
    return {partition: [(fact.pos, fact.index, fact.event_id) for fact in facts]
            for partition, facts in by_partition.items() if facts}


def row(fact: Fact) -> dict[str, Any]:
    return {
        "occurred_at": format_timestamp(fact.time), "accepted_at": format_timestamp(fact.at), "workspace_id": fact.ws,
        "type": fact.type, "actor": fact.actor or "", "role": fact.role or "",
        "target_user_id": fact.target_user_id or "", "target_role": fact.target_role or "", "subject": fact.subject,
        "title": fact.title or "", "reason": fact.reason or "", "item_id": fact.item or "", "kind": fact.kind or "",
        "decision_id": fact.decision or "", "option": fact.option or "", "does": fact.does or "",
        "viewed": fact.viewed, "is_stale": fact.stale, "event_id": fact.event_id,
    }


def test_the_random_history_has_every_fact_of_access(trail: Trail) -> None:
    assert {fact.type for facts in trail.facts.values() for fact in facts} >= set(ACCESS_TYPES) | {"vote.cast"}
    times = [(fact.ws, fact.time) for fact in trail.facts[0] if fact.type in ACCESS_TYPES]
    assert len(set(times)) < len(times) * 2 // 3, "too few facts share a time"


def test_an_export_equals_the_facts(trail: Trail, here: Path, capfd: Any) -> None:
    assert attn_here("audit", "export", "all.jsonl") == 0
    lines = [json.loads(line) for line in (here / "all.jsonl").read_text().splitlines()]
    cursors = [line.pop("cursor") for line in lines]
    facts = {(fact.ws, fact.event_id): fact for some in trail.expected.values() for fact in some}
    assert len(lines) == len(facts) == sum(map(len, trail.expected.values()))
    assert lines == [row(facts[line["workspace_id"], line["event_id"]]) for line in lines]
    assert f"{len(lines)} facts were written; continue with --after {cursors[-1]}" in capfd.readouterr().err
    assert (here / "all.jsonl").stat().st_mode & 0o777 == 0o600
    access = [line["accepted_at"] for line in lines if line["type"] in ACCESS_TYPES]
    assert access == sorted(access)
    assert attn_here("audit", "export", "rest.jsonl", "--after", cursors[-1]) == 0
    assert (here / "rest.jsonl").read_text() == ""


def test_no_export_contains_a_secret(trail: Trail, here: Path) -> None:
    assert attn_here("audit", "export", "all.jsonl") == attn_here("audit", "export", "all.csv", "--format", "csv") == 0
    text = (here / "all.jsonl").read_text() + (here / "all.csv").read_text()
    assert len(trail.secrets) > 150
    assert not [secret for secret in trail.secrets if secret in text]


def test_csv_has_the_same_rows_and_no_formula(trail: Trail, here: Path) -> None:
    assert attn_here("audit", "export", "all.jsonl") == attn_here("audit", "export", "all.csv", "--format", "csv") == 0
    exact = [json.loads(line) for line in (here / "all.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader(io.StringIO((here / "all.csv").read_text())))
    assert [(line["event_id"], line["cursor"]) for line in rows] == [
        (line["event_id"], line["cursor"]) for line in exact]
    actors = {(line["actor"], csv_row["actor"]) for line, csv_row in zip(exact, rows, strict=True)}
    assert {actor for actor, _ in actors} >= set(USERS)
    assert {("=HYPERLINK(\"http://x\";1)", "'=HYPERLINK(\"http://x\";1)"), ("@sum", "'@sum"), ("+1", "'+1"),
            ("-dee", "'-dee"), ("ann", "ann"), ("a;=1+1", "a;'=1+1")} <= actors
    assert not [cell for line in rows for cell in line.values() if cell.lstrip()[:1] in tuple("=+-@")]


@pytest.mark.parametrize("chunk", [7, 2000])
def test_an_export_continues_after_any_line(trail: Trail, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """The cursor may lie between facts of one time or of one pack, and at the end of a chunk."""
    monkeypatch.setattr(audit, "CHUNK", chunk)
    with trail.client() as connection:
        whole = list(read_audit(connection, "attn", AuditFilter()))
        assert positions(whole) == expected_positions(trail.expected)
        cursor: dict[int, tuple[int, int]] = {}
        for number, fact in enumerate(whole):
            cursor[fact.partition] = (fact.position, fact.fact_index)
            assert parse_cursor(format_cursor(cursor)) == cursor
            if number in (0, 1, 17, 18, len(whole) // 2, len(whole) - 2, len(whole) - 1):
                assert list(read_audit(connection, "attn", AuditFilter(), cursor)) == whole[number + 1:]


@pytest.mark.parametrize(("given", "holds"), [
    (AuditFilter(workspace="ws_1"), lambda fact: fact.ws == "ws_1"),
    (AuditFilter(workspace="nobody's '\\"), lambda _: False),
    (AuditFilter(since=NOON + HOUR), lambda fact: fact.time >= NOON + HOUR),
    (AuditFilter(since=NOON + HOUR, until=NOON + 2 * HOUR), lambda fact: NOON + HOUR <= fact.time < NOON + 2 * HOUR),
    (AuditFilter(user="-dee"), lambda fact: "-dee" in (
        fact.actor, fact.target_user_id if fact.type in ACCESS_TYPES else None)),
    (AuditFilter(user="Jörg\n=1", types=("role.changed", "session.ended")), lambda fact: fact.type in (
        "role.changed", "session.ended") and "Jörg\n=1" in (fact.actor, fact.target_user_id)),
], ids=["workspace", "no workspace", "since", "period", "user", "user and types"])
def test_filters(trail: Trail, given: AuditFilter, holds: Any) -> None:
    wanted = {partition: [fact for fact in facts if holds(fact)] for partition, facts in trail.expected.items()}
    with trail.client() as connection:
        assert positions(list(read_audit(connection, "attn", given))) == expected_positions(wanted)


class Failing:
    """A client whose connection breaks after `queries` queries."""

    def __init__(self, real: Any, queries: int) -> None:
        self._real, self._left = real, queries

    def query(self, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError("the connection is broken")
        return self._real.query(*args, **kwargs)


def test_an_export_that_failed_continues(
    trail: Trail, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    @contextmanager
    def failing(settings: Settings) -> Iterator[tuple[Any, str]]:
        with open_reader(settings) as (connection, database):
            yield Failing(connection, 20), database

    with monkeypatch.context() as patched:
        patched.setattr(audit, "CHUNK", 7)
        patched.setattr(command, "open_reader", failing)
        assert attn_here("audit", "export", "first.jsonl") == 1
    error = capfd.readouterr().err.strip()
    assert "ConnectionError: the connection is broken" in error
    cursor = error.rpartition(" ")[2]
    first = (here / "first.jsonl").read_text().splitlines()
    assert first
    assert json.loads(first[-1])["cursor"] == cursor
    assert attn_here("audit", "export", "second.jsonl", "--after", cursor) == 0
    assert attn_here("audit", "export", "whole.jsonl") == 0
    both = first + (here / "second.jsonl").read_text().splitlines()
    assert both == (here / "whole.jsonl").read_text().splitlines()


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("taken.jsonl",), 1, "cannot write taken.jsonl: File exists"),
    (("none/x.jsonl",), 1, "cannot write none/x.jsonl: No such file or directory"),
    (("--after", "3:1"), 2, "--after: '3:1' is not a place in the log"),
    (("--after", "0:1.1,0:2.1"), 2, "--after: '0:2.1' is not a place in the log"),
    (("--types", "item.read"), 2, "--types: 'item.read' is no type of the audit trail"),
    (("--types", ","), 2, "--types: ',' is no type of the audit trail"),
    (("--since", "yesterday"), 2, "--since: 'yesterday' is neither a duration"),
    (("--since", "2026-05-21", "--until", "2026-05-20"), 2, "the period is empty"),
    (("--workspace", " "), 2, "--workspace: must be text that is not blank"),
    (("--clickhouse", "http://127.0.0.1:1/attn"), 1, "0 facts were written"),
], ids=["taken", "no folder", "cursor", "cursor twice", "type", "no type", "time", "period", "blank", "no server"])
def test_errors(here: Path, capfd: Any, arguments: tuple[str, ...], code: int, message: str) -> None:
    (here / "taken.jsonl").write_text("mine")
    assert attn_here("audit", "export", *arguments) == code
    printed = capfd.readouterr()
    assert printed.err.startswith("attn: ")
    assert message in printed.err
    assert printed.out == ""
    assert (here / "taken.jsonl").read_text() == "mine"


def test_facts_that_arrive_later_come_after_the_cursor(trail: Trail, here: Path, capfd: Any) -> None:
    """The times of the facts have no effect. This test is the last one of the module: it adds rows."""
    assert attn_here("audit", "export", "--types", "session.*,role.changed") == 0
    printed = capfd.readouterr()
    cursor = printed.err.strip().rpartition(" ")[2]
    before = printed.out.splitlines()
    newest = max(fact.time for fact in trail.late)
    assert newest + 24 * 3600 * SECOND < max(fact.time for fact in trail.facts[0])
    trail.insert({0: trail.late})
    assert attn_here("audit", "export", "--types", "session.*,role.changed", "--after", cursor) == 0
    after = capfd.readouterr().out.splitlines()
    wanted = [fact.event_id for fact in trail.late if fact.type.startswith("session.") or fact.type == "role.changed"]
    assert [json.loads(line)["event_id"] for line in after] == wanted
    assert wanted
    assert not set(before) & set(after)
