"""clients/python against a running attn: questions, answers, restarts of edges, wrong clocks, killed processes and the
feed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from support.clients.light_attn import light_attn
from support.clients.people import People, until

from attn_client import (
    Action,
    AsyncAttn,
    Attn,
    EventRejected,
    Expired,
    Forbidden,
    Option,
    Question,
    Replaced,
    Unauthorized,
    Unavailable,
    Withdrawn,
    waiting,
)

SOURCE = "/agents/test"
CLIENT = Path(__file__).parents[3] / "clients" / "python" / "src"

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with light_attn() as running:
        yield running


@pytest.fixture(scope="module")
def key(people: People) -> str:
    return people.create_key(SOURCE)


@pytest_asyncio.fixture
async def attn(key: str, people: People) -> AsyncIterator[AsyncAttn]:
    async with AsyncAttn(people.url, key, source=SOURCE) as client:
        yield client


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the intervals of polls and sweeps to 1 s."""
    monkeypatch.setattr(waiting, "WAIT", 1)
    monkeypatch.setattr(waiting, "SWEEP", 1.0)


async def test_an_answer_comes_back_and_is_confirmed(attn: AsyncAttn, people: People) -> None:
    question = Question(
        "Deploy web?", body="PR *128*", subject="deploy-1", priority="high", data={"cluster": "prod"},
        options=[Option("go", "approve", "Deploy", "primary"), Option("stop", "reject", comment="required")])
    asked = asyncio.create_task(attn.ask(question))
    item = await people.question("deploy-1")
    assert (item["title"], item["body_md"], item["priority"]) == ("Deploy web?", "PR *128*", "high")
    await people.answer("deploy-1", "go", comment="looks good")
    answer = await asked
    assert (answer.option, answer.does, answer.approved, answer.by, answer.comment, answer.confirmed) == (
        "go", "approve", True, "ann", "looks good", True)
    assert (answer.actors[0].role, answer.raw["cluster"]) == ("OWNER", "prod")
    await people.becomes("deploy-1", "applied")
    assert [one["id"] async for one in attn.decisions(subject="deploy-1")] == [answer.decision]
    assert (await attn.ask(question)).decision == answer.decision, "the repeated question got another answer"


async def test_forms_edits_and_digits(attn: AsyncAttn, people: People) -> None:
    args = {"amount": Decimal("0.12345678901234567890"), "account": 9007199254740993, "rate": 0.1, "note": "ä"}
    asked = asyncio.create_task(attn.ask(
        "Pay?", subject="pay-1", action=Action("pay", args, editable=["note"], risk="high", reversible=False)))
    await people.question("pay-1")
    [item] = await attn.items(subject="pay-1")
    assert item["ask"]["action"]["args"] == args
    await people.answer("pay-1", "approve")
    assert (await asked).args is None, "an answer without edits has arguments"
    form = {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "count": {"type": "integer", "default": 3}}}
    asked = asyncio.create_task(attn.ask("Which?", form=form, subject="which-1"))
    await people.answer("which-1", "answer", form={"name": "x", "count": 4})
    answer = await asked
    assert (answer.does, answer.form) == ("respond", {"name": "x", "count": 4})
    asked = asyncio.create_task(attn.ask(
        "Send?", subject="send-1", action=Action("send", {"to": "a", "n": 9007199254740993}, editable=True)))
    await people.answer("send-1", "edit", args={"to": "b", "n": 9007199254740993})
    answer = await asked
    assert (answer.args, answer.edited, answer.approved) == ({"to": "b", "n": 9007199254740993}, ("/to",), True)


async def test_a_quorum_needs_two_people(attn: AsyncAttn, people: People) -> None:
    asked = asyncio.create_task(attn.ask("Drop it?", subject="drop-1", quorum=2))
    assert (await people.answer("drop-1", "approve", "ann"))["needed"] == 1
    await people.answer("drop-1", "approve", "bob")
    assert [one.user for one in (await asked).actors] == ["ann", "bob"]


async def test_questions_expire(attn: AsyncAttn) -> None:
    with pytest.raises(Expired, match="late-1"):
        await attn.ask("Now?", subject="late-1", expires=timedelta(seconds=2))
    answer = await attn.ask(
        "Now?", subject="late-2", expires=timedelta(seconds=2), on_expiry="keep",
        options=[Option("drop", "approve"), Option("keep", "ignore", safe=True)])
    assert (answer.option, answer.by) == ("keep", None)


ASKS = textwrap.dedent("""
    import asyncio, json, sys, time
    shift = float(sys.argv[4])
    if shift:
        real = time.time
        time.time = lambda: real() + shift
    from attn_client import AsyncAttn

    async def main():
        async with AsyncAttn(sys.argv[1], sys.argv[2], source="/agents/test") as attn:
            answer = await attn.ask("Restart?", subject=sys.argv[3])
            print(json.dumps([answer.decision, answer.option]), flush=True)

    asyncio.run(main())
""")


