"""Repeats of a failed attempt: growing pauses with jitter, Retry-After, the question's expiry, and the overall
limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.log import Report
from schemas.settings import Settings
from streams.delivery import dispatcher
from streams.delivery.backlog import Backlog, Entry
from streams.delivery.circuit import Circuit
from streams.delivery.dispatcher import Dispatcher
from streams.delivery.endpoints import Endpoint, EndpointsFile
from streams.delivery.http.responses import Result, classify
from streams.tracing.context import TraceLink

HOUR = 3600.0


class Log:
    """Replaces the reporter: keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    async def append(self, report: Report, trace: TraceLink | None) -> None:
        self.reports.append(report)

    async def append_tick(self, partition: int) -> None:
        raise AssertionError("a tick was appended")


class Receiver:
    """Replaces the HTTP client: returns the responses of the test."""

    def __init__(self, answer: Callable[[], Result]) -> None:
        self.answer, self.ids = answer, list[str]()

    async def post(
        self, endpoint: Endpoint, message: str, body: bytes, secrets: tuple[str, ...], trace: Mapping[str, str],
    ) -> Result:
        self.ids.append(message)
        return self.answer()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(dispatcher.time, "time", lambda: clock[0])
    return clock


async def schedule(
    tmp_path: Path, now: list[float], answer: Callable[[], Result], limit: float = 72 * HOUR,
    max_bytes: int = 1000, **fields: Any,
) -> tuple[list[float], list[Report]]:
    """Runs attempts until the entry is finished. Returns their times from the first one, and the reports."""
    path = tmp_path / "endpoints.toml"
    path.write_text('[[endpoint]]\nname = "a"\nurl = "https://a.example/"\nsecrets = ["whsec_' + "A" * 32 + '"]\n')
    log, receiver, backlog = Log(), Receiver(answer), Backlog(10, max_bytes)
    settings = Settings(_env_file=None, delivery_limit=timedelta(seconds=limit))  # type: ignore[call-arg]
    dispatcher = Dispatcher(settings, backlog, EndpointsFile(path), receiver, log, _no_record)  # type: ignore[arg-type]
    backlog.assign(0, 0)
    backlog.mark_caught_up(0)
    entry = Entry(0, 7, "ws", "s", "dec_1", "made", "a", "a", 1000.0, 2, b"{}", **fields)
    backlog.add(entry)
    times: list[float] = []
    while not entry.finished:
        due = backlog.next_due("a")
        assert due is not None
        assert due >= now[0] or not times
        now[0] = max(now[0], due)
        assert backlog.pop_due("a", now[0]) is entry
        before = len(receiver.ids)
        await dispatcher._attempt(entry, Circuit())
        times += [now[0] - 1000.0] * (len(receiver.ids) - before)
    assert set(receiver.ids) <= {"dec_1"}
    return times, log.reports


async def _no_record(entry: Entry) -> bytes | None:
    return None


async def test_pauses_double_up_to_an_hour_each_with_jitter(tmp_path: Path, now: list[float]) -> None:
    times, reports = await schedule(tmp_path, now, lambda: classify(500))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for number, pause in enumerate(pauses):
        whole = min(2.0 ** number, HOUR)
        assert 0.5 * whole <= pause <= whole, (number, pause)
    assert len({round(pause / 2.0 ** min(number, 11.8), 3) for number, pause in enumerate(pauses)}) > 10
    assert 70 * HOUR < times[-1] < 72 * HOUR
    assert 80 < len(times) < 200
    report, = reports
    assert (report.state, report.id) == ("undeliverable", "dec_1.undeliverable.7")
    assert report.reason == (f"not delivered before the time limit of deliveries was reached; attempts: {len(times)}; "
                             "the last answer: HTTP 500")


async def test_the_question_ends_the_retries_before_the_limit(tmp_path: Path, now: list[float]) -> None:
    times, reports = await schedule(tmp_path, now, lambda: classify(404), expires_at=1100.0)
    assert 7 <= len(times) <= 10
    assert times[-1] < 100.0
    assert reports[0].reason == (
        f"not delivered before the question expired; attempts: {len(times)}; the last answer: HTTP 404")
    assert now[0] == 1100.0


async def test_one_attempt_is_made_for_a_question_that_has_expired(tmp_path: Path, now: list[float]) -> None:
    times, reports = await schedule(tmp_path, now, lambda: classify(500), expires_at=900.0)
    assert times == [0.0]
    assert reports[0].state == "undeliverable"


async def test_no_attempt_is_made_beyond_the_limit(tmp_path: Path, now: list[float]) -> None:
    now[0] += 10 * HOUR
    times, reports = await schedule(tmp_path, now, lambda: classify(200), limit=HOUR)
    assert times == []
    assert reports[0].reason == "not delivered before the time limit of deliveries was reached; attempts: 0"


async def test_retry_after_is_the_least_pause(tmp_path: Path, now: list[float]) -> None:
    answers = [classify(503, "40"), classify(500, "7"), classify(200)]
    times, reports = await schedule(tmp_path, now, lambda: answers.pop(0))
    assert times == [0.0, 40.0, 47.0]
    assert [report.state for report in reports] == ["delivered"]


async def test_retry_after_beyond_the_end_of_the_question_gives_up(tmp_path: Path, now: list[float]) -> None:
    times, reports = await schedule(tmp_path, now, lambda: classify(503, "99999"), expires_at=1500.0)
    assert times == [0.0]
    assert (reports[0].state, now[0]) == ("undeliverable", 1500.0)


@pytest.mark.parametrize(("result", "state"), [
    (classify(204), "delivered"), (Result("refused", "409", "no"), "refused"),
])
async def test_a_final_answer_ends_the_attempts(tmp_path: Path, now: list[float], result: Result, state: str) -> None:
    times, reports = await schedule(tmp_path, now, lambda: result)
    assert times == [0.0]
    assert [(report.state, report.reason) for report in reports] == [(state, result.reason or None)]


async def test_a_record_that_the_topic_no_longer_has(tmp_path: Path, now: list[float]) -> None:
    times, reports = await schedule(tmp_path, now, lambda: classify(200), max_bytes=1)
    assert times == []
    assert [(report.state, report.reason) for report in reports] == [
        ("undeliverable", "the record of the decision is no longer in the topic decisions")]
