"""Whole replays through `attn up` while its processes are killed: every reader equals the reference model at the end.

Real incidents (tests/data) and generated events of every kind; in order, shuffled, repeated, mixed with garbage.
Worker, edge and history are killed at random, and all at once at the end. Feeds that followed equal the inbox, a second
edge sends exactly the missed frames, and the history has every event once.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import events
from support.clickhouse.facts import ask
from support.clients.feed_follower import Follower, frames_after
from support.kafka import brokers
from support.model import Model, Reader
from support.processes.cli import COMMAND, clean_env
from support.processes.up import Up, wait_for

from chaos.checks.edge import READERS, check, settled
from chaos.environment.edge_client import EdgeClient, now, users_of
from ops.process.ports import free_port
from schemas.scalars import HOUR
from schemas.settings import Settings
from schemas.topics import SOURCE_TYPES

pytestmark = [pytest.mark.broker, pytest.mark.clickhouse, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
SAMPLE = TESTS / "data" / "incidents-sample.jsonl.gz"
WHOLE = "ATTN_TEST_INCIDENTS"  # variable with the path of all incidents; the repository has a sample of them
SAVED = 4.0  # seconds after which the embedded broker has saved acknowledged records
QUARTER = 900  # seconds


@pytest.fixture
def edge_client(up: Up) -> Iterator[EdgeClient]:
    with EdgeClient(up.url, up.data_dir) as client:
        yield client


@pytest.fixture(params=[brokers.EMBEDDED])
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Up]:
    stack = Up(tmp_path, kafka=request.getfixturevalue("real_kafka") if request.param == "kafka" else None, env={
        "ATTN_LOG_FORMAT": "json", "ATTN_HEARTBEAT_SECONDS": "2", "ATTN_METRICS_PORT": str(free_port())})
    stack.start(120)
    yield stack
    stack.close()


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def mixed(seed: int, size: int, workspaces: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns events of every kind up to the present; no item becomes due within the next ten minutes."""
    current = int(time.time())
    edge = current + QUARTER - 60 - (current % 30)  # times and targets are multiples of 15 minutes apart
    start = datetime.fromtimestamp(edge, UTC) - events.SLOTS * events.SLOT - timedelta(seconds=QUARTER)
    runs = ("run.failed",) * 5 + SOURCE_TYPES["run-failures"]
    others = [name for topic, names in SOURCE_TYPES.items() for name in names if topic != "run-failures"]
    drawn = events.generate(seed, size, types=others, subjects=12, workspaces=workspaces, start=start)
    return drawn + events.generate(seed, size // 8, types=runs, subjects=40, workspaces=workspaces, start=start)


def replay(up: Up, sent: list[dict[str, Any]], rate: float | None = None) -> subprocess.Popen[bytes]:
    path = up.home / f"replay-{time.monotonic_ns()}.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(line) + "\n" for line in sent)
    flags = ["--rate", str(rate)] if rate else []
    return subprocess.Popen(
        [*COMMAND, "replay", str(path), *flags, "--data-dir", str(up.data_dir)], cwd=up.home, env=clean_env(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_at_random(up: Up, rng: random.Random, sending: subprocess.Popen[bytes], kills: int) -> list[str]:
    """Kills random processes while events are sent, until `kills` of them were killed."""
    killed = []
    while len(killed) < kills:
        assert up.running, up.output_text()[-2000:]
        time.sleep(rng.uniform(0.3, 3.0))
        part = rng.choice(("worker", "worker", "edge", "history"))
        if up.part(part) is not None:
            up.kill(part)
            killed.append(part)
    _, errors = sending.communicate(timeout=600)
    assert sending.returncode == 0, errors.decode()[-2000:]
    up.wait_ready(120)
    return killed


def readers_of(model: Model, ws: str, users: int) -> list[Reader]:
    return [*READERS, *(Reader(user, role) for user in users_of(model, ws, users) for role in ("MEMBER", "MANAGER"))]


def compare(edge_client: EdgeClient, model: Model, seconds: float = 120, users: int = 3) -> None:
    """Compares every workspace, reader and route with the model."""
    settled(edge_client, model.at(now()), list(model.events), seconds)
    for ws, view in model.at(now()).items():
        for reader in readers_of(model, ws, users):
            check(edge_client, ws, view, reader)


def kill_everything(up: Up) -> None:
    """Kills all processes, the supervisor first, because it would restart the others."""
    assert up.process is not None
    processes = up.parts()
    up.process.send_signal(signal.SIGKILL)
    for part in processes.values():
        try:
            os.kill(part.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    up.process.wait(60)


def test_real_incidents_with_kills_feeds_and_a_second_edge(up: Up, edge_client: EdgeClient) -> None:
    rng = random.Random(20_261_122)
    lines = lines_of(SAMPLE)
    model = Model(lines)
    big, small = "ws_org_line_c", "ws_org_line_g2"
    followers = [
        Follower(edge_client, up.url, big, Reader("olga", "OWNER")),
        Follower(edge_client, up.url, big, Reader("max", "MANAGER"), limit=7),
        Follower(edge_client, up.url, big, Reader(users_of(model, big, 1)[0], "MEMBER")),
        Follower(edge_client, up.url, small, Reader("max", "MANAGER"), limit=40),
        Follower(edge_client, up.url, small, Reader("vera", "VIEWER"), limit=1000),
    ]
    for follower in followers:
        follower.start()
    wait_for(lambda: all(each.connects for each in followers), 20, "all feeds")
    killed = kill_at_random(up, rng, replay(up, lines, rate=500), 7)
    assert {"worker", "edge"} <= set(killed)
    compare(edge_client, model)
    for follower in followers:
        follower.equals()
        assert follower.snapshots == 1, "after the restart of its edge the feed got only the missed frames"
    _second_edge(up, edge_client, followers)
    for follower in followers:
        follower.stop()

    time.sleep(SAVED)
    kill_everything(up)
    up.start(120)
    compare(edge_client, model)
    for follower in followers:
        _check_resumed_feed(up, edge_client, follower)
    _history(up, model)


def _second_edge(up: Up, edge_client: EdgeClient, followers: list[Follower]) -> None:
    """Law 5: another edge resumes a feed after any of its frames, and sends exactly the later ones."""
    port = free_port()
    secret = (up.data_dir / "secret").read_text().strip()
    env = clean_env({"ATTN_JWT_SECRET": secret, "ATTN_KAFKA": up.kafka, "ATTN_PORT": str(port),
                     "ATTN_INSTANCE": "2", "ATTN_DATA_DIR": str(up.data_dir), "ATTN_HEARTBEAT_SECONDS": "1"})
    url = f"http://127.0.0.1:{port}"
    with (up.home / "edge-2.log").open("wb") as output:
        edge = subprocess.Popen([*COMMAND, "edge"], cwd=up.home, env=env, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: _ready(url), 60, "the second edge")
        for follower in followers:
            with follower.lock:
                seen = list(follower.frames)
            last = max(index for index, frame in enumerate(seen) if frame[1] == "snapshot")
            for place in {last, last + (len(seen) - 1 - last) // 2, max(last, len(seen) - 4), len(seen) - 1}:
                rest = seen[place + 1:]
                received = frames_after(edge_client, url, follower.ws, follower.reader, seen[place][0], follower.limit,
                                   until=rest[-1][0] if rest else None)
                assert received == rest, f"{follower.ws} {follower.reader} after {seen[place][0]}"
            recent = frames_after(edge_client, url, follower.ws, follower.reader, seen[-1][0], follower.limit)
            assert recent == [], "no frame was missed, so the edge sends none"
        with EdgeClient(url, up.data_dir) as other:
            for ws in {follower.ws for follower in followers}:
                for reader in READERS:
                    same = edge_client.pages(ws, reader) == other.pages(ws, reader)
                    assert same, "the same cursor means the same state on every edge"
    finally:
        edge.terminate()
        assert edge.wait(60) == 0, (up.home / "edge-2.log").read_text()[-2000:]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _check_resumed_feed(up: Up, edge_client: EdgeClient, follower: Follower) -> None:
    """After all processes were killed, a resumed feed equals the inbox, by missed frames or by a new snapshot."""
    again = Follower(edge_client, up.url, follower.ws, follower.reader, follower.limit)
    again.copy = follower.copy
    again.start()
    again.equals()
    again.stop()


def _history(up: Up, model: Model) -> None:
    """Law 8: every event is exactly one row; hourly sums and the history of each case are correct too."""
    wanted = sorted([ws, f"{event.source} {event.id}"] for ws, group in model.events.items() for event in group)
    wait_for(lambda: _lag(up) == 0, 120, "history at the end of the facts")
    assert up.stop()[0] == 0
    answer = ask(Settings(data_dir=up.data_dir))
    assert answer["events"] == wanted
    events = [event for group in model.events.values() for event in group]
    hours: Counter[tuple[str, int, str]] = Counter()
    for ws, hour, kind, _, count, _ in answer["hours"]:
        hours[ws, hour, kind] += count
    assert hours == Counter((event.ws, event.time // HOUR * 3600, event.type) for event in events)
    # An event without a case is in the history of its item's case. Events with a case are in its history only, in
    # order.
    naming = {(event.ws, f"{event.source} {event.id}") for event in events if event.data.get("case_id")}
    assert [row for row in answer["cases"] if (row[0], row[3]) in naming] == sorted(
        [event.ws, event.data["case_id"], event.time, f"{event.source} {event.id}"]
        for event in events if event.data.get("case_id"))


def _lag(up: Up) -> float:
    """Returns the number of facts that the history has not written yet; -1 if the metric is unavailable."""
    time.sleep(1.0)  # the edge may be ahead of the lag that the history has measured
    port = int(up.env["ATTN_METRICS_PORT"]) + 1  # the worker's port comes first, then that of the history
    try:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2, trust_env=False).text
    except httpx.HTTPError:
        return -1
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith("attn_history_lag_rows ")), -1)


def test_all_kinds_shuffled_repeated_and_with_garbage(up: Up, edge_client: EdgeClient) -> None:
    rng = random.Random(7)
    valid = mixed(11, 5000, ("ws_01", "ws_02", "ws_03"))
    model = Model(valid)
    assert all(any(item.kind == "incident" and item.open for item in view.items.values())
               for view in model.at(now()).values()), "the events form an open incident in every workspace"
    sent = [*valid, *rng.choices(valid, k=1500)]
    rng.shuffle(sent)
    garbage = [{"topic": topic, "value": value} for topic, value in _garbage()]
    for line in garbage:
        sent.insert(rng.randrange(len(sent)), line)
    followers = [Follower(edge_client, up.url, "ws_01", Reader(user, role), limit=limit)
                 for user, role, limit in (("ann", "OWNER", 500), ("bob", "MEMBER", 5), ("zoe", "VIEWER", 1000))]
    for follower in followers:
        follower.start()
    kill_at_random(up, rng, replay(up, sent, rate=400), 6)
    compare(edge_client, model)
    for follower in followers:
        follower.equals()
        follower.stop()
    _dead_letters(up, garbage)
    time.sleep(SAVED)
    kill_everything(up)
    up.start(120)
    compare(edge_client, model)
    # The same events in another order have no effect.
    rng.shuffle(sent)
    kill_at_random(up, rng, replay(up, sent), 1)
    compare(edge_client, model)
    _history(up, model)


def _dead_letters(up: Up, garbage: list[dict[str, Any]]) -> None:
    """Checks that the dead letters are exactly the garbage, each with a reason."""
    listed = up.attn("dead-letters", "--json", "--limit", "10000")
    assert listed.returncode == 0, listed.stderr
    letters = [json.loads(line) for line in listed.stdout.splitlines()]
    assert all(letter["reason"] for letter in letters)
    assert {letter["value"] for letter in letters} == {json.dumps(line["value"]) for line in garbage}


def _garbage() -> list[tuple[str, Any]]:
    """Returns the part of the garbage that a replay file can hold, which is JSON."""
    values = []
    for topic, raw in events.garbage():
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if len(raw) < 500_000:
            values.append((topic, value))
    return values


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(WHOLE not in os.environ, reason=f"{WHOLE} does not name the file of all incidents")
def test_all_incidents_shuffled(up: Up, edge_client: EdgeClient) -> None:
    """Takes minutes. `make test` replays the sample in order, and generated events of all kinds shuffled."""
    rng = random.Random(3)
    lines = lines_of(Path(os.environ[WHOLE]))
    model = Model(lines)
    rng.shuffle(lines)
    followers = [Follower(edge_client, up.url, ws, reader) for ws, reader in (
        ("ws_org_line_c", READERS[0]), ("ws_other", READERS[1]))]
    for follower in followers:
        follower.start()
    kill_at_random(up, rng, replay(up, lines), 8)
    compare(edge_client, model, seconds=900, users=2)
    for follower in followers:
        follower.equals(60)
        follower.stop()
    time.sleep(SAVED)
    kill_everything(up)
    up.start(300)
    compare(edge_client, model, seconds=300, users=1)
    _history(up, model)
