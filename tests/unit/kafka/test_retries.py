"""Retries by stamina: each retry is one log line, a cancellation passes, and other errors are raised at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import stamina
from aiokafka.errors import KafkaError, NotLeaderForPartitionError, TopicAuthorizationFailedError
from structlog.testing import capture_logs

from streams.kafka.diagnostics import _retry


@pytest.fixture(autouse=True)
def without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10):
        yield


async def test_a_request_is_repeated_until_it_succeeds_with_a_log_line_each() -> None:
    errors: list[KafkaError] = [NotLeaderForPartitionError(), NotLeaderForPartitionError()]

    async def request() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    with capture_logs() as lines:
        assert await _retry(request) == "answer"
    assert [(line["event"], line["retry_num"]) for line in lines] == [
        ("stamina.retry_scheduled", 1), ("stamina.retry_scheduled", 2)]


async def test_an_error_that_is_not_retriable_is_raised_at_once() -> None:
    calls = 0

    async def request() -> None:
        nonlocal calls
        calls += 1
        raise TopicAuthorizationFailedError("plans")

    with pytest.raises(TopicAuthorizationFailedError):
        await _retry(request)
    assert calls == 1


@pytest.mark.parametrize("while_waiting", [True, False])
async def test_a_cancellation_ends_the_retries(while_waiting: bool) -> None:
    called = asyncio.Event()

    async def request() -> None:
        called.set()
        if while_waiting:
            raise NotLeaderForPartitionError()
        await asyncio.Event().wait()

    stamina.set_testing(False)  # real waits
    task = asyncio.create_task(_retry(request))
    async with asyncio.timeout(60):
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
