"""LangGraph: people answer a graph's interrupts in attn.

Understands LangChain's `HumanInTheLoopMiddleware` (batched and per call), agent-inbox's `HumanInterrupt`, interrupts
with a `response_schema`, and any other value, which is answered by a text.

    result = await invoke(attn, graph, {"messages": [...]}, {"configurable": {"thread_id": "17"}})

Interrupts are answered one at a time: LangGraph may have run the tools of the other answers when one of several is
invalid. The subject of a question is the thread, the interrupt's id and the number of answers that its task has got:
LangGraph gives two interrupts of one node the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attn_client.adapters.tool_calls import form_for, shown, tool_question, value_of
from attn_client.client import AsyncAttn
from attn_client.questions import Answer, Option, Question

__all__ = ["Mapped", "invoke", "questions_of"]

_RESUME = "__resume__"  # LangGraph's channel of the answers that a task has got
_ALL = ("approve", "edit", "reject", "respond")


@dataclass(frozen=True)
class Mapped:
    """The questions of one interrupt, and the function that makes the resume value from their answers.

    `resume` raises ValueError if the answers do not give a value.
    """

    questions: Sequence[Question]
    resume: Callable[[Sequence[Answer]], Any]


@dataclass(frozen=True)
class _Pending:
    subject: str
    interrupt: Any


async def invoke(
    attn: AsyncAttn, graph: Any, input: Any, config: Mapping[str, Any], *, fields: Mapping[str, Any] | None = None,
    mapping: Callable[[Any, str], Mapped | None] | None = None, **more: Any,
) -> Any:
    """Runs a graph until it ends, with `graph.ainvoke`, and returns its last result. People answer its interrupts.

    A thread that has not ended continues, and `input` is not used: call it again after a crash.
    `fields`: further fields of each `Question`, such as `to_role`. `mapping`: gets the interrupt and the subject, and
    returns questions for an own kind of value, or None for the default. The graph needs a checkpointer and a
    `thread_id`.

    A confirmed answer is one that the graph has taken. An answer that the graph refuses (`response_schema`) returns to
    the people with the reason, and is asked again. Other exceptions of the graph propagate.
    """
    from langgraph.types import Command

    options = {**config}
    state = await graph.aget_state(options)
    result = None
    if not state.next:
        result = await graph.ainvoke(input, options, **more)
    elif any(task.error for task in state.tasks) or not any(task.interrupts for task in state.tasks):
        result = await graph.ainvoke(None, options, **more)  # failed after an answer, or was killed: run it again
    while pending := await _pending(graph, options):
        interrupt, answers = await _first_answer(attn, pending, fields or {}, mapping)
        try:
            value = interrupt.mapped.resume(answers)
            result = await graph.ainvoke(Command(resume={interrupt.pending.interrupt.id: value}), options, **more)
        except Exception as error:
            is_pending = any(one.subject == interrupt.pending.subject for one in await _pending(graph, options))
            for answer in answers:
                if is_pending:
                    await attn.refused(answer, f"{type(error).__name__}: {error}")
                else:
                    await attn.applied(answer)
            if not (is_pending and isinstance(error, ValueError)):  # pydantic's ValidationError is a ValueError
                raise
        else:
            for answer in answers:
                await attn.applied(answer)
    return result


@dataclass(frozen=True)
class _Asked:
    pending: _Pending
    mapped: Mapped


async def _first_answer(
    attn: AsyncAttn, pending: Sequence[_Pending], fields: Mapping[str, Any],
    mapping: Callable[[Any, str], Mapped | None] | None,
) -> tuple[_Asked, list[Answer]]:
    """Asks the questions of all pending interrupts, and returns the first interrupt whose questions are answered."""
    asked: dict[asyncio.Task[list[Answer]], _Asked] = {}
    for one in pending:
        mapped = (mapping and mapping(one.interrupt, one.subject)) or questions_of(one.interrupt, one.subject)
        some = [replace(question, **fields) for question in mapped.questions]
        batch = one.subject if len(some) > 1 else None
        asked[asyncio.create_task(attn.ask_many(some, batch=batch, confirm=False))] = _Asked(one, mapped)
    try:
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        task = next(task for task in asked if task in done)
        return asked[task], task.result()
    finally:  # the other questions stay, and the next round continues them
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _pending(graph: Any, config: dict[str, Any]) -> list[_Pending]:
    """Returns the interrupts that wait for an answer, in the order of the tasks."""
    thread = config["configurable"]["thread_id"]
    return await _pending_of(graph, await graph.aget_state(config, subgraphs=True), str(thread))


async def _pending_of(graph: Any, state: Any, thread: str) -> list[_Pending]:
    saved = await graph.checkpointer.aget_tuple(state.config) if any(one.interrupts for one in state.tasks) else None
    given = {task: len(value) for task, channel, value in (saved.pending_writes if saved else None) or ()
             if channel == _RESUME and isinstance(value, list)}
    found: list[_Pending] = []
    for task in state.tasks:
        if hasattr(task.state, "tasks"):  # a subgraph, which keeps the answers of its own tasks
            found += await _pending_of(graph, task.state, thread)
        else:
            found += [_Pending(f"{thread}/{one.id}/{given.get(task.id, 0)}", one) for one in task.interrupts]
    return found


def questions_of(interrupt: Any, subject: str) -> Mapped:
    """Returns the questions of an interrupt by the form of its value."""
    value, schema = interrupt.value, _schema(getattr(interrupt, "response_schema", None))
    first = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, Mapping) and {"action_requests", "review_configs"} <= value.keys():
        return _hitl(value, subject)
    if isinstance(value, Mapping) and value.get("type") == "tool_approval":
        question = tool_question(
            value["name"], value["args"], _allowed(schema), subject, body=value.get("description") or None)
        return Mapped([question], lambda answers: _decision(answers[0], value["name"]))
    if isinstance(first, Mapping) and {"action_request", "config"} <= first.keys():
        return _human_interrupt(first, subject)
    return _any_value(value, schema, subject)


def _hitl(value: Mapping[str, Any], subject: str) -> Mapped:
    """A batch of LangChain's middleware: one question per call, answers in the same order."""
    calls, configs = value["action_requests"], value["review_configs"]
    asked = [
        tool_question(call["name"], call["args"], config["allowed_decisions"], f"{subject}/{number}",
                      body=call.get("description"))
        for number, (call, config) in enumerate(zip(calls, configs, strict=True))]
    return Mapped(asked, lambda answers: {
        "decisions": [_decision(answer, call["name"]) for answer, call in zip(answers, calls, strict=True)]})


