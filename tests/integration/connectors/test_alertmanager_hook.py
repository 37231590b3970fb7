"""A real Alertmanager posts to /hooks/alertmanager of an edge with the real fold: life cycles of alerts, and faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.edges import serving
from support.edge.topic_writer import TopicWriter
from support.peers.alertmanager import Alertmanager

from api import metrics
from schemas.topics import SOURCE_TYPES

pytestmark = pytest.mark.timeout(900)  # the first build of Alertmanager takes minutes
CONFIG = """
route: {{receiver: attn, group_by: [{group_by}], group_wait: 100ms, group_interval: 500ms, repeat_interval: 2s}}
receivers:
- name: attn
  webhook_configs:
  - url: {url}/hooks/alertmanager
    max_alerts: {most}
    http_config: {{basic_auth: {{username: attn, password: {key}}}}}
"""


@dataclass
class Scene:
    attn: Deciding
    topics: TopicWriter
    peer: Alertmanager

    async def states(self) -> dict[str, str]:
        """Returns cluster and instance of each item -> its state."""
        async with self.attn.client("ann", "OWNER") as client:
            rows = (await client.get("/api/v1/inbox?limit=200")).json()["rows"]
            return {f"{row['payload']['labels']['cluster']}/{row['payload']['labels']['instance']}": row["state"]
                    for row in [(await client.get(f"/api/v1/inbox/{row['id']}")).json() for row in rows]}

    async def open_items(self) -> set[str]:
        return {name for name, state in (await self.states()).items() if state != "resolved"}

    async def firing(self) -> set[str]:
        alerts = await asyncio.to_thread(self.peer.alerts)
        return {f"{alert['labels']['cluster']}/{alert['labels']['instance']}" for alert in alerts}

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(120):
            while not await holds():
                await asyncio.sleep(0.05)

    async def equal(self, names: set[str]) -> None:
        """Waits until the open items are these alerts. Then compares them with the alerts that Alertmanager lists."""
        async def holds() -> bool:
            return await self.open_items() == names

        await self.until(holds)
        assert await self.firing() >= names


@asynccontextmanager
async def scene(tmp_path: Path, most: int = 0, group_by: str = "alertname", **settings: Any) -> AsyncIterator[Scene]:
    attn = Deciding(edges=1, **settings)
    topics = TopicWriter(attn)
    async with attn.client("ann", "OWNER") as client:
        made = await client.post("/org/me/keys", json={"name": "AM", "topics": list(SOURCE_TYPES)})
    async with serving(attn.edges[0]) as url:
        peer = Alertmanager(tmp_path / "am", CONFIG.format(
            url=url, key=made.json()["secret"], most=most, group_by=group_by))
        try:
            await asyncio.to_thread(peer.start)
            yield Scene(attn, topics, peer)
        finally:
            await asyncio.to_thread(peer.close)


def labels(cluster: str, instance: str = "a", severity: str = "critical") -> dict[str, str]:
    return {"alertname": "HighLatency", "cluster": cluster, "instance": instance, "severity": severity}


async def test_items_follow_the_alerts(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await asyncio.to_thread(at.peer.fire, labels("eu"), labels("us"), annotations={"summary": "slow"})
        await at.equal({"eu/a", "us/a"})
        await asyncio.to_thread(at.peer.end, labels("eu"))
        await at.equal({"us/a"})
        await asyncio.to_thread(at.peer.fire, labels("eu"), labels("ap"), annotations={"summary": "slower"})
        await at.equal({"eu/a", "us/a", "ap/a"})
        sent = len(at.topics.records)

        async def repeated() -> bool:
            return len(at.topics.records) >= sent + 6

        facts = len(at.attn.facts)
        await at.until(repeated)  # Alertmanager repeats the notification after repeat_interval
        assert len(at.attn.facts) == facts, "a repeated notification changes nothing"
        await asyncio.to_thread(at.peer.end, labels("eu"), labels("us"), labels("ap"))
        await at.equal(set())
        assert at.topics.letters == []


async def test_a_refused_notification_is_repeated_and_arrives(tmp_path: Path) -> None:
    """The edge answers 503 because Kafka does not acknowledge, then because of the event rate. Alertmanager retries."""
    async with scene(tmp_path, group_by="instance", event_seconds=0.2, event_rate=10.0, event_burst=4) as at:
        at.topics.failing = True
        await asyncio.to_thread(at.peer.fire, labels("eu"), labels("us"))

        async def tried() -> bool:
            return len(at.topics.records) >= 2

        await at.until(tried)
        assert await at.states() == {}
        at.topics.failing = False
        await at.equal({"eu/a", "us/a"})
        refused = metrics.THROTTLED._value.get()
        await asyncio.to_thread(at.peer.fire, *[labels("eu", f"i{number}") for number in range(8)])
        await at.equal({"eu/a", "us/a", *(f"eu/i{number}" for number in range(8))})
        assert metrics.THROTTLED._value.get() > refused


async def test_truncated_alerts_are_named(tmp_path: Path) -> None:
    async with scene(tmp_path, most=2) as at:
        await asyncio.to_thread(at.peer.fire, *[labels("eu", f"i{number}") for number in range(5)])

        async def holds() -> bool:
            return len(await at.open_items()) == 2

        await at.until(holds)
        assert len(await at.firing()) == 5, "the connector's sweep opens the others"


async def test_a_killed_alertmanager_that_repeats_changes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        began = time.time() - 60
        await asyncio.to_thread(at.peer.fire, labels("eu"), started=began)
        await at.equal({"eu/a"})
        facts = len(at.attn.facts)
        sent = len(at.topics.records)
        await asyncio.to_thread(at.peer.stop, True)
        await asyncio.to_thread(at.peer.start)
        await asyncio.to_thread(at.peer.fire, labels("eu"), started=began)

        async def again() -> bool:
            return len(at.topics.records) > sent

        await at.until(again)
        assert len(at.attn.facts) == facts
        assert await at.open_items() == {"eu/a"}
