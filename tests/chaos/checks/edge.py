"""Requests every route of a reader from a running edge, and compares the responses with the reference model."""

from __future__ import annotations

import difflib
import pprint
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import httpx
from support.model import EPOCH, Item, Reader, View

from chaos.environment.edge_client import EdgeClient, text

READERS = (Reader("nobody", "OWNER"), Reader("nobody", "MANAGER"), Reader("nobody", "VIEWER"))
_SHOWN_LINES = 40
# Fields that the model does not have: derived ids, positions, and texts of attn.
_OWN = {"id", "revision", "rank", "rank_reasons", "editor"}
_WORDED = {"incident": {"title"}, "proof_expiring": {"title"}}
_SHOWN = (
    "title", "body_md", "cluster", "stack", "conversation_id", "case_id", "case_title", "session_id", "risk",
    "reversible", "pipeline", "step", "error", "incident_key", "task_id", "proof_id", "payload",
)


def crewship_item(item: Item, ws: str, ids: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """Returns an item as Crewship's routes show it, without the fields that the model does not have."""
    shown, sender = item.shown, item.shown.get("sender") or {}
    found = {
        "workspace_id": ws, "kind": item.kind, "source_id": item.source_id, "state": item.state,
        "priority": item.priority, "blocking": item.blocking, "created_at": text(item.created_at),
        "updated_at": text(item.updated_at), "title": shown.get("title"), "body_md": shown.get("body_md") or None,
        "target_user_id": item.target[0], "target_role": item.target[1], "sender_type": sender.get("type"),
        "sender_id": sender.get("id"), "sender_name": sender.get("name"), "payload": shown.get("payload"),
        "resolved_at": item.resolved_at and text(item.resolved_at), "resolved_by_user_id": item.resolved_by,
        "resolved_action": item.resolved_action,
    }
    return {name: value for name, value in found.items() if value is not None and name not in _left_out(item.kind)}


def ankra_item(item: Item, ws: str, ids: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """Returns an item as Ankra's routes show it, without the fields that the model does not have."""
    shown = item.shown
    found = crewship_item(item, ws, ids) | {"band": item.band, "overdue": item.overdue}
    if item.due_at < 2**63 - 1:  # a message without a question is never due
        found["due_at"] = text(item.due_at)
    more = {name: shown.get(name) for name in _SHOWN} | {"action_url": item.action_url}
    if "expires_at" in shown:
        more["expires_at"] = text(_us(shown["expires_at"]))
    if "steps" in shown:
        auto = sum(step["mode"] == "auto" for step in shown["steps"])
        more["plan"] = {"auto": auto, "confirm": len(shown["steps"]) - auto, "steps": shown["steps"]}
    if item.kind == "incident":
        members = [ids.get(("failed_run", name), name) for name in item.members]
        more |= {"clusters": item.clusters, "count": len(members), "members": sorted(members)}
        name = item.source_id
        more |= {"incident_key": ...} if "/" not in name else {}
    more = {name: value for name, value in more.items() if value is not None and value != "" and value is not ...}
    return found | {name: value for name, value in more.items() if name not in _left_out(item.kind)}


def _left_out(kind: str) -> set[str]:
    return _OWN | _WORDED.get(kind, set())


def _us(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1)


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Returns an item of a response without the fields that the model does not have."""
    left_out = _left_out(item["kind"])
    if item["kind"] == "incident":
        left_out = left_out | {"pipeline", "step", "incident_key"}
        item = item | ({"members": sorted(item["members"])} if "members" in item else {})
    return {name: value for name, value in item.items() if name not in left_out}


def key_of(item: dict[str, Any]) -> tuple[str, ...]:
    target = (item.get("target_user_id", ""), item.get("target_role", "")) if item["kind"] == "incident" else ()
    return item["kind"], item["source_id"], *target


def check(edge: EdgeClient, ws: str, view: View, reader: Reader) -> None:
    """Compares every route of one reader with the model. Raises AssertionError with the first difference."""
    items, first = edge.pages(ws, reader)
    ids = {key_of(item): item["id"] for item in items}
    ranked = view.ranked(reader, ids=ids)
    here = f"{ws} as {reader}"
    _same([key_of(item) for item in items], [item.key for item in ranked], f"{here}: the order of the list")
    runs = edge.get("/api/v1/inbox", ws, reader, kind="failed_run", limit=500)["rows"]
    ids |= {key_of(run): run["id"] for run in runs}
    for got, item in zip(items, ranked, strict=True):
        if item.kind == "incident":  # its members are in no list, but have their own route
            ids |= {key_of(run): run["id"] for run in (edge.get(f"/api/v1/inbox/{one}", ws, reader)
                                                        for one in got["members"])}
        _same(_plain(got), ankra_item(item, ws, ids), f"{here}: item {got['id']}")
        assert got["rank_reasons"][0] == item.band
        assert ("overdue" in got["rank_reasons"], "blocking" in got["rank_reasons"]) == (item.overdue, item.blocking)
    counts = view.counts(reader)
    _same(first["counts"], counts, f"{here}: counts")
    activity = view.activity(reader)
    _same({name: first["activity"][name] for name in activity}, activity, f"{here}: activity")
    _check_crewship(edge, ws, view, reader, counts["unread"])
    zero = edge.get("/inbox", ws, reader)
    _same([item["id"] for item in zero["items"]], [item["id"] for item in items[:500]], f"{here}: /inbox")
    _same(zero["count"], len(items), f"{here}: the count of /inbox")
    _same(edge.get("/inbox/count", ws, reader)["count"], counts["unread"], f"{here}: /inbox/count")
    drafts = edge.get("/org/me/recent-drafts", ws, reader)["drafts"]
    wanted = [
        (draft.draft_id, draft.title, draft.cluster, draft.stack, text(draft.last_touched_at), draft.has_ai_edits,
         [who for who in draft.editors if who != ("user", reader.user)])
        for draft in view.drafts(reader)[:50]
    ]
    _same([draft["last_touched_at"] for draft in drafts], [draft[4] for draft in wanted], f"{here}: times of drafts")
    by_id = itemgetter(0)  # among equal times any order
    _same(sorted(map(_draft, drafts), key=by_id), sorted(wanted, key=by_id), f"{here}: drafts")


def _draft(draft: dict[str, Any]) -> tuple[Any, ...]:
    editors = [(one["type"], one["id"]) for one in draft["co_editors"]]
    return (*(draft.get(name) for name in ("draft_id", "title", "cluster", "stack", "last_touched_at", "has_ai_edits")),
            editors)


def _check_crewship(edge: EdgeClient, ws: str, view: View, reader: Reader, unread: int) -> None:
    """Compares the newest 500 items, newest first. Items with equal times may have any order."""
    answer = edge.get("/api/v1/inbox", ws, reader, limit=500)
    rows, expected = answer["rows"], view.crewship(reader)
    here = f"{ws} as {reader}: /api/v1/inbox"
    _same((answer["count"], answer["unread_count"]), (min(500, len(expected)), unread), f"{here} counts")
    _same([row["created_at"] for row in rows], [text(item.created_at) for item in expected[:500]], here)
    by_key = {item.key: item for item in expected}
    for row in rows:
        got = {name: value for name, value in _plain(row).items() if name not in ("resolved_by_user_id",)}
        item = by_key[key_of(row)]
        wanted = {name: value for name, value in crewship_item(item, ws, {}).items() if name != "resolved_by_user_id"}
        if item.kind == "incident":
            got.pop("resolved_action", None)
            wanted.pop("resolved_action", None)
        _same(got, wanted, f"{here} {row['id']}")
        if item.kind != "incident":
            _same(row.get("resolved_by_user_id"), item.resolved_by, f"{here} {row['id']} resolved by")
    _same(len({row["id"] for row in rows}), len(rows), f"{here}: distinct ids")
    _same(edge.get("/api/v1/inbox/count", ws, reader)["unread_count"], unread, f"{here}/count")
    for item in (row for row in rows[:3]):
        _same(edge.get(f"/api/v1/inbox/{item['id']}", ws, reader)["id"], item["id"], f"{here}/{item['id']}")


def _same(found: Any, wanted: Any, what: str) -> None:
    """Raises AssertionError with one line per difference. A plain `assert` shows them in tests only."""
    if found != wanted:
        model, edge = (pprint.pformat(one, width=110).splitlines() for one in (wanted, found))
        shown = list(difflib.unified_diff(model, edge, "the model", "the edge", lineterm="", n=0))[:_SHOWN_LINES]
        raise AssertionError("\n".join([what, *shown]))


def settled(edge: EdgeClient, views: dict[str, View], workspaces: Iterable[str], seconds: float) -> None:
    """Waits until the total of every workspace equals the model's and the cursors do not change."""
    until, reader = time.monotonic() + seconds, READERS[0]
    last: list[Any] = []
    while time.monotonic() < until:
        try:
            found = [edge.get("/org/me/inbox", ws, reader, limit=1) for ws in workspaces]
        except (httpx.HTTPError, AssertionError):
            found = []
        totals = [page["counts"]["total"] for page in found]
        cursors = [page["cursor"] for page in found]
        if found and cursors == last and totals == [views[ws].counts(reader)["total"] for ws in workspaces]:
            return
        last = cursors
        time.sleep(1.0)
    # The comparison that follows reports the differences.
