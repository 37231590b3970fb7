"""Client of a LangGraph server's REST API: waiting threads, runs with a mark, and answers by interrupt id.

The client never resumes a thread by a bare value or by `runs`: such an answer may reach another question.
`input.respond` checks the id when the server takes the command, and `__pregel_strict_resume`
(`strict_resume` of LangGraph's SDK) checks it once more when the run starts. Without the second check a repeated
answer answers the next question of the same node: measured with langgraph 1.2.24.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.json_values import json_text
from streams.connectors.peer import PeerUnavailable

__all__ = ["MARK", "Interrupt", "LangGraphServer", "Run", "Thread"]

MARK = "attn_decision"  # metadata of the run that an answer starts: the ids of its decisions
_DECIDED_BY = "attn_decided_by"

_PAGE = 100  # threads or runs of one request
_LARGE_PAGE = 1000  # failed threads, which the server keeps and which mostly ask nothing; it allows no larger page
_MAX_RUNS = 1000  # of one thread, the newest first, among which the run of a decision is searched
_SELECTED = ["thread_id", "status", "interrupts", "metadata", "updated_at", "state_updated_at"]
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_MAX_ERROR = 600  # characters of a run's error in the reason that a person reads


@dataclass(frozen=True, slots=True)
class Interrupt:
    id: str
    value: Any
    response_schema: Any = None


@dataclass(frozen=True, slots=True)
class Thread:
    """`updated_at`: when its state was last changed, RFC 3339."""

    id: str
    status: str
    interrupts: Sequence[Interrupt]
    metadata: Mapping[str, Any]
    updated_at: str

    def interrupt(self, interrupt_id: str) -> Interrupt | None:
        return next((found for found in self.interrupts if found.id == interrupt_id), None)


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    status: str  # pending, running, success, error, timeout, interrupted
    mark: str

    @property
    def has_ended(self) -> bool:
        return self.status not in ("pending", "running")


class LangGraphServer:
    """One deployment. Every method raises PeerUnavailable or an aiohttp error if the server does not answer."""

    def __init__(self, deployment: Deployment, session: aiohttp.ClientSession) -> None:
        self.deployment = deployment
        self._session = session

    async def waiting(self) -> AsyncIterator[Thread]:
        """Yields the threads that have interrupts: interrupted ones, and those whose last run failed."""
        for status, limit in (("interrupted", _PAGE), ("error", _LARGE_PAGE)):
            offset, found = 0, limit
            while found == limit:
                page = await self._search({
                    "status": status, "limit": limit, "offset": offset, "sort_by": "created_at", "sort_order": "asc"})
                for thread in page:
                    if thread.interrupts:
                        yield thread
                found, offset = len(page), offset + len(page)

    async def threads(self, ids: Sequence[str]) -> dict[str, Thread]:
        """Returns the threads of these ids by id; a thread that was deleted is missing.

        A thread that the search misses is asked for by its id: a server may not know the filter `ids`.
        """
        found: dict[str, Thread] = {}
        for start in range(0, len(ids), _PAGE):
            wanted = list(ids[start:start + _PAGE])
            page = await self._page({"ids": wanted, "limit": _PAGE})
            found |= {thread.id: thread for thread in page if thread.id in wanted}
        for missed in [one for one in ids if one not in found]:
            entry = await self._request("GET", f"/threads/{missed}")
            if isinstance(entry, dict):
                found[missed] = _thread(entry)
        return found

    async def runs_marked(self, thread_id: str, decision: str) -> list[Run]:
        """Returns the runs of a thread that answers with this decision have started, the newest first."""
        found: list[Run] = []
        for offset in range(0, _MAX_RUNS, _PAGE):
            query = [("limit", str(_PAGE)), ("offset", str(offset)),
                     *(("select", name) for name in ("run_id", "status", "metadata"))]
            entries = await self._list("GET", f"/threads/{thread_id}/runs", params=query)
            found += [run for entry in entries if decision in (run := _run(entry)).mark.split()]
            if len(entries) < _PAGE:
                break
        return found

    async def has_checkpoint(self, thread_id: str, mark: str) -> bool:
        """Returns whether a run with this mark has written a checkpoint: then its answer took effect."""
        body = {"limit": 1, "metadata": {MARK: mark}}
        return bool(await self._list("POST", f"/threads/{thread_id}/history", body))

    async def error_of(self, thread_id: str) -> str:
        """Returns why the last run of a thread failed."""
        thread = await self._request("GET", f"/threads/{thread_id}")
        error = thread.get("error") if isinstance(thread, dict) else None
        if not isinstance(error, dict):
            return "the run failed"
        text = f"{error.get('error') or 'error'}: {error.get('message') or 'no message'}"
        return text if len(text) <= _MAX_ERROR else text[:_MAX_ERROR] + "…"

    async def respond(
        self, thread_id: str, interrupt_id: str, response: Any, mark: str, decided_by: str,
    ) -> tuple[str, str] | None:
        """Answers one interrupt by its id. Returns None if the server took the answer, else its error and message.

        Success is no effect yet: the server has only queued a run. Its metadata has the mark.
        """
        command = {"id": 1, "method": "input.respond", "params": {
            "interrupt_id": interrupt_id, "response": response,
            "metadata": {MARK: mark, _DECIDED_BY: decided_by},
            "config": {"configurable": {"__pregel_strict_resume": True}}}}
        answer = await self._request("POST", f"/threads/{thread_id}/commands", command)
        if isinstance(answer, dict) and answer.get("type") == "success":
            return None
        if answer is None:
            return "unsupported", "the server has no POST /threads/{id}/commands; it needs a newer langgraph-api"
        answer = answer if isinstance(answer, dict) else {}
        return str(answer.get("error") or "unknown_error"), str(answer.get("message") or answer.get("detail") or "")

    async def _search(self, body: dict[str, Any]) -> list[Thread]:
        """Returns one page. A thread that cannot be read does not hide the others of its page."""
        try:
            return await self._page(body)
        except _Unreadable:
            if body["limit"] == 1:
                return [Thread("", "", (), {}, "")]  # keeps its place: the page counts as full
            threads: list[Thread] = []
            for offset in range(body["offset"], body["offset"] + body["limit"]):
                threads += await self._search({**body, "limit": 1, "offset": offset})
            return threads

    async def _page(self, body: dict[str, Any]) -> list[Thread]:
        page = await self._list("POST", "/threads/search", {**body, "select": _SELECTED})
        return [_thread(entry) if isinstance(entry, dict) else Thread("", "", (), {}, "") for entry in page]

    async def _list(self, method: str, path: str, body: Any = None, params: Any = None) -> list[Any]:
        """Returns a list. Raises PeerUnavailable for another answer: an empty list must not be guessed."""
        answer = await self._request(method, path, body, params)
        if not isinstance(answer, list):
            raise PeerUnavailable(f"{self.deployment.name}: {method} {path} answers no list; is it a LangGraph server?")
        return answer

    async def _request(self, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        """Returns the parsed answer, None for 404. LangGraph's own parser reads numbers as orjson does here.

        Raises PeerUnavailable if the status is an error that may pass or that an operator has to correct, or if the
        answer is no JSON; _Unreadable if it begins as JSON does.
        """
        url = self.deployment.url.rstrip("/") + path
        data = None if body is None else json_text(body).encode()
        headers = {**self.deployment.headers, "Content-Type": "application/json"}
        async with self._session.request(
                method, url, data=data, params=params, headers=headers, timeout=_TIMEOUT,
                allow_redirects=False) as response:
            text = await response.read()
        if response.status == 404:
            return None
        if response.status >= 300 and not (path.endswith("/commands") and response.status in (400, 409, 422)):
            raise PeerUnavailable(f"{self.deployment.name}: {method} {path} answers {response.status}: "
                                  f"{text[:200].decode(errors='replace')}")
        try:
            return orjson.loads(text) if text else None
        except ValueError as error:
            problem = f"{self.deployment.name}: {method} {path} answers no JSON: {error}"
            raise (_Unreadable if text.lstrip()[:1] in (b"[", b"{") else PeerUnavailable)(problem) from None


class _Unreadable(PeerUnavailable):
    """JSON that cannot be parsed, such as one with NaN or with more than 1000 levels."""


def _thread(entry: Mapping[str, Any]) -> Thread:
    by_task = entry.get("interrupts")
    interrupts = [
        Interrupt(one["id"], one.get("value"), one.get("response_schema"))
        for task in (by_task.values() if isinstance(by_task, dict) else ()) if isinstance(task, list)
        for one in task if isinstance(one, dict) and isinstance(one.get("id"), str)
    ]
    metadata = entry.get("metadata")
    return Thread(str(entry.get("thread_id")), str(entry.get("status")), interrupts,
                  metadata if isinstance(metadata, dict) else {},
                  str(entry.get("state_updated_at") or entry.get("updated_at") or ""))


def _run(entry: Any) -> Run:
    entry = entry if isinstance(entry, dict) else {}
    metadata = entry.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    return Run(str(entry.get("run_id")), str(entry.get("status")), mark if isinstance(mark, str) else "")