def asking_process(people: People, key: str, subject: str, shift: float = 0) -> subprocess.Popen[str]:
    """Starts a process that asks a question. `shift`: error of its clock in seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", ASKS, people.url, key, subject, str(shift)],
        env={**os.environ, "PYTHONPATH": str(CLIENT)}, stdout=subprocess.PIPE, text=True)


async def test_a_killed_process_continues_its_question(key: str, people: People) -> None:
    first = asking_process(people, key, "restart-1")
    item = await people.question("restart-1")
    first.kill()
    first.communicate()
    second = asking_process(people, key, "restart-1")
    await people.answer("restart-1", "approve")
    out, _ = await asyncio.to_thread(second.communicate, timeout=60)
    third = asking_process(people, key, "restart-1")  # the subject is confirmed: the client returns the same answer
    assert (await asyncio.to_thread(third.communicate, timeout=60))[0] == out
    [now] = await people.items("all", source_id="restart-1")
    assert now["created_at"] == item["created_at"], "the client opened the question twice"
    assert json.loads(out)[1] == "approve"


@pytest.mark.parametrize("days", [-400, 400])
async def test_the_clock_of_the_client_does_not_matter(key: str, people: People, days: int) -> None:
    before = datetime.now(UTC)
    asking = asking_process(people, key, f"clock{days}", days * 86400.0)
    item = await people.question(f"clock{days}")
    at = datetime.fromisoformat(item["created_at"].replace("Z", "+00:00"))
    assert before - timedelta(seconds=5) < at < datetime.now(UTC) + timedelta(seconds=1)
    async with AsyncAttn(people.url, key, source=SOURCE) as other:  # a client with a correct clock
        assert await other.withdraw(f"clock{days}")
    asking.kill()
    asking.communicate()

    async def gone() -> bool:
        return not await people.items(source_id=f"clock{days}")

    await until(gone, "withdrawn")
    asking = asking_process(people, key, f"clock{days}", -days * 86400.0)  # asked after a close: the item opens again
    await people.answer(f"clock{days}", "approve")
    assert json.loads((await asyncio.to_thread(asking.communicate, timeout=60))[0])[1] == "approve"
    await people.becomes(f"clock{days}", "applied")


async def test_without_a_subject_a_confirmed_content_is_asked_anew(key: str, people: People) -> None:
    decisions = []
    for option in ("approve", "reject"):
        async with AsyncAttn(people.url, key, source=SOURCE, run="nightly-3") as attn:
            asked = asyncio.create_task(attn.ask("Run the job?", confirm=option == "reject"))

            async def item_of_question() -> Any:
                return [row for row in await people.items() if row["title"] == "Run the job?"]

            [item] = await until(item_of_question, "the question")
            await people.answer(item["source_id"], option)
            answer = await asked
            assert answer.option == option
            decisions.append(answer.decision)
            if option == "approve":  # without a confirmation, as after a crash, the client returns the same answer
                again = await attn.ask("Run the job?")
                assert again.decision == answer.decision
                await people.becomes(item["source_id"], "applied")
    assert len(set(decisions)) == 2


@pytest.mark.usefixtures("eager")
async def test_a_question_is_withdrawn_or_replaced_by_another_client(key: str, people: People) -> None:
    async with AsyncAttn(people.url, key, source=SOURCE) as attn, AsyncAttn(people.url, key, source=SOURCE) as other:
        asked = asyncio.create_task(attn.ask("A?", subject="gone-1"))
        await people.question("gone-1")
        assert await other.withdraw("gone-1")
        with pytest.raises(Withdrawn, match="gone-1"):
            await asked
        assert not await other.withdraw("gone-1")
        assert not await other.withdraw("never-asked")
        asked = asyncio.create_task(attn.ask("A?", subject="gone-1"))  # asked again: the item opens again
        await people.question("gone-1")
        new = asyncio.create_task(other.ask("B?", subject="gone-1"))
        with pytest.raises(Replaced):
            await asked
        await people.question("gone-1", title="B?")
        await people.answer("gone-1", "approve")
        assert (await new).approved


async def test_what_attn_refuses_is_a_typed_error(key: str, people: People, attn: AsyncAttn) -> None:
    with pytest.raises(EventRejected, match="on_expiry"):
        await attn.ask("x", on_expiry="no", options=["yes"])
    with pytest.raises(EventRejected, match="title"):
        await attn.ask("x" * 600)
    with pytest.raises(Forbidden, match="topic"):
        await attn.ask("x", kind="plan_approval")
    with pytest.raises(TypeError, match="not JSON"):
        await attn.ask("x", data={"payload": {"x": object()}})
    async with AsyncAttn(people.url, key[:-1] + ("0" if key[-1] != "0" else "1"), source=SOURCE) as wrong:
        with pytest.raises(Unauthorized):
            await wrong.ask("x")
    async with AsyncAttn(people.url, key, source="/elsewhere") as wrong:
        with pytest.raises(Forbidden, match="source"):
            await wrong.notify("x")
    async with AsyncAttn("http://127.0.0.1:9", key, source=SOURCE, patience=1) as nowhere:
        with pytest.raises(Unavailable):
            await nowhere.notify("x")
    with pytest.raises(asyncio.TimeoutError):
        await attn.ask("Nobody answers", subject="silence-1", timeout=0.5)


async def test_the_block_that_acts_confirms_or_refuses(attn: AsyncAttn, people: People) -> None:
    async def act(fails: bool) -> str:
        async with attn.asking("Migrate?", subject="migrate-1") as answer:
            assert not answer.confirmed
            if fails:
                raise RuntimeError("the table is locked")
        return answer.decision

    failed = asyncio.create_task(act(True))
    await people.answer("migrate-1", "approve")
    with pytest.raises(RuntimeError):
        await failed

    async def returned() -> Any:
        return [row for row in await people.items(source_id="migrate-1") if row["decision"].get("returned")]

    [item] = await until(returned, "the item is back")
    assert item["decision"]["state"] == "refused"
    assert item["decision"]["reason"] == "RuntimeError: the table is locked"
    succeeded = asyncio.create_task(act(False))
    await people.answer("migrate-1", "approve")
    assert await succeeded != item["decision"]["id"]
    await people.becomes("migrate-1", "applied")


async def test_messages_are_sent_once_and_withdrawn(attn: AsyncAttn, people: People) -> None:
    for _ in range(2):
        assert await attn.notify("Job done", subject="job-1", priority="low") == "job-1"
    named = await attn.notify("Job done")
    await people.question("job-1")
    await people.question(named)
    assert await attn.withdraw("job-1", kind="message")

    async def gone() -> bool:
        return not await people.items(source_id="job-1")

    await until(gone, "the message is withdrawn")


async def test_a_batch_goes_out_together(attn: AsyncAttn, people: People) -> None:
    some = [Question(f"Delete {name}?", subject=f"delete-{name}") for name in "abc"]
    asked = asyncio.create_task(attn.ask_many(some, batch="step 3 of the run"))
    for name in "ba":
        await people.answer(f"delete-{name}", "approve")
    assert await people.state("delete-a") == "made", "the decision did not wait for the rest of its batch"
    await people.answer("delete-c", "reject")
    assert [answer.option for answer in await asked] == ["approve", "approve", "reject"]


async def test_many_questions_share_one_poll(key: str, people: People) -> None:
    polls, most = set(), 0

    async def begun(session: Any, context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        nonlocal most
        if "Prefer" in params.headers:
            polls.add(id(context))
            most = max(most, len(polls))

    async def ended(session: Any, context: Any, params: Any) -> None:
        polls.discard(id(context))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begun)
    trace.on_request_end.append(ended)
    trace.on_request_exception.append(ended)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session, AsyncAttn(
            people.url, key, source=SOURCE, session=session) as attn:
        asked = [asyncio.create_task(attn.ask(f"Number {n}?", subject=f"n-{n}")) for n in range(30)]
        await asyncio.gather(*(people.answer(f"n-{n}", "approve" if n % 2 else "reject") for n in range(30)))
        answers = await asyncio.gather(*asked)
    assert [answer.subject for answer in answers] == [f"n-{n}" for n in range(30)]
    assert [answer.approved for answer in answers] == [bool(n % 2) for n in range(30)]
    assert most == 1


def test_the_synchronous_client_from_several_threads(key: str, people: People) -> None:
    answers: dict[str, Any] = {}
    with Attn(people.url, key, source=SOURCE) as attn:
        def ask(subject: str) -> None:
            answers[subject] = attn.ask("From a thread?", subject=subject)

        threads = [threading.Thread(target=ask, args=(f"thread-{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        for n in range(3):
            asyncio.run(people.answer(f"thread-{n}", "approve"))
        for thread in threads:
            thread.join(60)
        assert sorted(answers) == ["thread-0", "thread-1", "thread-2"]
        assert all(answer.approved for answer in answers.values())
        with pytest.raises(ZeroDivisionError), attn.asking("From a thread?", subject="thread-0"):
            raise ZeroDivisionError  # after the confirmation: the client does not refuse it
        named = attn.notify("From a thread")
        assert attn.withdraw(named, kind="message")
        assert attn.submit(Question("Later?", subject="later-1")) is None
        asyncio.run(people.answer("later-1", "approve"))

        async def decided() -> bool:
            return bool(await asyncio.to_thread(attn.submit, Question("Later?", subject="later-1")))

        asyncio.run(until(decided, "the answer of a question without a waiting caller"))
        assert [row["source_id"] for row in attn.items(subject="later-1", state="all")] == ["later-1"]
        assert attn.decisions(subject="thread-1")[0]["id"] == answers["thread-1"].decision
