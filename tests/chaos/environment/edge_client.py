"""HTTP client of an edge: requests as any user, with tokens made from the data directory's secret."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
from support.model import EPOCH, Model, Reader


def text(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def now() -> int:
    return (datetime.now(UTC) - EPOCH) // timedelta(microseconds=1)


def users_of(model: Model, ws: str, most: int) -> list[str]:
    """Returns the users to whom most events are addressed by name."""
    found: dict[str, int] = {}
    for event in model.events[ws]:
        for user in (event.data.get("target_user_id"), event.data.get("owner_user_id")):
            if user:
                found[user] = found.get(user, 0) + 1
    return sorted(found, key=lambda user: -found[user])[:most]


class EdgeClient:
    """Sends requests to one edge as any user. It signs the tokens with the data directory's secret."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self._secret = (data_dir / "secret").read_text().strip()
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def __enter__(self) -> EdgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def headers(self, ws: str, reader: Reader) -> dict[str, str]:
        claims = {"sub": reader.user, "workspace_id": ws, "role": reader.role, "exp": int(time.time()) + 3600}
        return {"Authorization": "Bearer " + jwt.encode(claims, self._secret, "HS256")}

    def get(self, path: str, ws: str, reader: Reader, **params: Any) -> Any:
        answer = self.client.get(path, params=params, headers=self.headers(ws, reader))
        assert answer.status_code == 200, f"{path} {params}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def pages(self, ws: str, reader: Reader, limit: int = 500) -> tuple[list[Any], Any]:
        """Returns the items of all pages in order, and the first page."""
        first = page = self.get("/org/me/inbox", ws, reader, limit=limit)
        items = list(page["items"])
        while page.get("next"):
            page = self.get("/org/me/inbox", ws, reader, limit=limit, next=page["next"])
            items += page["items"]
        return items, first
