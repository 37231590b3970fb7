"""Delivery of a decision to a LangGraph thread. The result depends on earlier attempts, in any order of crashes and
races. test_langgraph.py uses the real server; these tests use states that it reaches rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from streams.connectors.attn_client import ExactNumber
from streams.connectors.langgraph.answering import Effect, answer_of, bring
from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.events import Location, QuestionId, digest_of_interrupt, opening_events
from streams.connectors.langgraph.server import Interrupt, Run, Thread
from streams.connectors.peer import NotYet, Refused

ASKED = Interrupt("i1", "why?")
CALLS = Interrupt("i1", {
    "action_requests": [{"name": "a", "args": {"x": 1}}, {"name": "b", "args": {}}],
    "review_configs": [{"action_name": name, "allowed_decisions": ["approve", "edit"]} for name in "ab"]})


class Server:
    """A LangGraph server in one state. `sent`: the answers that it received; `answers`: its responses to them."""

    def __init__(
        self, thread: Thread | None, *runs: Run, checkpoints: Sequence[str] = (), error: tuple[str, str] | None = None,
    ) -> None:
        self.thread, self.runs, self.checkpoints, self.error = thread, runs, checkpoints, error
        self.sent: list[tuple[Any, ...]] = []

    async def threads(self, ids: Sequence[str]) -> dict[str, Thread]:
        return {self.thread.id: self.thread} if self.thread is not None and self.thread.id in ids else {}

    async def runs_marked(self, thread_id: str, decision: str) -> list[Run]:
        return [run for run in self.runs if decision in run.mark.split()]

    async def has_checkpoint(self, thread_id: str, mark: str) -> bool:
        return mark in self.checkpoints

    async def error_of(self, thread_id: str) -> str:
        return "ValueError: no"

    async def respond(self, *sent: Any) -> tuple[str, str] | None:
        self.sent.append(sent)
        return self.error


def thread(status: str = "interrupted", *interrupts: Interrupt) -> Thread:
    return Thread("t1", status, interrupts, {}, "2026-11-30T12:00:00+00:00")


def decision(name: str = "dec_1", interrupt: Interrupt = ASKED, index: int = 0, count: int = 1, **more: Any) -> Any:
    question_id = QuestionId(interrupt.id, digest_of_interrupt(interrupt), index, count)
    return {"id": name, "source_id": Location("prod", "t1", interrupt.id, index, count == 1).subject,
            "question": {"id": str(question_id)}, "option": "answer", "form": {"answer": "yes"},
            "actors": [{"user": "ann"}], **more}


def outcome(server: Server, first: Any = None, *others: Any) -> Any:
    first = first or decision()
    location, question_id = Location.of(first["source_id"]), QuestionId.of(first["question"]["id"])
    assert location is not None
    assert question_id is not None
    return asyncio.run(bring(server, location, question_id, first, [first, *others]))  # type: ignore[arg-type]


def test_a_question_that_waits_is_answered_once_with_its_mark() -> None:
    server = Server(thread("interrupted", ASKED))
    assert outcome(server) == NotYet("the answer was sent", after=0.2)
    assert server.sent == [("t1", "i1", "yes", "dec_1", "ann")]


@pytest.mark.parametrize(("status", "interrupts", "runs", "checkpoints", "expected"), [
    # An earlier attempt started the run of the answer: the connector sends nothing again.
    ("idle", [], ["success"], [], Effect(False)),
    ("interrupted", [ASKED], ["success"], [], Effect(True)),  # the same node asks the same question again
    ("busy", [ASKED], ["running"], [], NotYet),
    ("busy", [ASKED], ["pending"], [], NotYet),
    ("busy", [], ["running"], ["dec_1"], Effect(False)),  # the run continued after the answer, and is in progress
    ("busy", [ASKED], ["error"], [], NotYet),  # another run is in progress; its end decides the outcome
    ("error", [ASKED], ["error"], [], "the agent refused the answer: ValueError: no"),
    ("error", [ASKED], ["timeout"], [], "the agent refused the answer"),
    ("error", [], ["error"], ["dec_1"], Effect(False)),  # a later node of the graph failed
    ("error", [], ["error"], [], "no longer waiting"),  # fenced: another answer came first
    ("error", [Interrupt("i2", "next?")], ["error"], [], "no longer waiting"),
    ("error", [Interrupt("i2", "next?")], ["error", "success"], [], Effect(False)),  # a second connector was fenced
    ("idle", [], ["interrupted"], [], Effect(False)),
    ("interrupted", [ASKED], ["interrupted"], [], "the agent refused the answer"),
    # No earlier attempt.
    ("busy", [ASKED], [], [], NotYet),
    ("idle", [], [], [], "no longer waiting"),
    ("interrupted", [Interrupt("i2", "next?")], [], [], "no longer waiting"),
    ("interrupted", [Interrupt("i1", "DROP?")], [], [], "asks another question now"),
], ids=str)
def test_nothing_is_sent_twice_or_to_another_question(
    status: str, interrupts: list[Interrupt], runs: list[str], checkpoints: list[str], expected: Any,
) -> None:
    made = [Run(f"r{number}", state, "dec_1") for number, state in enumerate(runs)]
    server = Server(thread(status, *interrupts), *made, checkpoints=checkpoints)
    result = outcome(server)
    assert server.sent == []
    if isinstance(expected, str):
        assert isinstance(result, Refused)
        assert expected in result.reason
    elif isinstance(expected, type):
        assert isinstance(result, expected)
    else:
        assert result == expected


def test_a_deleted_thread_refuses() -> None:
    assert outcome(Server(None)) == Refused("the thread was deleted")


@pytest.mark.parametrize(("error", "expected"), [
    ("no_such_interrupt", NotYet), ("no_such_run", NotYet), ("invalid_argument", Refused), ("unsupported", Refused)])
def test_an_error_with_status_200_is_no_success(error: str, expected: type) -> None:
    result = outcome(Server(thread("interrupted", ASKED), error=(error, "text")))
    assert isinstance(result, expected)
    assert error in result.reason


def test_a_batch_goes_out_together_and_each_member_finds_its_run() -> None:
    first = decision("dec_1", CALLS, 0, 2, option="approve", form=None)
    second = decision("dec_2", CALLS, 1, 2, option="edit", form=None, args={"y": ExactNumber("1.50")})
    server = Server(thread("interrupted", CALLS))
    alone = outcome(server, first)
    assert isinstance(alone, NotYet)
    assert "1 of 2" in alone.reason
    assert server.sent == []
    other_state = decision("dec_3", replace(CALLS, value={**CALLS.value, "x": 1}), 1, 2, option="approve")
    assert "1 of 2" in outcome(server, first, other_state).reason
    assert outcome(server, second, first) == NotYet("the answer was sent", after=0.2)
    [(_, _, response, mark, deciders)] = server.sent
    assert mark == "dec_1 dec_2"
    assert deciders == "ann"
    assert str(response) == ("{'decisions': [{'type': 'approve'}, {'type': 'edit', 'edited_action': "
                             "{'name': 'b', 'args': {'y': Decimal('1.50')}}}]}")
    # After a crash the other decision of the batch is already reported, and no longer listed.
    ended = Server(thread("idle"), Run("r", "success", "dec_1 dec_2"))
    assert outcome(ended, second) == Effect(False)


def test_a_member_of_a_batch_that_does_not_fit_is_refused_and_the_others_wait() -> None:
    good = decision("dec_1", CALLS, 0, 2, option="approve", form=None)
    bad = decision("dec_2", CALLS, 1, 2, option="reject", form=None)
    server = Server(thread("interrupted", CALLS))
    assert isinstance(outcome(server, bad, good), Refused)
    assert isinstance(outcome(server, good, bad), NotYet)
    assert server.sent == []


def test_numbers_of_an_answer_keep_their_digits_and_rounded_ones_are_refused() -> None:
    answer = answer_of({"option": "x", "form": {"a": ExactNumber("1.10"), "b": [ExactNumber("1e400"), 2]}})
    assert str(answer.form) == "{'a': Decimal('1.10'), 'b': [Decimal('1E+400'), 2]}"
    approval = decision("dec_1", CALLS, 0, 1, option="approve")
    assert isinstance(outcome(Server(thread("interrupted", CALLS)), approval), NotYet)
    server = Server(thread("interrupted", ASKED))
    result = outcome(server, decision(option="json", form={"json": "12345678901234567890123"}))
    assert isinstance(result, Refused)
    assert "would round the number" in result.reason
    assert server.sent == []


def test_arguments_that_attn_cannot_show_are_not_approved() -> None:
    deployment = Deployment("prod", "http://127.0.0.1:1")
    large = Interrupt("i1", {"action_requests": [{"name": "a", "args": {"x": "y" * 70_000}}],
                             "review_configs": [{"action_name": "a", "allowed_decisions": ["approve", "reject"]}]})
    only = replace(large, value={**large.value, "review_configs": [
        {"action_name": "a", "allowed_decisions": ["approve"]}]})
    [event] = opening_events(deployment, thread("interrupted", large))
    assert [option["id"] for option in event["data"]["ask"]["options"]] == ["reject"]
    assert "are larger than attn shows" in event["data"]["body_md"]
    [event] = opening_events(deployment, thread("interrupted", only))
    assert [option["id"] for option in event["data"]["ask"]["options"]] == ["elsewhere"]
    result = outcome(Server(thread("interrupted", only)), decision("dec_1", only, option="elsewhere", form=None))
    assert isinstance(result, Refused)
    assert "still waiting" in result.reason
