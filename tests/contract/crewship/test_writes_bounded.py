"""Costs of writes are bounded: a write without effect writes no row, and others write limited bytes. A write after the
source's close is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.fold.fold_driver import event

from api.commands.rate_limiter import RateLimiter
from api.live.notifications import Subscriber
from api.readmodel.readers import Reader
from schemas.facts import Fact
from schemas.log import SetPreferences, Widget
from schemas.views import KeysRow, OutcomeRow, PreferencesRow, decode_row
from streams.core.domain.keys import item_id
from streams.core.fold import outcomes

M, W = item_id(WS, "message", "m"), item_id(WS, "waitpoint", "w")
BULK, PREFERENCES = "/api/v1/inbox/bulk", "/org/me/preferences"


@pytest.fixture
def attn() -> Deciding:
    attn = Deciding()
    attn.happen(message("m", minutes=-60), waitpoint("w", minutes=-60))
    return attn


def kept(attn: Deciding) -> dict[bytes, bytes]:
    """Returns all rows except digests and the position, which every pack of the log changes."""
    return {key: raw for key, raw in attn.rows.items() if key[:2] not in (b"e:", b"~:")}


def facts(attn: Deciding) -> int:
    return sum(isinstance(fact, Fact) for fact in attn.facts)


UNCHANGED: list[tuple[str, str, Any]] = [
    ("PATCH", f"/api/v1/inbox/{M}", {"state": "read"}),
    ("PATCH", f"/api/v1/inbox/{M}", {"state": "unread"}),
    ("PATCH", f"/api/v1/inbox/{M}", {"state": "resolved", "resolved_action": "done"}),
    ("PATCH", f"/api/v1/inbox/{W}", {"state": "read"}),
    ("POST", BULK, {"ids": [M, W, "ibx_none"], "state": "read"}),
    ("POST", BULK, {"ids": [M, W, "ibx_none"], "state": "resolved", "resolved_action": "done"}),
    ("POST", f"/org/me/inbox/{M}/dismiss", {}),
    ("POST", f"/org/me/inbox/{M}/dismiss", {"dismissed_until": "2030-01-01T00:00:00Z"}),
    ("DELETE", f"/org/me/inbox/{M}/dismiss", None),
    ("PATCH", PREFERENCES, {"pinned_clusters": ["a", "b"], "widgets": [{"id": "x", "visible": False}]}),
    ("PATCH", PREFERENCES, {}),
]


@pytest.mark.parametrize(("method", "path", "body"), UNCHANGED)
async def test_a_write_again_writes_nothing(attn: Deciding, method: str, path: str, body: Any) -> None:
    listener = Subscriber(Reader(WS, "bob", frozenset({"OWNER"})))
    attn.edges[0].notifications.subscribe(listener)
    async with attn.client() as client:
        first = await client.request(method, path, json=body)
        assert first.status_code == 200, first.text
        before, fact_count, pushed = kept(attn), facts(attn), listener.waiting.qsize()
        cursor = attn.edges[0].replica.cursor(WS)
        attn.now += 60
        again = await client.request(method, path, json=body)
        assert (again.status_code, again.content) == (200, first.content), "the answer is the same, breakdown included"
    assert kept(attn) == before, "no row and no revision changed"
    assert (facts(attn), listener.waiting.qsize()) == (fact_count, pushed)
    assert attn.edges[0].replica.cursor(WS) > cursor, "the repeat was written to the log"


async def test_if_match_of_others_survives_a_bulk_that_changes_nothing(attn: Deciding) -> None:
    async with attn.client("bob", "VIEWER") as viewer, attn.client() as client:
        await viewer.post(BULK, json={"ids": [M], "state": "read"})
        seen = (await client.get(f"/api/v1/inbox/{M}")).json()["revision"]
        await viewer.post(BULK, json={"ids": [M], "state": "read"})
        answer = await client.patch(f"/api/v1/inbox/{M}", json={"state": "resolved"}, headers={"if-match": str(seen)})
        assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), UNCHANGED)
async def test_an_outcome_keeps_no_body_and_has_the_same_answer(
    attn: Deciding, method: str, path: str, body: Any
) -> None:
    key = {"idempotency-key": "k"}
    async with attn.client() as client:
        first = await client.request(method, path, json=body, headers=key)
        attn.now += 3600
        again = await client.request(method, path, json=body, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    [raw] = [raw for name, raw in attn.rows.items() if name[:2] == b"o:"]
    row = decode_row(b"o:", raw)
    assert isinstance(row, OutcomeRow)
    assert len(bytes(row.body)) < 150


async def test_a_bulk_of_500_is_kept_in_a_bit_an_id() -> None:
    attn = Deciding(write_burst=1000)
    attn.happen(*(waitpoint(f"w{number}", minutes=-60) for number in range(0, 500, 2)),
                *(message(f"w{number}", minutes=-60) for number in range(1, 500, 2)))
    ids = [item_id(WS, ("waitpoint", "message")[number % 2], f"w{number}") for number in range(499)]
    request = {"json": {"ids": [*ids, "ibx_none"], "state": "resolved"}, "headers": {"idempotency-key": "k"}}
    async with attn.client() as client:
        first = await client.post(BULK, **request)
        attn.now += 60
        again = await client.post(BULK, **request)
    assert first.json() | {"skipped_ids": []} == {
        "updated": 249, "skipped": 250, "skipped_ids": [], "not_found": 1, "state": "resolved"}
    assert again.content == first.content
    assert max(len(raw) for name, raw in attn.rows.items() if name[:2] == b"o:") < 500


async def test_an_outcome_of_an_earlier_version_is_still_returned(attn: Deciding) -> None:
    """Outcomes of earlier versions held the whole answer and did not name the user."""
    async with attn.client() as client:
        first = await client.patch(PREFERENCES, json={"pinned_clusters": ["a"]}, headers={"idempotency-key": "k"})
        key, = (key for key in attn.rows if key[:2] == b"o:")
        row = json.loads(attn.rows[key])
        row.pop("user")
        attn.rows[key] = json.dumps(row | {"body": first.json()}).encode()
        attn.fold.state.clear()
        await client.patch(PREFERENCES, json={"pinned_clusters": ["b"]})
        again = await client.patch(PREFERENCES, json={"pinned_clusters": ["a"]}, headers={"idempotency-key": "k"})
        assert again.json() == first.json()
        attn.tick(90_000)
        assert not any(key[:2] == b"o:" for key in attn.rows)


async def test_outcomes_of_a_user_are_bounded_and_make_room(
    attn: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MAX_OUTCOMES_PER_USER", 3)
    url = f"/api/v1/inbox/{M}"

    async def put(client: Any, key: str, state: str = "read") -> Any:
        return await client.patch(url, json={"state": state}, headers={"idempotency-key": key})

    async with attn.client() as client, attn.client("bob") as other:
        for number in range(3):
            assert (await put(client, f"k{number}")).status_code == 200
        refused = await put(client, "k3", "resolved")
        assert (refused.status_code, refused.json()["limit"]) == (429, 3)
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get(url)).json()["state"] == "read", "the write was not applied"
        assert (await put(client, "k0")).status_code == 200, "a stored outcome is still returned"
        assert (await client.patch(url, json={"state": "read"})).status_code == 200, (
            "writes without a key have no such limit")
        assert (await put(other, "k3")).status_code == 200
        attn.tick(86_400)
        assert not any(key[:2] in (b"o:", b"k:") for key in attn.rows)
        assert (await put(client, "k3", "resolved")).status_code == 200
    [count] = [decode_row(key, raw) for key, raw in attn.rows.items() if key[:2] == b"k:"]
    assert (count.user, count.count) == ("ann", 1) if isinstance(count, KeysRow) else None


@pytest.mark.parametrize("body", [
    {"pinned_clusters": [f"{number}" + "x" * 500 for number in range(20)]},
    {"pinned_clusters": ["é" * 500] * 10},
    {"widgets": [{"id": f"{number}" + "x" * 500, "visible": True} for number in range(20)]},
    {"pinned_clusters": ["c"] * 201},
])
async def test_preferences_have_a_size(attn: Deciding, body: Any) -> None:
    async with attn.client() as client:
        answer = await client.patch(PREFERENCES, json=body)
        assert answer.status_code == 400
        assert next(iter(body)) in answer.json()["error"]
        assert {"8192", "200"} & set(answer.json()["error"].replace(",", " ").split())
        largest = {"pinned_clusters": [f"{number:03}" + "x" * 37 for number in range(200)]}
        assert (await client.patch(PREFERENCES, json=largest)).status_code == 200, "the largest accepted preferences"


async def test_ids_and_bytes_cost_as_writes_do() -> None:
    attn = Deciding(write_rate=0.5, write_burst=100)
    async with attn.client() as client:
        async def put() -> int:
            return (await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})).status_code

        assert await put() == 404
        ids = [f"ibx_{number}" for number in range(500)]
        for _ in range(2):
            assert (await client.post(BULK, json={"ids": ids, "state": "read"})).status_code == 200
        assert await put() == 429
    attn = Deciding(write_rate=0.5, write_burst=10)
    async with attn.client() as client:
        large = {"widgets": [{"id": f"{number:03}" + "w" * 36, "visible": True} for number in range(200)]}
        statuses = [(await client.patch(PREFERENCES, json=large)).status_code for _ in range(6)]
        assert statuses == [200, 200, 200, 429, 429, 429], "a body of 13 KB costs four writes"


def test_a_bucket_is_in_debt_by_its_burst_at_most() -> None:
    now = [0.0]
    limiter = RateLimiter(10, 20, lambda: now[0])
    assert limiter.acquire("w", "u", 1000) == 0
    assert limiter.acquire("w", "u") == 3, "the bucket is 21 tokens short"
    now[0] = 2.1
    assert limiter.acquire("w", "u") == 0
    limiter.charge("w", "u", 5)
    assert limiter.acquire("w", "u") == 1
    assert limiter.acquire("w", "other") == 0


@pytest.mark.parametrize("state", ["unread", "read"])
async def test_a_late_write_opens_nothing_that_its_source_closed(attn: Deciding, state: str) -> None:
    """A page that was in the background sends `unread` after the source withdrew the message."""
    async with attn.client() as client:
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        attn.happen(event("message.withdrawn", "m", minutes=0))
        attn.now += 5
        late = await client.patch(f"/api/v1/inbox/{M}", json={"state": state})
        row = (await client.get(f"/api/v1/inbox/{M}")).json()
        assert (row["state"], row["resolved_action"]) == ("resolved", "withdrawn")
        if state == "unread":
            assert (late.status_code, late.json()["kind"], late.json()["revision"]) == (409, "message", row["revision"])
            body = (await client.post(BULK, json={"ids": [M], "state": state})).json()
            assert (body["updated"], body["skipped_ids"]) == (0, [M])
            assert (await client.get(f"/api/v1/inbox/{M}")).json() == row
            seen = {"if-match": f'"{row["revision"]}"'}
            again = await client.patch(f"/api/v1/inbox/{M}", json={"state": state}, headers=seen)
            assert again.status_code == 200, "a user who has seen the closed item may reopen it"
            assert (await client.get(f"/api/v1/inbox/{M}")).json()["state"] == "unread"


async def test_an_item_that_one_user_resolved_can_be_reopened_by_another(attn: Deciding) -> None:
    """Crewship's rule C19, without If-Match."""
    async with attn.client("bob") as bob, attn.client() as client:
        await bob.patch(f"/api/v1/inbox/{M}", json={"state": "resolved", "resolved_action": "done"})
        assert (await client.patch(f"/api/v1/inbox/{M}", json={"state": "unread"})).status_code == 200
        assert (await client.get(f"/api/v1/inbox/{M}")).json()["state"] == "unread"


async def test_820_kb_under_each_key_leave_next_to_nothing(attn: Deciding) -> None:
    """Attack: large preferences, each with its own key. The edge refuses them, and the fold stores no copies."""
    async with attn.client() as client:
        large = {"widgets": [{"id": f"{number:04}" + "é" * 500, "visible": True} for number in range(200)]}
        statuses = {(await client.patch(PREFERENCES, json=large, headers={"idempotency-key": f"k{number}"})).status_code
                    for number in range(20)}
        assert statuses <= {400, 429}
    widgets = [Widget("w" * 512, True)] * 200
    attn.happen(*(SetPreferences(ws=WS, id=f"c{number}", time=0, user="ann", roles=(), idempotency_key=f"k{number}",
                                 widgets=[*widgets, Widget(f"{number}", True)]) for number in range(20)))
    sizes = {key[:2]: len(raw) for key, raw in attn.rows.items()}
    assert sizes[b"o:"] < 300
    assert sum(len(raw) for key, raw in attn.rows.items() if isinstance(decode_row(key, raw), PreferencesRow)) > 100_000
    await asyncio.sleep(0)
