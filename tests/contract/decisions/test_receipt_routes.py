"""`GET /api/v1/inbox/{id}/decision/receipt` and the published keys: access to receipts, and their content."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import httpx
import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from support.edge.decisions import AT, asking_item, decided
from support.edge.edges import Fed

from api.contract.asking.receipts import receipt_payload
from api.contract.responses.receipts import KeySet, Receipt
from schemas.asking.question import DecisionRow
from schemas.scalars import SECOND
from schemas.views import ItemRow
from streams.core.canonical_json import canonical_json
from streams.core.domain.keys import item_key
from streams.core.receipts import public_key, read_key_set, verify_receipt
from streams.runtime.keys import receipt_keys

KEYS = "/.well-known/attn-decision-keys.json"
SEED, OLD, OLDER = (urlsafe_b64encode(letter * 32).decode() for letter in (b"s", b"o", b"p"))


def path_of(item: ItemRow) -> str:
    return f"/api/v1/inbox/{item.id}/decision/receipt"


def put(fed: Fed, item: ItemRow, *rows: DecisionRow) -> None:
    fed.put((item_key(item.id), item), *((b"c:" + row.id.encode(), row) for row in rows))


def payload_of(answer: httpx.Response) -> dict[str, Any]:
    text = answer.json()["payload"]
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # type: ignore[no-any-return]


async def test_a_receipt_states_question_answer_and_people_and_verifies_with_the_published_keys() -> None:
    fed, item = Fed(receipt_issuer="https://attn.example.com"), asking_item()
    row = decided(item, ("ann", "bob"), form=msgspec.Raw(b'{"why":"x"}'), args=msgspec.Raw(b'{"n":9007199254740993}'),
                  edited=("/n",), comment="go", reason="later", expires_at=AT + 900 * SECOND, batch="b1")
    put(fed, item, row)
    async with fed.client("cy", "MEMBER") as client:
        answer, keys = await client.get(path_of(item)), await client.get(KEYS, headers={"authorization": ""})
    assert answer.status_code == keys.status_code == 200
    Receipt.model_validate(answer.json())
    KeySet.model_validate(keys.json())
    assert answer.headers["content-type"] == "application/jose+json"
    assert answer.headers["content-disposition"] == f'attachment; filename="{row.id}.receipt.json"'
    assert "no-store" in answer.headers["cache-control"]
    assert "public" in keys.headers["cache-control"]
    assert "max-age=" in keys.headers["cache-control"]
    payload = verify_receipt(answer.content, read_key_set(keys.content)).payload
    assert b'"n":9007199254740993' in payload, "numbers keep their digits"
    assert b"s1.sealed" not in payload
    stated = json.loads(payload)
    shown = stated["question"].pop("shown")
    assert stated == {
        "type": "attn.decision-receipt", "v": 1, "issuer": "https://attn.example.com",
        "issued_at": "2026-05-20T12:01:00Z", "workspace": "w1", "item": item.id, "kind": "waitpoint",
        "question": {"id": "wp1", "source": "/pipelines/deploy", "subject": "wp1", "title": "Deploy?",
                     "digest": row.digest, "opened_at": "2026-05-20T12:00:00Z", "expires_at": "2026-05-20T12:15:00Z"},
        "decision": {
            "id": row.id, "option": "approve", "option_title": "Approve", "does": "approve", "form": {"why": "x"},
            "args": {"n": 9007199254740993}, "edited": ["/n"], "comment": "go", "made_at": "2026-05-20T12:01:00Z",
            "undo_until": "2026-05-20T12:01:05Z", "state": "made", "state_since": "2026-05-20T12:01:00Z",
            "reason": "later", "batch": "b1"},
        "actors": [{"user": user, "name": user.title(), "role": "OWNER", "at": "2026-05-20T12:01:00Z",
                    "vote": "approve", "does": "approve", "comment": f"by {user}"} for user in ("ann", "bob")],
        "fence": {"partition": 0, "offset": 7},
    }
    assert {name: shown[name] for name in ("title", "body", "subject")} == {
        "title": "Deploy?", "body": "PR #128", "subject": "wp1"}
    text = payload.decode()
    start = text.index('"shown":') + len('"shown":')
    _, end = json.JSONDecoder().raw_decode(text, start)
    assert hashlib.sha256(text[start:end].encode()).hexdigest() == row.digest, "the digest is of the unchanged text"


@given(st.booleans(), st.sampled_from(["made", "sending", "applied", "refused", "expired"]), st.text(max_size=20))
def test_the_payload_is_canonical_and_follows_from_the_rows(has_item: bool, state: str, comment: str) -> None:
    item = asking_item(ask='{"action":{"name":"x","args":{"\\uffff":1,"\\ud83d\\ude00":2.50,"z":1e21}}}')
    row = decided(item, state=state, comment=comment)
    given_item = item if has_item else None
    payload = receipt_payload(row, given_item, "attn", 8)
    assert payload == receipt_payload(msgspec.json.decode(msgspec.json.encode(row), type=DecisionRow), given_item,
                                      "attn", 8)
    assert payload == rfc8785.dumps(json.loads(payload)), "an independent implementation gives the same bytes"
    assert ("shown" in json.loads(payload)["question"]) == has_item


async def test_every_edge_gives_the_same_bytes_and_another_state_gives_others() -> None:
    item = asking_item()
    row = decided(item)
    receipts = []
    for state in ("made", "made", "sending"):
        fed = Fed()
        put(fed, item, msgspec.structs.replace(row, state=state))
        async with fed.client() as client:
            receipts += [(await client.get(path_of(item))).content for _ in range(2)]
    assert len(set(receipts[:4])) == 1
    assert len(set(receipts)) == 2


async def test_earlier_decisions_are_named_by_their_id() -> None:
    fed, item = Fed(), asking_item()
    first = decided(item, state="taken_back")
    second = decided(item, ("bob",), attempt=1)
    other = asking_item("wp2")
    foreign = decided(other)
    put(fed, item, first, second)
    put(fed, other, foreign)
    async with fed.client() as client:
        assert payload_of(await client.get(path_of(item)))["decision"]["id"] == second.id
        for row in (first, second):
            answer = await client.get(path_of(item), params={"decision": row.id})
            assert payload_of(answer)["decision"]["id"] == row.id
        for name in (foreign.id, "dec_none", "", "x" * 300, "\ud800"):
            params = f"?decision={name}" if name.isascii() else "?decision=%ED%A0%80"
            assert (await client.get(path_of(item) + params)).status_code in (400, 404), name
        assert (await client.get(path_of(item) + f"?decision={foreign.id}")).status_code == 404


async def test_a_question_that_changed_is_in_its_receipt_by_title_and_digest_only() -> None:
    """The decision is still the newest of its item, although the item has a new question."""
    fed, item = Fed(), asking_item()
    row, older = decided(item, decided_at=AT + 9 * SECOND), decided(item, attempt=1, decided_at=AT + 8 * SECOND)
    hidden = decided(item, ("bob",), attempt=2, decided_at=AT + 10 * SECOND, target_role="MANAGER")
    changed = asking_item(title="Deploy to the moon?")
    put(fed, changed, row, older, hidden)
    put(fed, asking_item("wp2"), decided(asking_item("wp2"), decided_at=AT + 99 * SECOND))
    async with fed.client("eve", "MEMBER") as client:
        answers = [await client.get(path_of(item)), await client.get(path_of(item), params={"decision": row.id})]
    async with fed.client("bob", "MEMBER") as client:
        assert payload_of(await client.get(path_of(item)))["decision"]["id"] == hidden.id
    assert answers[0].content == answers[1].content
    stated = payload_of(answers[0])
    assert stated["decision"]["id"] == row.id
    assert "shown" not in stated["question"]
    assert (stated["question"]["title"], stated["question"]["digest"]) == ("Deploy?", row.digest)


@pytest.mark.parametrize(("user", "role", "ws", "status"), [
    ("dee", "ADMIN", "w1", 200), ("ann", "MEMBER", "w1", 200), ("bob", "MEMBER", "w1", 404),
    ("bob", "OWNER", "w1", 404), ("ann", "ADMIN", "w2", 404),
])
async def test_only_deciders_and_readers_of_a_decision_get_its_receipt(
    user: str, role: str, ws: str, status: int,
) -> None:
    fed, item = Fed(), asking_item(target_role="ADMIN")
    row = decided(item, ("ann",))
    put(fed, item, row)
    async with fed.client(user, role, ws=ws) as client:
        for path in (path_of(item), f"{path_of(item)}?decision={row.id}"):
            answer = await client.get(path)
            assert answer.status_code == status
            if status == 404:  # the same answer as for an item that does not exist
                absent = await client.get("/api/v1/inbox/ibx_none/decision/receipt")
                assert (answer.content, answer.headers["content-type"]) == (
                    absent.content, absent.headers["content-type"])


async def test_an_item_without_a_decision_has_no_receipt() -> None:
    fed, item = Fed(), asking_item()
    put(fed, item)
    async with fed.client() as client:
        assert (await client.get(path_of(item))).status_code == 404


async def test_rotated_and_retired_keys_are_published_and_verify_older_receipts() -> None:
    item = asking_item()
    row = decided(item)
    old = Fed(receipt_keys=OLD)
    put(old, item, row)
    async with old.client() as client:
        receipt = (await client.get(path_of(item))).content
    retired = urlsafe_b64encode(public_key(b"o" * 32)).decode()
    documents = []
    for listed in (f"{SEED},{OLD}", f"{SEED}, pub:{retired}", f"{SEED},pub: {retired.rstrip('=')}"):
        fed = Fed(receipt_keys=listed)
        put(fed, item, row)
        async with fed.client() as client:
            documents.append((await client.get(KEYS)).content)
            keys = read_key_set(documents[-1])
            assert verify_receipt(receipt, keys).payload == verify_receipt(
                (await client.get(path_of(item))).content, keys).payload
    assert len(set(documents)) == 1
    fed = Fed(receipt_keys=f"pub:{retired}")
    put(fed, item, row)
    assert receipt_keys(fed.edge.settings) == []
    async with fed.client() as client:
        answer = await client.get(path_of(item))
    assert (answer.status_code, "ATTN_RECEIPT_KEYS" in answer.json()["error"]) == (503, True)


async def test_keys_need_no_caller_and_no_view() -> None:
    fed = Fed()
    fed.edge.ready = False
    async with fed.client() as client:
        client.headers = {}  # type: ignore[assignment]
        answer = await client.get(KEYS)
    assert answer.status_code == 200
    assert answer.content == canonical_json(answer.json())
    assert set(read_key_set(answer.content).values()) == {public_key(seed) for seed in receipt_keys(fed.edge.settings)}
