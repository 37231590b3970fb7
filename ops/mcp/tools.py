"""The tools of the MCP server: their descriptions, and what each call does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from mcp.types import CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel

from ops.mcp.asker import Asker, AttnUnreachable
from ops.mcp.questions.answers import OUTPUT_SCHEMA
from ops.mcp.questions.arguments import (
    MAX_WAIT,
    AskHuman,
    GetAnswer,
    InvalidArguments,
    ListWaiting,
    NotifyHuman,
    Withdraw,
    input_schema,
    read_arguments,
)

T = TypeVar("T")

__all__ = ["TOOLS", "Call", "Waits", "call_tool", "tool_error"]


_CALL_SECONDS = 20.0  # of what a call does besides waiting
_MAX_LISTED = 100


class Waits(NamedTuple):
    """How long a call waits without `wait_seconds`: for a client that reports no progress, and for one that does."""

    silent: float = 50.0  # the default timeout of the TypeScript SDK's clients is 60 s
    progress: float = 300.0

    def of(self, asked: float | None, has_progress: bool) -> float:
        return min(asked if asked is not None else (self.progress if has_progress else self.silent), MAX_WAIT)


class Call(NamedTuple):
    """One call of a tool. `sender`: name of the client. `progress`: sends a progress notification (seconds, text), and
    raises if the caller has disconnected. `named`: gets the handle of the question that the call waits for."""

    asker: Asker
    sender: str
    waits: Waits
    has_progress: bool
    progress: Callable[[float, str], Awaitable[None]]
    named: Callable[[str], None]


def _tool(name: str, title: str, description: str, arguments: type[BaseModel], **hints: bool) -> Tool:
    output = OUTPUT_SCHEMA if arguments in (AskHuman, GetAnswer) else None
    return Tool(name=name, title=title, description=description, input_schema=input_schema(arguments),
                output_schema=output, annotations=ToolAnnotations(open_world_hint=True, **hints))


TOOLS = [
    _tool("ask_human", "Ask a person",
          "Asks people in the attn inbox and waits for their answer: a choice, a form, or a text. Use it before "
          "anything that needs approval, and for facts that only people know. The result has `status`: `answered` with "
          "`option`, `form`, `comment` and `decided_by`; `waiting` with a `handle`: call get_answer with it; `expired` "
          "or `withdrawn`: nobody approved. The same call again continues with the same question.",
          AskHuman, read_only_hint=False, destructive_hint=False, idempotent_hint=True),
    _tool("get_answer", "Get the answer of a person",
          "Waits for the answer to an earlier ask_human, by its handle. Works after restarts and in other sessions.",
          GetAnswer, read_only_hint=False, destructive_hint=False, idempotent_hint=True),
    _tool("notify_human", "Tell people something",
          "Puts a message into the attn inbox. Nobody has to answer it. Returns a handle for withdraw.",
          NotifyHuman, read_only_hint=False, destructive_hint=False, idempotent_hint=True),
    _tool("withdraw", "Withdraw a question or message",
          "Ends a question that needs no answer any more, or removes a message from the inbox.",
          Withdraw, read_only_hint=False, destructive_hint=True, idempotent_hint=True),
    _tool("list_waiting", "List open questions",
          "Lists the questions that wait for a person, and those whose answer was not fetched yet, with their handles.",
          ListWaiting, read_only_hint=True),
]


async def call_tool(name: str, arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    """Returns the result of a tool. Raises KeyError for an unknown tool.

    Raises InvalidArguments, TooManyWaiting, and the errors of the client, which `tool_error` turns into results.
    """
    return await _HANDLERS[name](arguments, call)


def tool_error(text: str) -> CallToolResult:
    """Returns the result that names the failure and what the model can do."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


async def _ask_human(arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    asked = read_arguments(AskHuman, arguments)
    if asked.handle is None:
        handle = await _in_time(call.asker.ask(asked, call.sender, call.named))
    else:
        handle = asked.handle
        _check_question(handle)
        call.named(handle)
    return await _wait(call, handle, asked.wait_seconds, asked.handle is None)


async def _get_answer(arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    wanted = read_arguments(GetAnswer, arguments)
    _check_question(wanted.handle)
    return await _wait(call, wanted.handle, wanted.wait_seconds, False)


async def _wait(call: Call, handle: str, wanted: float | None, asked: bool) -> CallToolResult:
    """Waits for the answer and hands it out. `asked`: attn has the question durably, though no worker may have read
    it."""
    began = time.monotonic()
    text = f"waiting for a person; handle {handle}"
    await call.progress(0, text)

    async def tick() -> None:
        await call.progress(time.monotonic() - began, text)

    standing = await call.asker.wait(handle, call.waits.of(wanted, call.has_progress), tick, asked)
    await call.progress(time.monotonic() - began, standing.status)  # raises if nobody takes the result
    if standing.status == "answered":
        call.asker.hand_out(standing)
    return _result(standing.result)


async def _notify_human(arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    handle = await _in_time(call.asker.notify(read_arguments(NotifyHuman, arguments), call.sender))
    return _result({"status": "sent", "handle": handle, "message": "The message is in the inbox."})


async def _withdraw(arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    handle = read_arguments(Withdraw, arguments).handle
    if handle.startswith("note_"):
        await _in_time(call.asker.withdraw_notice(handle))
        return _result({"status": "withdrawn", "handle": handle, "message": "The message is withdrawn."})
    standing = await _in_time(call.asker.withdraw(handle))
    if standing.status == "withdrawn":
        return _result(standing.result | {"message": "The question is withdrawn."})
    return _result(standing.result)


async def _list_waiting(arguments: dict[str, Any] | None, call: Call) -> CallToolResult:
    read_arguments(ListWaiting, arguments)
    questions = await _in_time(call.asker.open_questions())
    return _result({"questions": questions[:_MAX_LISTED], "count": len(questions)})


_HANDLERS: dict[str, Callable[[dict[str, Any] | None, Call], Awaitable[CallToolResult]]] = {
    "ask_human": _ask_human, "get_answer": _get_answer, "notify_human": _notify_human, "withdraw": _withdraw,
    "list_waiting": _list_waiting,
}


async def _in_time(work: Awaitable[T]) -> T:
    """Raises AttnUnreachable if attn does not answer in time."""
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return await work
    except TimeoutError:
        raise AttnUnreachable from None


def _check_question(handle: str) -> None:
    if handle.startswith("note_"):
        raise InvalidArguments("handle: names a message, which nobody answers; withdraw accepts it")


def _result(document: dict[str, Any]) -> CallToolResult:
    """Returns a result as structured content, and as text for clients that show only text."""
    text = json.dumps(document, ensure_ascii=False)
    return CallToolResult(content=[TextContent(text=text)], structured_content=document)
