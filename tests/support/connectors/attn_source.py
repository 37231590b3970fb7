"""A running attn over its public routes, for a source and a user: keys, items and decisions."""

from __future__ import annotations

from typing import Any

import httpx
from support.processes.up import Up, wait_for

__all__ = ["AttnWorkspace"]


class AttnWorkspace:
    """One workspace of `attn up`: its users, and the key of one source."""

    def __init__(self, up: Up, workspace: str, topics: str) -> None:
        self.up, self.workspace = up, workspace
        self.tokens = {user: up.token(workspace, user) for user in ("ann", "bob")}
        made = up.attn("key", "create", "--workspace", workspace, "--name", "connector", "--topics", topics,
                       "--kafka", up.kafka)
        assert made.returncode == 0, made.stderr
        self.key = next(word for word in made.stdout.split() if word.startswith("attn_"))

    @property
    def url(self) -> str:
        return self.up.url

    def call(self, method: str, path: str, user: str = "ann", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}", **more.pop("headers", {})}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, trust_env=False, **more)

    def items(self, state: str = "all", **query: str) -> list[dict[str, Any]]:
        return list(self.call("GET", "/api/v1/inbox", params={"state": state, "limit": "500", **query}).json()["rows"])

    def item(self, source_id: str, **wanted: Any) -> dict[str, Any]:
        """Waits for the item whose source id begins with `source_id` and whose fields have the wanted values."""
        def match() -> dict[str, Any] | None:
            return next((item for item in self.items() if item["source_id"].startswith(source_id)
                         and all(item.get(name) == value for name, value in wanted.items())), None)

        return dict(wait_for(match, 60, f"item {source_id} with {wanted}; have {self.items()}"))

    def decide(self, item: dict[str, Any], option: str, user: str = "ann", **answer: Any) -> httpx.Response:
        return self.call("POST", f"/api/v1/inbox/{item['id']}/decision", user, json={
            "option": option, "digest": item["digest"], **answer})

    def decided(self, item: dict[str, Any], state: str) -> dict[str, Any]:
        """Waits until the latest decision of the item is in this state. Returns it."""
        def decision() -> dict[str, Any] | None:
            page = self.call("GET", "/org/me/decisions", params={"source_id": item["source_id"]}).json()["decisions"]
            return page[0] if page and page[0]["state"] == state else None

        return dict(wait_for(decision, 90, f"decision of {item['source_id']} {state}: {self._decisions(item)}"))

    def _decisions(self, item: dict[str, Any]) -> Any:
        return self.call("GET", "/org/me/decisions", params={"source_id": item["source_id"]}).text[:2000]
