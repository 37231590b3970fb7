"""Requests of the users of one workspace to a running attn over HTTP, and keys of its sources."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
from support.processes.up import Up, wait_for

__all__ = ["Desk"]

_SECONDS = 3600


class Desk:
    """One workspace and its users. Default of `workspace`: a new one."""

    def __init__(self, up: Up, workspace: str | None = None) -> None:
        self.url, self.workspace = up.url, workspace or f"ws_{uuid.uuid4().hex[:12]}"
        self._secret = (up.data_dir / "secret").read_text().strip()
        self._http = httpx.Client(base_url=up.url, timeout=20, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def headers(self, user: str = "ann", role: str = "OWNER", name: str | None = None) -> dict[str, str]:
        claims = {"sub": user, "role": role, "workspace_id": self.workspace, "exp": int(time.time()) + _SECONDS}
        return {"authorization": "Bearer " + jwt.encode(
            claims | ({"name": name} if name else {}), self._secret, "HS256")}

    def create_key(self, *topics: str, source: str | None = None) -> str:
        body = {"name": "test", "topics": list(topics)} | ({"source": source} if source else {})
        return str(self.request("POST", "/org/me/keys", json=body)["secret"])

    def request(self, method: str, path: str, *, user: str = "ann", name: str | None = None, **more: Any) -> Any:
        answer = self.try_request(method, path, user=user, name=name, **more)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def try_request(
        self, method: str, path: str, *, user: str = "ann", name: str | None = None, **more: Any
    ) -> httpx.Response:
        return self._http.request(method, path, headers=self.headers(user, name=name), **more)

    def items(self, state: str = "active") -> list[dict[str, Any]]:
        return list(self.request("GET", "/api/v1/inbox", params={"state": state, "limit": 500})["rows"])

    def item(self, item: str) -> dict[str, Any]:
        return dict(self.request("GET", f"/api/v1/inbox/{item}"))

    def wait_item(self, source_id: str, state: str = "active", seconds: float = 60) -> dict[str, Any]:
        """Waits until the item of a source id is in this state."""
        def item() -> Any:
            return next((one for one in self.items(state) if one["source_id"] == source_id), None)

        found_item: dict[str, Any] = wait_for(item, seconds, f"{source_id} is {state}")
        return found_item

    def decide(
        self, item: Mapping[str, Any], option: str, *, user: str = "ann", name: str | None = None, **answer: Any
    ) -> str:
        """Decides a question. Returns the id of the decision."""
        body = {"option": option, "digest": item["digest"], **answer}
        made = self.request("POST", f"/api/v1/inbox/{item['id']}/decision", user=user, name=name, json=body)
        return str(made["decision"]["id"])

    def decision(self, decision: str) -> dict[str, Any]:
        entries = self.request("GET", "/org/me/decisions", params={"limit": 500})["decisions"]
        return next((one for one in entries if one["id"] == decision), {})

    def wait_decision(self, decision: str, state: str, seconds: float = 60) -> dict[str, Any]:
        """Waits until a decision is in this state, and returns its entry."""
        wait_for(lambda: self.decision(decision).get("state") == state, seconds,
                 f"{decision} is {state}, not {self.decision(decision)}")
        return self.decision(decision)
