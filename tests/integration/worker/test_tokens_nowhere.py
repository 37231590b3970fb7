"""A reply token is in its source topic and in `decisions` only. No other topic, row, dead letter, frame, response,
metric, log line or file contains it in any encoding."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import SECRET, bearer
from support.kafka.brokers import EMBEDDED_ONLY
from support.kafka.pipeline import Stack, eventually, look, read, worker

from ops.cli import logging_setup
from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, DECISIONS, FACTS, LOG, SOURCE_TYPES, VIEWS
from streams.history.clickhouse.columns import columns
from streams.kafka import topics
from streams.runtime.clock import now_us

WS = "ws_tokens"
WHO = ("u_ann", "OWNER", WS)
CORE = "Zq81mKv0PpXw73LdNs5R"
TOKEN = f'tok/+= \u00fc"&?{CORE}"\\end'
HOUR = 3_600_000_000


def numbers(text: str) -> bytes:
    """Returns bytes as the embedded broker writes them to its file: a JSON list of numbers."""
    return ",".join(str(byte) for byte in text.encode()).encode()


def encodings() -> dict[str, bytes]:
    """Returns encodings of the token from which a reader can decode it. Base64 has three: the length of the text before
    the token decides its alignment."""
    raw = TOKEN.encode()
    forms = {"core": CORE.encode(), "hex": CORE.encode().hex().encode(), "HEX": CORE.encode().hex().upper().encode(),
             "url": quote(TOKEN).encode(), "utf-16": CORE.encode("utf-16-le"), "utf-16-be": CORE.encode("utf-16-be"),
             "escapes": "".join(rf"\u{ord(sign):04x}" for sign in CORE).encode(), "numbers": numbers(CORE)}
    for text in (raw, CORE.encode()):
        for shift in range(3):
            for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
                # Without the first and last digits, which depend on the neighbouring text.
                forms[f"{name} {len(text)} {shift}"] = encode(b"\0" * shift + text)[4 * bool(shift):-4]
    return forms


FORMS = encodings()


def occurrences(place: str, *texts: bytes | str | None) -> list[str]:
    """Returns "place: encoding" for each encoding of the token that these texts contain."""
    raw = b"\n".join(text.encode(errors="surrogateescape") if isinstance(text, str) else text or b"" for text in texts)
    return [f"{place}: {name}" for name, form in FORMS.items() if form in raw]


def test_every_encoding_of_the_token_is_recognised() -> None:
    for text in (TOKEN, json.dumps(TOKEN), quote(TOKEN), TOKEN.encode().hex()):
        assert occurrences("here", text)
    for shift in range(4):
        assert occurrences("here", base64.b64encode(b"x" * shift + TOKEN.encode() + b"y" * shift))
        assert occurrences("here", base64.urlsafe_b64encode(b"x" * shift + TOKEN.encode()))
    assert occurrences("here", b"[1," + numbers(TOKEN) + b",2]")
    assert not occurrences("here", "nothing of the kind", None, b"\0")


# --- the records ---

def event(number: int, kind: str, subject: str, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e{number}", "source": "/tokens", "type": kind, "subject": subject,
            "time": format_timestamp(now_us() - HOUR + number), "workspaceid": WS, "data": data}


def ask(**more: Any) -> dict[str, Any]:
    return {"action": {"name": "deploy", "args": {"n": 1}}, "reply": {"to": "x", "token": TOKEN}, **more}


Record = tuple[str, bytes, list[tuple[str, bytes]]]


def accepted() -> list[Record]:
    opened = [
        ("waitpoints", event(1, "waitpoint.created", "wp_1", title="Deploy?", ask=ask())),
        ("escalations", event(2, "escalation.opened", "esc_1", title="First", ask=ask())),
        ("escalations", event(3, "escalation.updated", "esc_1", title="Second", ask=ask(id="q2"))),
        ("run-failures", event(4, "run.failed", "run_1", title="Failed", pipeline="p", ask=ask())),
        ("drafts", event(5, "draft.edited", "draft_1", title="D", editor={"type": "ai", "id": "a"}, ask=ask())),
        ("waitpoints", event(1, "waitpoint.created", "wp_1", title="Deploy?", ask=ask())),
        ("waitpoints", event(6, "waitpoint.created", "wp_2", title="Closes", ask=ask())),
        ("waitpoints", event(7, "waitpoint.approved", "wp_2", ask=ask())),
        ("cases", event(8, "decision.refused", "wp_2", reason="no")),
    ]
    records: list[Record] = [(topic, json.dumps(value).encode(), []) for topic, value in opened]
    binary = event(9, "action.requested", "act_1", title="Binary", ask=ask(batch={"key": "b"}))
    headers = [(f"ce_{name}", value.encode()) for name, value in binary.items() if name != "data"]
    records.append(("actions", json.dumps(binary["data"]).encode(), headers))
    packed = event(10, "plan.proposed", "plan_1", title="Packed", ask=ask(quorum={"approve": 2}))
    packed["data_base64"] = base64.b64encode(json.dumps(packed.pop("data")).encode()).decode()
    records.append(("plans", json.dumps(packed).encode(), []))
    return records


def rejected() -> list[Record]:
    good = json.dumps(event(20, "waitpoint.created", "wp_20", title="Bad", ask=ask()))
    literal = json.dumps(TOKEN)
    binary = [("ce_specversion", b"1.0"), ("ce_type", b"waitpoint.created"), ("ce_id", b"i")]
    packed = event(21, "waitpoint.created", "wp_21")
    packed["data_base64"] = base64.b64encode(json.dumps({"ask": ask()}).encode()).decode()
    del packed["data"]
    texts = [
        good.replace('"title": "Bad"', '"title": 7'), good.replace("waitpoint.created", "waitpoint.exploded"),
        good.replace("waitpoint.created", "run.failed"), good[:-1], good[:good.index(CORE) + 18], "[" + good + "]",
        json.dumps(good), good.replace('"token": ', r'"token": "a", "\u0074oken": ').replace("Bad", ""),
        good.replace(literal, f"[{literal}]"), good.replace('"n": 1', '"n": ' + "[" * 200 + "]" * 200),
        good.replace('"Bad"', json.dumps("x" * 600)), json.dumps(event(22, "waitpoint.created", "w", title="Large",
                                                                        body_md="x" * (2 << 20), ask=ask())),
        json.dumps(packed), "\ufeff\ufeff" + good, good.replace('"title": "Bad"', '"title": "\\ud83d", "priority": 1'),
        good.replace(literal, json.dumps(TOKEN * 200)),
    ]
    return [("waitpoints", text.encode(), []) for text in texts] + [
        ("waitpoints", good.replace('"Bad"', "7").encode("utf-16"), []),
        ("waitpoints", good.replace("Bad", "").encode(), [("copy", good.encode())]),
        ("waitpoints", json.dumps({"ask": ask()}).encode(), binary),
    ]


async def produce(settings: Settings, records: list[Record]) -> None:
    """Writes the records compressed. The broker stores batches unchanged, so its files have no clear text of them."""
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka, compression_type="gzip", max_request_size=8 << 20) as producer:
        for topic, value, headers in records:
            await producer.send_and_wait(topic, value, key=b"k", headers=headers)


# --- where the token must not be ---

async def in_topics(settings: Settings) -> list[str]:
    places = []
    for topic in (LOG, VIEWS, FACTS, DEAD_LETTERS):
        records = [record for part in (await read(settings, topic)).values() for record in part]
        assert records, topic
        places += [place for record in records for place in occurrences(_name(record), *_texts(record))]
    seen = await look(settings)
    facts = [fact for fact in seen.unique_facts() if isinstance(fact, Fact)]
    places += occurrences("rows of ClickHouse", repr(columns(facts, [0] * len(facts))))
    places += occurrences("rows", *(text for rows in seen.rows.values() for row in rows.items() for text in row))
    return places + occurrences("letters", *(repr(letter) for letter in seen.letters))


def _name(record: ConsumerRecord) -> str:
    return f"{record.topic}/{record.partition} offset {record.offset}"


def _texts(record: ConsumerRecord) -> list[bytes | str | None]:
    return [record.key, record.value, *(text for header in record.headers for text in header)]


async def in_answers(base: str, client: httpx.AsyncClient, ids: list[str]) -> list[str]:
    paths = [
        "/org/me/inbox", "/org/me/inbox?dismissed=true", "/inbox", "/inbox/count", "/org/me/decisions",
        "/org/me/recent-drafts", "/org/me/activity", "/api/v1/inbox", "/api/v1/inbox?state=all",
        "/api/v1/inbox?state=resolved", "/api/v1/inbox?state=decided", "/metrics", "/healthz", "/readyz",
        *(f"/api/v1/inbox/{item}" for item in ids), *(f"/api/v1/inbox/{item}/decision/receipt" for item in ids),
        *(f"/api/v1/inbox/{item}/decision" for item in ids),
    ]
    places, answered = [], 0
    for path in paths:
        response = await client.get(base + path)
        answered += response.status_code == 200
        places += occurrences(path, response.content, str(response.headers))
    assert answered >= 8
    return places


@contextlib.contextmanager
def logged(settings: Settings) -> Iterator[io.StringIO]:
    """Collects the log of this process at level DEBUG, as a worker writes it."""
    root, out = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (
        *logging_setup._CHATTY, logging_setup._SHOWS_RECORDS)}
    try:
        logging_setup.configure("worker", settings.model_copy(update={"log_format": "json", "log_level": "DEBUG"}), out)
        yield out
    finally:
        root.handlers[:], root.level = before, level
        for name, was in levels.items():
            logging.getLogger(name).setLevel(was)
        logging.captureWarnings(False)
        structlog.reset_defaults()


@EMBEDDED_ONLY
@pytest.mark.parametrize("decided", [False, True], ids=["open", "decided"])
async def test_a_token_is_only_in_its_source_topic_and_in_decisions(
    stack: Stack, tmp_path: Path, decided: bool
) -> None:
    good, bad = accepted(), rejected()
    async with stack(jwt_secret=SECRET, undo_seconds=0, metrics_port=free_port()) as settings:
        await topics.ensure_topics(settings)
        with logged(settings) as log:
            async with worker(settings), edge(settings, metrics_port=0) as base, httpx.AsyncClient(
                    headers=bearer(*WHO), timeout=30) as client:
                feed = Client(base, who=WHO)
                await feed.get(1)
                await produce(settings, good + bad)

                async def settled() -> bool:
                    letters = await read(settings, DEAD_LETTERS)
                    return len(letters[0]) == len(bad) and len(await _items(base, client)) >= 6

                await eventually(settled, "all records are items or letters")
                items = await _items(base, client)
                asking = [item for item in items if "ask" in item]
                assert len(asking) == len(items)
                assert {item["ask"]["reply"]["to"] for item in asking} == {"x"}
                await _write(base, client, items)
                if decided:
                    await _decide(base, client, settings, next(item for item in items if item["source_id"] == "wp_1"))
                ids = [item["id"] for item in items]
                places = await in_topics(settings) + await in_answers(base, client, ids)
                places += occurrences("metrics of the worker", (await client.get(
                    f"http://127.0.0.1:{settings.metrics_port}/metrics")).content)
                await feed.close()
                assert len(feed.frames) > 3
                places += occurrences("feed", *(json.dumps(frame, ensure_ascii=False) for frame in feed.frames))
                sources = [record for topic in SOURCE_TYPES
                           for part in (await read(settings, topic)).values() for record in part]
                assert occurrences("sources", *(text for record in sources for text in _texts(record)))
                decisions = [record for part in (await read(settings, DECISIONS)).values() for record in part]
        text = log.getvalue()
    assert "dead-letters" in text or "ingesting" in text, "no log was collected"
    places += occurrences("log", text)
    if decided:
        made = [json.loads(record.value)["data"] for record in decisions]
        assert {data["reply"]["token"] for data in made} == {TOKEN}
    else:
        assert not decisions
        # The stopped broker has saved its data: files of all topics and groups, and its own log.
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(numbers(WS) in path.read_bytes() for path in files), "the files of the broker have no records"
        places += [place for path in files for place in occurrences(str(path.relative_to(tmp_path)), path.read_bytes())]
    assert places == []


async def _items(base: str, client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await client.get(base + "/org/me/inbox")).json()["items"]


async def _write(base: str, client: httpx.AsyncClient, items: list[dict[str, Any]]) -> None:
    """Sends writes of users: the log then has commands, and the view has marks and outcomes."""
    first, second = items[0]["id"], items[1]["id"]
    assert (await client.post(f"{base}/org/me/inbox/{first}/dismiss")).status_code == 200
    assert (await client.delete(f"{base}/org/me/inbox/{first}/dismiss")).status_code == 200
    assert (await client.patch(f"{base}/api/v1/inbox/{second}", json={"state": "read"},
                               headers={"Idempotency-Key": "k"})).status_code == 200


async def _decide(base: str, client: httpx.AsyncClient, settings: Settings, item: dict[str, Any]) -> None:
    answer = await client.post(f"{base}/api/v1/inbox/{item['id']}/decision",
                               json={"option": "approve", "digest": item["digest"]})
    assert answer.status_code == 201, answer.text
    assert not occurrences("decision", answer.content)
    started = time.monotonic()
    while not any((await read(settings, DECISIONS)).values()):
        assert time.monotonic() - started < 60
        await asyncio.sleep(0.1)
