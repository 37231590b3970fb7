"""Feed client by the description in docs/behaviour.md: it builds its copy of the inbox from frames only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

BANDS = ("urgent", "high", "normal", "low")
RETURNED = {"refused", "undeliverable", "unconfirmed"}  # rank reasons of a decision that came back
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def frames(stream: bytes) -> list[tuple[int, str, Any]]:
    """Parses the bytes of an event stream into (id, event, data) for each frame."""
    parsed = []
    for block in stream.decode().split("\n\n"):
        if block:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            assert set(fields) == {"id", "event", "data"}, block
            parsed.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return parsed


def _us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def rank(item: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the sort key of CONTRACT §3, computed from the fields of the item only."""
    came_back = not RETURNED.isdisjoint(item["rank_reasons"])
    stage = 0 if came_back else 1 if item["blocking"] else 2
    return (
        BANDS.index(item["band"]), stage, "pinned" not in item["rank_reasons"],
        _us(item["due_at"]) if "due_at" in item else 2**63 - 1, _us(item["created_at"]), item["id"],
    )


class Copy:
    """A copy of the inbox. After `apply` of frames in order, `page` equals GET /org/me/inbox at `cursor`."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.cursor = -1
        self.rest: dict[str, Any] = {}

    def apply(self, frame: tuple[int, str, Any]) -> None:
        cursor, event, data = frame
        assert cursor > self.cursor or event in ("heartbeat", "snapshot"), "the ids of frames must increase"
        self.cursor = cursor
        if event == "snapshot":
            self.items = {item["id"]: item for item in data["items"]}
            self.rest = {name: data[name] for name in ("counts", "activity", "drafts", "preferences")}
        elif event in ("added", "changed"):
            assert (data["item"]["id"] in self.items) is (event == "changed")
            self.items[data["item"]["id"]] = data["item"]
            self.rest["counts"] = data["counts"]
        elif event == "removed":
            self.items.pop(data["id"], None)
            self.rest["counts"] = data["counts"]
        elif event != "heartbeat":
            self.rest[event] = data

    @property
    def page(self) -> dict[str, Any]:
        return {"items": sorted(self.items.values(), key=rank), **self.rest}
