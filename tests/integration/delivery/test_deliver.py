"""`attn deliver` on a broker: what it posts, in which order, and what it reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook
from support.delivery.receiver import receiver
from support.delivery.records import HMAC_SECRET, decision, deliver, endpoints_file, reports, send_decisions
from support.kafka.pipeline import Stack, eventually

from schemas.asking.decision_event import encode_decision

pytestmark = pytest.mark.timeout(120)


async def test_a_decision_arrives_signed_and_is_reported(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    async with stack(endpoints=path) as settings, receiver() as there:
        endpoints_file(path, receiver=there.url)
        event = decision(1)
        async with deliver(settings):
            await send_decisions(settings, [event, decision(2, to=None)])
            await eventually(lambda: reports(settings), "a report")
        post, = there.posts
        assert post.body == encode_decision(event)
        assert post.id == event.data.decision
        assert post.headers["content-type"] == "application/cloudevents+json"
        Webhook(HMAC_SECRET).verify(post.body, post.headers)
        report, = await reports(settings)
        assert (report.ws, report.decision, report.state) == ("ws_01", event.data.decision, "delivered")
        async with deliver(settings):
            later = decision(3)
            await send_decisions(settings, [later])
            await eventually(lambda: len(there.posts) > 1, "the second decision")
        assert there.ids() == [event.data.decision, later.data.decision]
