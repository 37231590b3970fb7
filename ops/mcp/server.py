"""The MCP server on the official SDK: tools, cancellation, and errors as results that a model can act on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from ops.mcp.asker import Asker, AttnUnreachable, TooManyCallers
from ops.mcp.questions.arguments import InvalidArguments
from ops.mcp.questions.cancellation import is_timeout
from ops.mcp.tools import TOOLS, Call, Waits, call_tool, tool_error
from ops.mcp.waiting import TooManyWaiting
from streams.connectors.attn_client import AttnRefused, EventRejected

__all__ = ["Askers", "Disconnected", "build_server"]

log = structlog.get_logger("attn.mcp")

INSTRUCTIONS = (
    "People answer in the attn inbox. Use ask_human before anything that needs approval. If its status is `waiting`, "
    "call get_answer with the handle; never assume an answer. `expired` and `withdrawn` mean: not approved."
)
_KNOWN_CALLS = 10_000  # calls whose cancellation can still arrive


class Disconnected(Exception):
    """The caller of a request has closed its connection. Its question stays open."""


class Askers(Protocol):
    """Finds the asker of a request. `request`: the HTTP request, None over stdio."""

    async def of(self, request: Any) -> Asker: ...


class _Asked(NamedTuple):
    asker: Asker
    handle: str


class _Calls:
    """The questions of calls, by session and request id. A call that was cancelled is kept until it is pushed out: the
    SDK ends the handler before it passes the notification on."""

    def __init__(self) -> None:
        self._asked: OrderedDict[tuple[str, str], _Asked] = OrderedDict()

    def add(self, key: tuple[str, str], asked: _Asked) -> None:
        self._asked[key] = asked
        if len(self._asked) > _KNOWN_CALLS:
            self._asked.popitem(last=False)

    def pop(self, key: tuple[str, str]) -> _Asked | None:
        return self._asked.pop(key, None)


def build_server(askers: Askers, version: str, waits: Waits = Waits()) -> Server[Any]:  # noqa: B008 - immutable
    """Returns the server. It holds no question: `askers` reads and writes everything in attn."""
    calls = _Calls()

    async def list_tools(_: ServerRequestContext[Any, Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=TOOLS)

    async def handle_call(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        if params.name not in {tool.name for tool in TOOLS}:
            raise MCPError(INVALID_PARAMS, f"unknown tool: {params.name[:100]}")
        key = _key(context.request, context.request_id)
        try:
            asker = await askers.of(context.request)
            call = _call(context, asker, waits, lambda handle: calls.add(key, _Asked(asker, handle)))
            result = await call_tool(params.name, params.arguments, call)
        except Exception as error:
            calls.pop(key)
            return _error_result(error)
        calls.pop(key)
        return result

    async def watch_cancellation(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if ctx.method == "notifications/cancelled" and ctx.params is not None:
            asked = calls.pop(_key(ctx.request, ctx.params.get("requestId")))
            if asked is not None and not is_timeout(ctx.params.get("reason")):
                asked.asker.withdraw_later(asked.handle)
        return result

    server: Server[Any] = Server(
        "attn", version=version, title="attn", instructions=INSTRUCTIONS,
        on_list_tools=list_tools, on_call_tool=handle_call)
    server.middleware.append(watch_cancellation)
    return server


def _key(request: Any, request_id: Any) -> tuple[str, str]:
    """Returns the key of a call: its session (there is one over stdio) and its request id."""
    session = request.headers.get("mcp-session-id", "") if request is not None else "stdio"
    return session, str(request_id)


def _call(
    context: ServerRequestContext[Any, Any], asker: Asker, waits: Waits, named: Callable[[str], None],
) -> Call:
    async def progress(seconds: float, text: str) -> None:
        if context.request is not None and await context.request.is_disconnected():
            raise Disconnected
        await context.session.report_progress(round(seconds, 3), None, text)

    has_progress = bool(context.meta and context.meta.get("progress_token") is not None)
    return Call(asker, _sender(context), waits, has_progress, progress, named)


def _sender(context: ServerRequestContext[Any, Any]) -> str:
    """Returns the name of the client for the item, as its program gives it, not the model."""
    client = context.session.client_params
    name = client.client_info.name if client is not None else ""
    return "".join(char for char in name if char.isprintable())[:100].strip() or "mcp"


def _error_result(error: Exception) -> CallToolResult:
    """Returns the result that names the failure to the model. Any other error is logged, and its text is not
    shown."""
    if isinstance(error, InvalidArguments | TooManyWaiting | TooManyCallers | EventRejected | AttnRefused):
        return tool_error(str(error))
    if isinstance(error, AttnUnreachable):
        return tool_error("attn cannot be reached at the moment. Make the same call again later: what was asked before "
                          "stays asked, and nothing is asked twice")
    if isinstance(error, Disconnected):
        return tool_error("the caller has disconnected; the question stays open")
    log.error("a tool failed", exc_info=error)
    return tool_error(f"the call failed in attn mcp: {type(error).__name__}")
