"""Brings one decision to its thread, at most once: reads what became of earlier attempts, answers, reads the effect.

The run that an answer starts has the ids of its decisions in its metadata (`MARK`). So an attempt of a process that was
killed is found again, and the answer is not sent twice. Two processes that send at once are fenced by the server: the
second run finds its interrupt answered, and fails without an effect (`streams.connectors.langgraph.server`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.connectors.langgraph.dialects.asking import Answer, Misfit, Reading
from streams.connectors.langgraph.dialects.reading import read_interrupt
from streams.connectors.langgraph.events import ELSEWHERE, Location, QuestionId, digest_of_interrupt
from streams.connectors.langgraph.json_values import exact_numbers, rounded_number
from streams.connectors.langgraph.server import Interrupt, LangGraphServer, Run, Thread
from streams.connectors.peer import Decision, NotYet, Refused

__all__ = ["Effect", "answer_of", "bring"]

_FIRST_LOOK = 0.2  # seconds after an answer until its effect is read for the first time
_GONE = "the question is no longer waiting: somebody answered it elsewhere, or the run went on"


@dataclass(frozen=True, slots=True)
class Effect:
    """The answer took effect. `waits_again`: the thread waits with an interrupt of the same id again."""

    waits_again: bool


async def bring(
    server: LangGraphServer, location: Location, asked: QuestionId, decision: Decision, mates: Sequence[Decision],
) -> Effect | Refused | NotYet:
    """Brings a decision to its thread as far as it can get now. May be called any number of times.

    `mates`: the decisions in state `sending` about the same interrupt, this one included. Raises what `LangGraphServer`
    raises.
    """
    thread = (await server.threads([location.thread])).get(location.thread)
    if thread is None:
        return Refused("the thread was deleted")
    runs = await server.runs_marked(location.thread, decision["id"])
    # Read after the runs: a run that has ended there has its result in this state of the thread.
    thread = (await server.threads([location.thread])).get(location.thread, thread)
    waiting = thread.interrupt(location.interrupt)
    if runs:
        return await _judge(server, thread, runs, waiting)
    if thread.status == "busy":
        return NotYet("the thread is running")
    if waiting is None:
        return Refused(_GONE)
    if digest_of_interrupt(waiting) != asked.digest:
        return Refused("the thread asks another question now")
    return await _send(server, location, asked, waiting, decision, mates)


async def _judge(
    server: LangGraphServer, thread: Thread, runs: Sequence[Run], waiting: Interrupt | None,
) -> Effect | Refused | NotYet:
    """What became of an answer that was sent: its runs, and the state of the thread after them."""
    if any(run.status == "success" for run in runs):
        return Effect(waits_again=waiting is not None)
    for mark in sorted({run.mark for run in runs}):
        if await server.has_checkpoint(thread.id, mark):
            return Effect(waits_again=waiting is not None)
    if thread.status == "busy" or not all(run.has_ended for run in runs):
        return NotYet("the answer was sent, its run has not finished")
    if waiting is None:  # a cancelled run leaves no checkpoint where other questions of the step still wait
        return Effect(waits_again=False) if runs[0].status == "interrupted" else Refused(_GONE)
    return Refused(f"the agent refused the answer: {await server.error_of(thread.id)}")


async def _send(
    server: LangGraphServer, location: Location, asked: QuestionId, waiting: Interrupt, decision: Decision,
    mates: Sequence[Decision],
) -> Refused | NotYet:
    reading = read_interrupt(waiting.value, waiting.response_schema)
    try:
        own = _part(reading, asked.index, decision)
    except Misfit as misfit:
        return Refused(str(misfit))
    by_index = {asked.index: decision, **_by_index(location, asked, mates)}
    if len(by_index) < asked.count:
        return NotYet(f"waits for the other decisions of its batch: {len(by_index)} of {asked.count} are made")
    try:
        parts = [own if index == asked.index else _part(reading, index, by_index[index]) for index in sorted(by_index)]
    except Misfit as misfit:  # that one is refused by its own turn, and this one waits for the next decision
        return NotYet(f"waits for another decision of its batch: {misfit}")
    mark = " ".join(str(by_index[index]["id"]) for index in sorted(by_index))
    failed = await server.respond(location.thread, location.interrupt, reading.join(parts), mark, _deciders(by_index))
    if failed is None:
        return NotYet("the answer was sent", after=_FIRST_LOOK)
    error, message = failed
    if error in ("no_such_interrupt", "no_such_run"):
        return NotYet(f"the thread changes at this moment: {error}")  # the next call reads what it became
    return Refused(f"the server refused the answer: {error}: {message}"[:600])


def _part(reading: Reading, index: int, decision: Decision) -> Any:
    """What one decision adds to the resume value. Raises Misfit if it does not fit, or a number would be rounded."""
    if index >= len(reading.questions):
        raise Misfit("the question has fewer parts now")
    answer = answer_of(decision)
    if answer.option == ELSEWHERE:
        raise Misfit("the thread is still waiting: it was not answered there")
    part = reading.part(index, answer)
    if (number := rounded_number(part)) is not None:
        raise Misfit(f"LangGraph would round the number {number}: it reads 64-bit integers and doubles")
    return part


def _by_index(location: Location, asked: QuestionId, mates: Sequence[Decision]) -> dict[int, Decision]:
    """The decisions about the same state of the same interrupt, by the number of their question."""
    found: dict[int, Decision] = {}
    for mate in mates:
        other, other_location = QuestionId.of(mate["question"]["id"]), Location.of(mate["source_id"])
        if (other is not None and other_location is not None and other_location[:3] == location[:3]
                and (other.digest, other.count) == (asked.digest, asked.count)):
            found[other.index] = mate
    return found


def answer_of(decision: Decision) -> Answer:
    """Returns the answer of an entry of `GET /org/me/decisions`."""
    form: Mapping[str, Any] = exact_numbers(decision.get("form") or {})
    return Answer(str(decision.get("option") or ""), form, exact_numbers(decision.get("args")), decision.get("comment"))


def _deciders(by_index: Mapping[int, Decision]) -> str:
    users = [str(actor["user"]) for decision in by_index.values() for actor in decision.get("actors") or ()]
    return ", ".join(dict.fromkeys(users))[:500]