def _decision(answer: Answer, name: str) -> dict[str, Any]:
    """Returns a decision of LangChain's middleware."""
    if answer.does == "approve":
        return {"type": "approve"}
    if answer.does == "edit":
        return {"type": "edit", "edited_action": {"name": name, "args": dict(answer.args or {})}}
    if answer.does == "respond":
        return {"type": "respond", "message": answer.form.get("message", "")}
    return {"type": "reject", **({"message": answer.comment} if answer.comment else {})}


def _human_interrupt(value: Mapping[str, Any], subject: str) -> Mapped:
    """agent-inbox: the resume value is a list with one response."""
    request, config = value["action_request"], value["config"]
    names = {"approve": "allow_accept", "edit": "allow_edit", "respond": "allow_respond"}
    allowed = [id for id, name in names.items() if config.get(name)]
    question = tool_question(
        request["action"], request.get("args") or {}, allowed, subject, body=value.get("description"))
    if config.get("allow_ignore"):
        options = [*(question.options or ()), Option("ignore", "ignore", title="Ignore")]
        question = replace(question, options=options)

    def resume(answers: Sequence[Answer]) -> list[dict[str, Any]]:
        [answer] = answers
        if answer.does == "approve":
            return [{"type": "accept", "args": dict(request)}]
        if answer.does == "edit":
            return [{"type": "edit", "args": {"action": request["action"], "args": dict(answer.args or {})}}]
        if answer.does == "respond":
            return [{"type": "response", "args": answer.form.get("message", "")}]
        return [{"type": "ignore", "args": None}]

    return Mapped([question], resume)


def _any_value(value: Any, schema: Any, subject: str) -> Mapped:
    """Any other value: a form by the response schema, or a text."""
    form = form_for(schema)
    named = value.get("question") or value.get("title") if isinstance(value, Mapping) else value
    fits = isinstance(named, str) and 0 < len(named) <= 200 and "\n" not in named
    title = str(named) if fits else "The graph has a question"
    question = Question(title, None if title == value else shown(value), form=form, subject=subject)
    return Mapped([question], lambda answers: value_of(answers[0], form))


def _schema(schema: Any) -> Any:
    """Returns a response schema as JSON Schema; LangGraph keeps a type, or the schema of the type."""
    if schema is None or isinstance(schema, Mapping):
        return schema
    from pydantic import TypeAdapter

    return TypeAdapter(schema).json_schema()


def _allowed(schema: Any) -> list[str]:
    """Returns the decisions that a per-call schema allows: the constants of the members `type`."""
    found: set[str] = set()
    stack: list[Any] = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, Mapping):
            kind = one.get("properties", {}).get("type") if isinstance(one.get("properties"), Mapping) else None
            if isinstance(kind, Mapping):
                found.update(name for name in _ALL if name == kind.get("const") or name in kind.get("enum", ()))
            stack += one.values()
        elif isinstance(one, list):
            stack += one
    return [name for name in _ALL if name in found] or ["approve", "reject"]
