"""Ids are free text (CONTRACT §2): every route with an id in its path accepts it percent-encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from support.clickhouse.embedded_server import Archived, archived
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import serving, token
from support.fold.fold_driver import cloud_event, event

from api.history.client import HistoryClient
from schemas.facts import Fact
from streams.core.domain.keys import legacy_event_name
from streams.core.normalise import normalise

IDS = (
    "acme/web#42", "a/b/c", "/", "//", "a/", "/a", "%", "%2F", "%252F", "a%zz", "100%", "?a=b", "a b", " a", "a+b",
    "a&b=c;d",
    ".", "..", "../x", "..\\x", "./a", "a/../b", "../../metrics", "history", "events", "a/history", "a/events",
    "é😀", "e\u0301", "\ufffd", "\u202e", "a\tb", "a\nb", "a\r\n", "\x7f", "a\0b", "\\", "\\N", "\\'",
    "'", '"', "NULL", "{case:String}",
    "a:b", "@", "~", "a" * 512, "😀" * 512,
)

PAST = ("acme/web#42", "//", "%2F", "%252F", "?a=b", "a b", "..", "../x", "a\tb", "a\nb", "a\0b", "\\N", "\\'", "NULL",
        "{case:String}", "😀" * 512)


def encoded(text: str) -> str:
    """Percent-encodes every byte except letters and digits; dots too, because clients drop segments of dots."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())


class Client:
    """HTTP over a plain connection, because HTTP clients normalise the path."""

    def __init__(self, base: str, user: str = "ann", role: str = "OWNER") -> None:
        self.port, self.token = int(base.rsplit(":", 1)[1]), token(user, role, ws=WS)

    async def ask(self, path: str, stop: bytes = b"") -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.token}\r\nconnection: close\r\n\r\n"
                .encode("latin-1"))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            status = int(head.split(b" ", 2)[1])
            body = await asyncio.wait_for(reader.readuntil(stop) if stop and status == 200 else reader.read(), 60)
            return status, body
        finally:
            writer.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    pytest.importorskip("chdb", reason="chdb is not installed")
    with archived(tmp_path_factory.mktemp("archive")) as archive_of_test:
        yield archive_of_test


@asynccontextmanager
async def blocked(archive: Archived | None = None) -> Any:
    """Serves an edge with a blocked case per id, whose events are in the archive."""
    attn = Deciding(**({"clickhouse_read_url": archive.url} if archive else {}))
    edge = attn.edges[0]
    attn.happen(event("message.posted", title="T"))  # this event has id 0, after which the streams resume
    attn.happen(*(event("case.state_changed", case, state="BLOCKED", title=f"case {number}")
                  for number, case in enumerate(IDS)))
    if archive is not None:
        archive.keep(attn.facts)
        edge.history = HistoryClient(edge.settings)
    async with serving(edge) as base:
        yield attn, Client(base)
    if archive is not None:
        await edge.history.close()


@pytest.mark.clickhouse
async def test_the_history_of_a_case_with_any_id(archive: Archived) -> None:
    async with blocked(archive) as (_, client):
        for case in PAST:
            number = IDS.index(case)
            status, body = await client.ask(f"/cases/{encoded(case) if number % 2 else quote(case, safe='')}/history")
            assert status == 200, (case, body)
            page = orjson.loads(body)
            assert page["case_id"] == case
            assert [entry["title"] for entry in page["events"]] == [f"case {number}"], case


async def test_the_stream_of_a_case_with_any_id() -> None:
    async with blocked() as (_, client):
        for case in IDS:
            status, _ = await client.ask(f"/cases/{encoded(case)}/events?last_event_id=0", b"case_state_changed")
            assert status == 200, case


NOWHERE = (
    "/cases/acme/web%2342/history", "/cases/acme%2Fweb/history", "/cases/%2F/%2F/history", "/cases//history",
    "/cases/acme%252Fweb%252342/history", "/cases/%2e%2e%2fnever/events", "/cases/%FF/events",
    "/cases/%ED%A0%BD/events",
    "/cases/" + "a" * 513 + "/events", "/cases%2Facme%2Fweb%2342%2Fevents", "/healthz%0A", "/org/me/inbox%0A",
    "/org%2Fme/inbox",
    "/static/index.html%2F..%2Findex.html", "/static/..%2F..%2Fapp.py", "/static/%2e%2e/app.py", "/api/v1/inbox/a%2Fb",
    "/org/me/inbox/..%2F..", "/org/me/inbox/%2e%2e/inbox",
)


