"""A thousand people answer one question at the same time on two edges: one answer decides, and the others get the
winner.

The log is held until it has all answers, so no replica can decide the race: the fold does.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest
from support.edge.asking import APPROVAL, W, asking, get_item
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import bearer, until

from api.http.app import create_app
from schemas.facts import Fact
from schemas.log import Decide, decode_pack

PEOPLE = 1000
YEARS = 10 * 365 * 86400


def two_edges(ask: dict[str, Any]) -> Deciding:
    attn = Deciding(edges=2, write_rate=1e6, write_burst=10**6, write_seconds=600)
    attn.happen(asking(ask))
    return attn


async def race(attn: Deciding, hold: bool) -> list[tuple[int, Any]]:
    """Every user answers on one of the edges, one in three with `no`. Returns the responses."""
    clients = [httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(edge), raise_app_exceptions=False), base_url="http://127.0.0.1",
    ) for edge in attn.edges]
    async with attn.client() as client:
        digest = (await get_item(client))["digest"]
    attn.held = hold

    async def answer(number: int) -> tuple[int, Any]:
        body = {"option": "no" if number % 3 == 2 else "ok", "digest": digest, "comment": "c"}
        headers = bearer(f"u{number}", ("OWNER", "ADMIN", "MEMBER")[number % 3], ws=WS, seconds=YEARS)
        response = await clients[number % 2].post(f"/api/v1/inbox/{W}/decision", json=body, headers=headers)
        return response.status_code, response.json()

    answers = [asyncio.create_task(answer(number)) for number in range(PEOPLE)]
    if hold:
        await until(lambda: votes_in(attn) == PEOPLE, 300, lambda: f"{votes_in(attn)} answers are in the log")
        attn.held = False
    responses = await asyncio.gather(*answers)
    for client in clients:
        await client.aclose()
    return responses


def votes_in(attn: Deciding) -> int:
    return sum(isinstance(entry, Decide) for pack in attn.log for entry in decode_pack(pack).entries)


@pytest.mark.parametrize("hold", [True, False], ids=["decided by the fold", "seen by the edges"])
async def test_one_of_a_thousand_decides_and_all_others_get_the_winner(hold: bool) -> None:
    attn = two_edges(APPROVAL)
    answers = await race(attn, hold)
    assert Counter(status for status, _ in answers) == {201: 1, 409: PEOPLE - 1}
    [winner] = [number for number, (status, _) in enumerate(answers) if status == 201]
    decision = answers[winner][1]["decision"]
    assert [actor["user"] for actor in decision["actors"]] == [f"u{winner}"]
    assert {json.dumps(body["decision"], sort_keys=True) for _, body in answers} == {
        json.dumps(decision, sort_keys=True)}
    assert all(body["error"] for status, body in answers if status == 409)
    for edge in (0, 1):
        async with attn.client(edge=edge) as client:
            assert (await get_item(client))["decision"] == decision
    made = [fact for fact in attn.facts if isinstance(fact, Fact) and fact.type == "decision.made"]
    assert [fact.decision for fact in made] == [decision["id"]]
    if hold:
        first = next(entry for pack in attn.log for entry in decode_pack(pack).entries if isinstance(entry, Decide))
        assert first.user == f"u{winner}", "the first answer in the log decides"


async def test_a_quorum_is_reached_once() -> None:
    attn = two_edges({**APPROVAL, "options": [APPROVAL["options"][0], {"id": "no", "does": "choose"}],
                      "quorum": {"approve": 3}})
    answers = await race(attn, hold=True)
    counts = Counter(status for status, _ in answers)
    assert (counts[201], counts[201] + counts[202] + counts[409]) == (1, PEOPLE)
    [decision] = [body["decision"] for status, body in answers if status == 201]
    assert len({actor["user"] for actor in decision["actors"]}) == 3
    assert {actor["vote"] for actor in decision["actors"]} == {decision["option"]}
    voted = [number for number, (status, _) in enumerate(answers) if status in (201, 202)]
    assert {actor["user"] for actor in decision["actors"]} <= {f"u{number}" for number in voted}
    assert 3 <= len(voted) <= 5, "three for one option, at most two for the other"
