"""OpenAI Agents SDK: people approve tool calls in attn, while the run waits as a saved `RunState`.

    outcome = await run(attn, agent, "Refund order 17", name="refund-17", store=FileStore("runs"))

A saved `RunState` can be loaded and resumed any number of times, and its tools run each time. The adapter uses a
snapshot once: attn records that an answer was taken before the tools run, and a snapshot whose answer was taken is
refused with `AlreadyUsed`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from attn_client import exact
from attn_client.adapters.tool_calls import tool_question
from attn_client.client import AsyncAttn
from attn_client.errors import AttnError
from attn_client.questions import Answer, Question

__all__ = ["AlreadyUsed", "FileStore", "Outcome", "Store", "decide", "run"]


class AlreadyUsed(AttnError):
    """The answers of a snapshot were taken before. Its tools may have run; a repeat would run them again."""


class Store(Protocol):
    """Keeps one text per run. `save` replaces it atomically and durably."""

    def load(self, name: str) -> str | None: ...
    def save(self, name: str, text: str) -> None: ...


class FileStore:
    """Keeps each run in a file of one folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> str | None:
        path = self._path(name)
        return path.read_text(encoding="utf-8") if path.exists() else None

    def save(self, name: str, text: str) -> None:
        path = self._path(name)
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.json"


@dataclass(frozen=True)
class Outcome:
    """The end of a run. `result`: the SDK's result; None if the run had ended before this call."""

    final_output: Any
    result: Any = None


async def run(
    attn: AsyncAttn, agent: Any, input: Any, *, name: str, store: Store, fields: Mapping[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    """Runs an agent to its end. People answer the tool calls that need approval.

    `name` identifies the run. The same name again, after a crash or a restart, continues at the saved state, and
    `input` is not used; a run that has ended returns its output again. One process at a time may run one name.
    `fields`: further fields of each `Question`, such as `to_role`. `more`: arguments of `Runner.run`.

    Raises AlreadyUsed if the process was killed after the answers were taken and before the next state was saved: the
    tools may have run, and only the application can know.
    """
    from agents import Runner, RunState

    saved = store.load(name)
    if saved is None:
        result = await Runner.run(agent, input, **more)
    else:
        record = json.loads(saved)
        if record["status"] == "ended":
            return Outcome(record["final_output"])
        state = await decide(attn, await RunState.from_string(agent, record["state"]), name=name, fields=fields)
        result = await Runner.run(agent, state, **more)
    while result.interruptions:
        text = result.to_state().to_string()
        store.save(name, json.dumps({"status": "waiting", "state": text}))
        state = await decide(attn, await RunState.from_string(agent, text), name=name, fields=fields)
        result = await Runner.run(agent, state, **more)
    output = result.final_output if _is_json(result.final_output) else str(result.final_output)
    store.save(name, json.dumps({"status": "ended", "final_output": output}))
    return Outcome(result.final_output, result)


async def decide(attn: AsyncAttn, state: Any, *, name: str, fields: Mapping[str, Any] | None = None) -> Any:
    """Asks about each tool call that waits in a `RunState`, enters the answers, and returns the state.

    When it returns, attn has recorded that the answers are taken: resume the state at once with `Runner.run`. Raises
    AlreadyUsed if the answers of this state were taken before.
    """
    items = state.get_interruptions()
    asked = [replace(_question(item, name), **(fields or {})) for item in items]
    answers = await attn.ask_many(asked, batch=name if len(asked) > 1 else None, confirm=False)
    used = [answer for answer in answers if answer.confirmed]
    if used:
        raise AlreadyUsed(
            f"the answer {used[0].decision} of run {name!r} was taken before; start a run with another name, or find "
            "out whether its tools have run")
    for item, answer in zip(items, answers, strict=True):
        if answer.approved:
            state.approve(item)
        else:
            state.reject(item, rejection_message=_rejection(answer))
    for answer in answers:
        await attn.applied(answer)
    return state


def _question(item: Any, name: str) -> Question:
    raw = item.raw_item
    read = dict(raw) if isinstance(raw, Mapping) else vars(raw)
    call = read.get("call_id") or read.get("id")
    try:
        args = exact.loads(item.arguments or "{}")
    except ValueError:
        args = {"arguments": item.arguments}
    if not isinstance(args, dict):
        args = {"arguments": args}
    agent = getattr(item.agent, "name", None)
    return tool_question(
        item.qualified_name or item.name or "tool", args, ("approve", "reject"), f"{name}/{call}",
        body=f"Agent: {agent}" if agent else None)


def _rejection(answer: Answer) -> str:
    return answer.comment or "A person rejected this tool call. Do not retry it unless the user asks for it."


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
