"""Reads a live feed in a thread, for tests without an event loop."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
from httpx_sse import connect_sse

__all__ = ["FeedThread"]


class FeedThread:
    """`frames`: (event, data) of all frames so far. A feed that ends is opened again, with a new snapshot."""

    def __init__(self, url: str, token: str) -> None:
        self.frames: list[tuple[str, Any]] = []
        self._stop = threading.Event()
        self._url, self._headers = f"{url}/org/me/feed", {"authorization": f"Bearer {token}"}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread. The edge must have ended the feed: a read without an end cannot be cancelled."""
        self._stop.set()
        self._thread.join(60)

    def items(self, source_id: str) -> list[dict[str, Any]]:
        """Returns each state of an item that a frame had."""
        shown = [data["item"] for event, data in list(self.frames) if event in ("added", "changed")]
        return [item for item in shown if item["source_id"] == source_id]

    def _read(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._stop.wait(0.1):
                try:
                    with connect_sse(client, "GET", self._url, headers=self._headers) as source:
                        for event in source.iter_sse():
                            self.frames.append((event.event, json.loads(event.data)))
                            if self._stop.is_set():
                                return
                except httpx.HTTPError:
                    continue