async def test_an_unknown_path_is_404() -> None:
    async with blocked() as (attn, client):
        attn.edges[0].history = Nothing()
        for path in NOWHERE:
            status, body = await client.ask(path)
            assert (status, b'"error"' in body) == (404, True), path


class Nothing:
    async def query(self, sql: str, reader: Any, **parameters: Any) -> list[Any]:
        return []


ODD: dict[str, set[int]] = {
    "/cases/" + "%F0%9F%98%80" * 512 + "/events?last_event_id=0": {200}, "/cases/" + "a" * 2001 + "/events": {400},
    "/cases/" + "a" * 70_000 + "/events": {431}, "/cases/\xff/events": {400, 404}, "/%": {404}, "/%%32F": {404},
    "/healthz?%ff=%00#x": {200}, "/he%61lthz": {200}, "http://other/healthz": {200}, "/cases/a%00/events": {404},
}


async def test_odd_paths_have_an_answer() -> None:
    async with blocked() as (_, client):
        for path, statuses in ODD.items():
            status, _ = await client.ask(path, b"case_state_changed" if statuses == {200} and "/cases" in path else b"")
            assert status in statuses, path


async def test_reads_and_writes_of_an_item_take_an_encoded_id() -> None:
    attn = Deciding()
    attn.happen(event("message.posted", "a/b#c", title="T"))
    async with attn.client() as client:
        [item] = (await client.get("/org/me/inbox")).json()["items"]
        name = "".join(f"%{ord(sign):02x}" for sign in item["id"])
        for path in (f"/org/me/inbox/{name}", f"/api/v1/inbox/{name}"):
            assert (await client.get(path)).json()["source_id"] == "a/b#c"
        assert (await client.post(f"/org/me/inbox/{name}/dismiss")).status_code == 200
        assert (await client.delete(f"/org/me/inbox/{name}/dismiss")).status_code == 200
        assert (await client.patch(f"/api/v1/inbox/{name}", json={"state": "read"})).status_code == 200
        assert (await client.patch("/api/v1/inbox/a%2Fb", json={"state": "read"})).status_code == 404


async def test_the_default_link_of_a_case_leads_to_its_page() -> None:
    attn = Deciding()
    cases = [case for case in IDS if case not in (".", "..")]
    attn.happen(*(event("message.posted", f"m{number}", title=str(number), case_id=case, session_id=case)
                  for number, case in enumerate(cases)))
    async with attn.client() as client:
        items = (await client.get("/inbox")).json()["items"]
        assert {item["title"]: item["action_url"] for item in items} == {
            str(number): "/cases/{0}/sessions/{0}".format(quote(case, safe="")) for number, case in enumerate(cases)}
        for item in items:
            answer = await client.get(item["action_url"], headers={"accept": "text/html"})
            assert answer.headers["content-type"].startswith("text/html"), item


@pytest.mark.clickhouse
@pytest.mark.parametrize("older", [False, True], ids=["rows of this attn", "rows of an older attn"])
async def test_pages_of_a_case_hold_events_whose_source_and_id_read_alike(archive: Archived, older: bool) -> None:
    case, pairs = f"alike {older}", [("ci deploy", "7"), ("ci", "deploy 7"), ("ci", "deploy"), ("ci deploy 7", "x")]
    attn = Deciding(clickhouse_read_url=archive.url)
    edge = attn.edges[0]
    attn.happen(*(
        normalise("cases", orjson.dumps(cloud_event("case.state_changed", case, state="BLOCKED",
                                                    title=f"{source}|{name}") | {"source": source, "id": name}))
        for source, name in pairs))
    facts = [fact for fact in attn.facts if isinstance(fact, Fact)]
    assert len({fact.event_id for fact in facts}) == len(pairs)
    if older:
        for fact in facts:
            fact.event_id = legacy_event_name(fact.event_id)
        assert len({fact.event_id for fact in facts}) == len(pairs) - 1
    archive.keep(facts)
    edge.history = HistoryClient(edge.settings)
    async with serving(edge) as base:
        titles, more = [], ""
        while more is not None:
            status, body = await Client(base).ask(f"/cases/{quote(case)}/history?limit=1" + (more and f"&next={more}"))
            assert status == 200, body
            page = orjson.loads(body)
            titles += [entry["title"] for entry in page["events"]]
            more = page.get("next")
    await edge.history.close()
    assert sorted(titles) == sorted(f"{source}|{name}" for source, name in pairs)
