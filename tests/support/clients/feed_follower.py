"""Feed client that keeps a copy of the inbox (law 4) and reconnects with Last-Event-ID until it is stopped."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse
from support.clients.feed import Copy
from support.model import Reader

from chaos.environment.edge_client import EdgeClient

Frame = tuple[int, str, Any]


class Follower(threading.Thread):
    """Follows the live feed of one reader, over restarts of the edge."""

    def __init__(self, edge_client: EdgeClient, url: str, ws: str, reader: Reader, limit: int = 500) -> None:
        super().__init__(daemon=True)
        self.ws, self.reader, self.limit = ws, reader, limit
        self.copy = Copy()
        self.frames: list[Frame] = []  # without heartbeats
        self.connects = self.snapshots = 0
        self.error: BaseException | None = None
        self._edge_client, self._url = edge_client, url
        self._ended = threading.Event()
        self.lock = threading.Lock()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._follow()
                except (httpx.HTTPError, SSEError):
                    time.sleep(0.2)
        except BaseException as error:  # `stop` raises it
            self.error = error

    def _follow(self) -> None:
        headers = self._edge_client.headers(self.ws, self.reader)
        if self.copy.cursor >= 0:
            headers["Last-Event-ID"] = str(self.copy.cursor)
        timeout = httpx.Timeout(5.0, read=40.0)
        with httpx.Client(timeout=timeout, trust_env=False) as client, connect_sse(
            client, "GET", f"{self._url}/org/me/feed?limit={self.limit}", headers=headers
        ) as source:
            if source.response.status_code != 200:
                time.sleep(0.3)
                return
            self.connects += 1
            for event in source.iter_sse():
                frame = (int(event.id), event.event, json.loads(event.data))
                with self.lock:
                    self.copy.apply(frame)
                    if event.event != "heartbeat":
                        self.frames.append(frame)
                        self.snapshots += event.event == "snapshot"
                if self._ended.is_set():
                    return

    def stop(self) -> None:
        """Stops after the next frame. Raises the first error of the thread, if any."""
        self._ended.set()
        if self.is_alive():
            self.join(60)
        if self.error is not None:
            raise self.error

    def equals(self, seconds: float = 30.0) -> None:
        """Waits until the copy equals the answer of GET: items, order and counts. Fails after `seconds`."""
        until = time.monotonic() + seconds
        while True:
            if self.error is not None:
                raise self.error
            page = self._edge_client.get("/org/me/inbox", self.ws, self.reader, limit=min(self.limit, 500))
            with self.lock:
                mine, cursor = self.copy.page, self.copy.cursor
            # The ids may differ: the last batches may hold no change for this reader.
            if mine["items"] == page["items"] and mine["counts"] == page["counts"]:
                assert cursor <= page["cursor"] or time.monotonic() < until
                return
            if time.monotonic() > until:
                assert [item["id"] for item in mine["items"]] == [item["id"] for item in page["items"]]
                assert mine["items"] == page["items"]
                assert mine["counts"] == page["counts"]
            time.sleep(0.3)


def frames_after(
    edge_client: EdgeClient, url: str, ws: str, reader: Reader, cursor: int, limit: int, until: int | None = None
) -> list[Frame]:
    """Resumes after `cursor`. Returns all frames up to the id `until`, or up to the third heartbeat."""
    headers = edge_client.headers(ws, reader) | {"Last-Event-ID": str(cursor)}
    frames: list[Frame] = []
    beats = 0
    with httpx.Client(timeout=20, trust_env=False) as client, connect_sse(
        client, "GET", f"{url}/org/me/feed?limit={limit}", headers=headers
    ) as source:
        assert source.response.status_code == 200
        for event in source.iter_sse():
            if event.event == "heartbeat":
                beats += 1
            else:
                frames.append((int(event.id), event.event, json.loads(event.data)))
            if beats == 3 or (until is not None and int(event.id) >= until):
                break
    return frames
