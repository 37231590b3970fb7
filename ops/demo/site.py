"""Web pages of the answer desk. A page shows an open item with a button for each answer; a button sends an event.

The signature in a link cannot be guessed. So the pages need no login, and another site cannot forge a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import api
from api.http.protocol.server import listen, make_server
from ops.demo.desk import ANSWERS, AnswerDesk
from ops.demo.scenarios import PEOPLE
from schemas.scalars import format_timestamp
from streams.runtime.clock import now_us

__all__ = ["Send", "create_site", "serve"]

Send = Callable[[list[dict[str, Any]]], Awaitable[None]]

_STATIC = Path(api.__file__).parent / "static"
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
                               "frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
}
_REPEATED = ("case_id", "case_title", "task_id", "session_id", "cluster", "stack", "title")
# The subset of Markdown in the story's texts; the inbox supports all of it.
_MARKUP = re.compile(
    r"```\n(?P<samp>.+?)\n```|`(?P<code>.+?)`|\*\*(?P<strong>.+?)\*\*|\*(?P<em>.+?)\*", re.DOTALL)
_USER, _, _NAME = PEOPLE[0]

log = structlog.get_logger("attn.demo")


def create_site(desk: AnswerDesk, send: Send, inbox: str) -> Starlette:
    """Creates the app. `send` returns once Kafka has acknowledged the events, or raises. `inbox`: URL of the inbox."""
    css = b"".join((_STATIC / name).read_bytes() for name in ("page.css", "parts.css"))
    answering = asyncio.Lock()  # the first of two concurrent answers wins

    async def style(_: Request) -> Response:
        return Response(css, media_type="text/css", headers=_HEADERS)

    async def ask(request: Request) -> Response:
        event = _open_event(desk, request)
        return _page(inbox, *_question(request, event)) if event else _gone(inbox)

    async def answer(request: Request) -> Response:
        async with answering:
            event = _open_event(desk, request)
            choices, number = ANSWERS[event["type"]] if event else (), int(request.path_params["number"])
            if event is None or number >= len(choices):
                return _gone(inbox)
            choice = choices[number]
            await send([{
                **event, "id": f"desk-{secrets.token_hex(8)}", "type": choice.type,
                "time": format_timestamp(now_us()),
                "data": {**_context(event), **choice.data, "by_user_id": _USER},
            }])
            desk.mark_answered(event)
        log.info("demo item answered", type=choice.type, subject=event["subject"])
        return _page(inbox, f"{choice.label}: done", "<p>The item has left all lists.</p>")

    path = "/{signature}/{topic}/{subject}"
    return Starlette(routes=[
        Route("/desk.css", style), Route(path, ask), Route(path + "/{number:int}", answer, methods=["POST"]),
    ])


@contextlib.asynccontextmanager
async def serve(desk: AnswerDesk, send: Send, inbox: str, host: str) -> AsyncIterator[None]:
    """Serves the pages while the body runs: at the desk's port, or at a new one if that port is in use."""
    try:
        sock = listen(host, desk.port)
    except OSError as error:
        log.warning("the port of the demo's pages is in use; links of earlier events do not work", port=desk.port,
                    error=str(error))
        sock = listen(host, 0)
    desk.port = _port(sock)
    http = make_server(create_site(desk, send, inbox))
    serving = asyncio.create_task(http.serve(sockets=[sock]))
    try:
        yield
    finally:
        http.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        sock.close()


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _open_event(desk: AnswerDesk, request: Request) -> dict[str, Any] | None:
    return desk.opener(*(request.path_params[name] for name in ("signature", "topic", "subject")))


def _context(event: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of the opening event that a closing event repeats, for the facts of the history."""
    return {name: event["data"][name] for name in _REPEATED if name in event["data"]}


def _question(request: Request, event: dict[str, Any]) -> tuple[str, str]:
    data = event["data"]
    about = " · ".join(str(data[name]) for name in ("case_title", "cluster", "stack") if data.get(name))
    buttons = "".join(
        f'<form method="post" action="{escape(request.url.path)}/{number}">'
        f'<button class="button{"" if number else " primary"}">{escape(choice.label)}</button></form>'
        for number, choice in enumerate(ANSWERS[event["type"]]))
    hint = f"You answer as {escape(_NAME)}." if buttons else "No decision is needed: the item closes by itself."
    steps = "".join(f"<li>{escape(step['title'])} ({escape(step['mode'])})</li>" for step in data.get("steps", ()))
    return data["title"], (
        f'<p class="hint">{escape(about)}</p><p class="plain-text markdown">{_to_html(data.get("body_md") or "")}</p>'
        f'<div class="markdown"><ol>{steps}</ol></div>'
        f'<div class="actions">{buttons}</div>'
        f'<p class="hint">This page plays the application that asked. {hint}</p>')


def _to_html(text: str) -> str:
    def element(match: re.Match[str]) -> str:
        tag = str(match.lastgroup)
        return f"<{tag}>{match[tag]}</{tag}>"

    return _MARKUP.sub(element, escape(text))


def _gone(inbox: str) -> HTMLResponse:
    return _page(inbox, "Nothing waits here", "<p>It was answered already, or never asked.</p>", 410)


def _page(inbox: str, title: str, body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en" data-theme="auto"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="/desk.css"></head><body><main class="elsewhere"><h1>{escape(title)}</h1>{body}'
        f'<p><a class="button" href="{escape(inbox)}">To the inbox</a></p></main></body></html>', status, _HEADERS)
