"""OpenAPI and AsyncAPI documents are valid, complete and current, and describe the real messages. Also the page that
shows them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from support.clients.feed import frames
from support.edge.edges import Fed, serving
from support.edge.feeds import Edge
from support.edge.random_rows import World
from support.fold.fold_driver import cloud_event

import api
from api.contract import messages
from api.contract.asyncapi import asyncapi
from ops.cli.commands.records.schemas import documents
from schemas import views
from schemas.sources import MODELS
from schemas.topics import DECISION_REPORTS, SOURCE_TYPES, TOPICS

CHROMIUM = shutil.which("chromium")
HOME = Path(__file__).parents[3]
STATIC = Path(api.__file__).parent / "static"
DOCUMENT = asyncapi()


def of_asyncapi() -> Any:
    return json.loads(gzip.decompress((HOME / "tests/data/asyncapi/3.0.0.json.gz").read_bytes()))


def payload_of(message: str) -> jsonschema.Draft202012Validator:
    """Returns a validator of a message's payload, with the document's references resolved."""
    return jsonschema.Draft202012Validator(
        {**DOCUMENT["components"]["messages"][message]["payload"], "components": DOCUMENT["components"]})


def test_asyncapi_is_asyncapi() -> None:
    check = jsonschema.Draft7Validator(of_asyncapi())
    assert not [error.message for error in check.iter_errors(DOCUMENT)]
    assert not check.is_valid({**DOCUMENT, "channels": {"x": {"address": 1}}}), "the schema refuses an invalid document"
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        at: Any = DOCUMENT
        for part in reference.split("/"):
            at = at[part]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_topic_type_row_and_stream_is_in_it() -> None:
    channels, described = DOCUMENT["channels"], DOCUMENT["components"]["messages"]
    assert {topic.name for topic in TOPICS} <= set(channels)
    for topic, kinds in SOURCE_TYPES.items():
        assert set(channels[topic]["messages"]) == {
            form for kind in (*kinds, *DECISION_REPORTS) for form in (kind, f"{kind}.binary")}
    assert len(channels["attn.views"]["messages"]) == len(views.ROW_TYPES)
    assert channels["attn.views"]["bindings"]["kafka"]["topicConfiguration"] == {"cleanup.policy": ["compact"]}
    addresses = {channel["address"] for channel in channels.values()}
    assert {"/org/me/feed", "/events/stream", "/cases/{case}/events", "/api/v1/ws"} <= addresses
    assert {f"feed.{event}" for event in messages.FRAMES} == set(channels["feed"]["messages"])
    assert {f"case.{name}" for name, _ in messages.CASE_EVENTS.values()} <= set(channels["case-events"]["messages"])
    assert {"socket.auth", "socket.inbox.updated"} <= set(channels["socket"]["messages"])
    assert described["waitpoint.created.binary"]["headers"]["required"] == [
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_workspaceid"]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_source_events_fit_their_messages(kind: str) -> None:
    example = json.loads((HOME / f"schemas/examples/{kind}.json").read_text())
    assert payload_of(kind).is_valid(example)
    assert not payload_of(kind).is_valid({**example, "type": "x"})
    assert payload_of(f"{kind}.binary").is_valid(example.get("data", {}))
    assert not payload_of(kind).is_valid(cloud_event(kind, subject=""))


def test_every_frame_of_a_feed_is_as_described() -> None:
    """For frames of random batches."""
    world, edge = World(3), Edge()
    for rows, position in world.batches(60):
        edge.apply(rows, position)
    checks = {event: payload_of(f"feed.{event}") for event in messages.FRAMES}
    names = set()
    for _, sent, _ in edge.feeds.values():
        for _, event, data in frames(b"".join(sent)):
            errors = [error.message for error in checks[event].iter_errors(data)]
            assert not errors, (event, errors)
            names.add(event)
    assert names == set(messages.FRAMES) - {"heartbeat"}
    assert checks["heartbeat"].is_valid({"at": "2026-05-20T08:14:22Z", "cursor": 7})
    assert not checks["removed"].is_valid({"id": "x", "reason": "gone"})


def test_client_messages_of_the_socket_match_asyncapi() -> None:
    for kind, body in (("auth", {"token": "t"}), ("subscribe", {"channel": "c"}), ("unsubscribe", {"channel": "c"}),
                       ("ping", {})):
        check, message = payload_of(f"socket.{kind}"), {"type": kind, **body}
        assert check.is_valid(message)
        assert not check.is_valid({**message, "more": 1})
        model = next(model for model in messages.CLIENT_MESSAGES if model.__struct_config__.tag == kind)
        assert msgspec.json.decode(json.dumps(message), type=model)


async def test_both_documents_are_public_and_equal_the_files_of_the_repository() -> None:
    wanted = documents()
    async with Fed(jwt_secret="not to be told to anybody, whoever asks for a document").client() as client:
        client.headers = {}  # type: ignore[assignment]
        for name, document in wanted.items():
            answer = await client.get(f"/{name}")
            assert answer.status_code == 200
            assert answer.json() == document == json.loads((HOME / "schemas/json" / name).read_text())
            assert "not to be told" not in answer.text


async def test_the_page_loads_nothing_from_elsewhere() -> None:
    async with Fed().client() as client:
        client.headers = {}  # type: ignore[assignment]
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert not re.search(r"<script>|(src|href)=.(https?:)?//", page.text)
        for path in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text):
            answer = await client.get(path)
            assert (answer.status_code, len(answer.content) > 100) == (200, True), path
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert 'href="/asyncapi.json"' in page.text
        for path in ("/docs/README.md", "/docs/../page.js", "/docs/%2e%2e%2fpage.js", "/redoc"):
            assert (await client.get(path)).status_code == 404, path


def test_the_vendored_files_are_those_of_their_version() -> None:
    home = STATIC / "vendor" / "swagger-ui"
    named = dict(reversed(line.split()) for line in (home / "README.md").read_text().splitlines() if "    " in line[:4])
    assert set(named) == {"swagger-ui-bundle.js", "swagger-ui.css"}
    for name, digest in named.items():
        assert hashlib.sha256((home / name).read_bytes()).hexdigest() == digest
    assert (home / "LICENSE").exists()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
async def test_the_page_draws_the_routes_under_its_own_policy() -> None:
    from playwright.async_api import async_playwright

    async with serving(Fed().edge) as base, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        console: list[str] = []
        page.on("console", lambda message: console.append(message.text) if message.type == "error" else None)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        await page.goto(base + "/docs")
        await page.wait_for_selector('[data-path="/org/me/feed"]', timeout=60_000)
        await page.locator('[data-path="/api/v1/inbox/bulk"]').click()
        await page.wait_for_selector("text=skipped_ids", timeout=60_000)
        await browser.close()
    assert not console
    assert all(url.startswith((base, "data:")) for url in requests), requests
