"""POST /hooks/{name}: each mapping, status and way to authenticate, and the events on the topics."""

from __future__ import annotations

import base64
import gzip
import hmac
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.edges import bearer
from support.edge.topic_writer import TopicWriter

from api.intake.hook_signature import is_signed
from schemas.topics import SOURCE_TYPES

DATA = Path(__file__).parents[2] / "data" / "connect"
SECRET = "a secret of the hook"
HOOKS = f"""
[[hook]]
name = "ci"
mapping = "github"
workspace = "ws"
secrets = ["an earlier secret", "{SECRET}"]
source = "/github/acme"
[[hook]]
name = "jira"
mapping = "generic"
file = "jira.toml"
source = "/jira"
[[hook]]
name = "gitea"
mapping = "generic"
file = "jira.toml"
workspace = "ws"
secrets = ["{SECRET}"]
signature_header = "X-Gitea-Signature"
[[hook]]
name = "elsewhere"
mapping = "alertmanager"
workspace = "other"
[[hook]]
name = "groups"
mapping = "alertmanager"
[hook.options]
per = "group"
kind = "failed_run"
"""


def payload(name: str) -> bytes:
    return (DATA / name).read_bytes()


def delivery(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "status": "firing", "alerts": list(alerts), **more}


def alert(fingerprint: str = "f1", **more: Any) -> dict[str, Any]:
    return {"status": "firing", "fingerprint": fingerprint, "annotations": {"summary": "S"},
            "labels": {"alertname": "A", "severity": "critical", "cluster": "eu"},
            "startsAt": "2026-05-20T12:00:00Z", "endsAt": "0001-01-01T00:00:00Z", **more}


class World:
    """An attn with a key and a file of hooks: `send` posts to /hooks with the key, or with the given headers."""

    def __init__(self, folder: Path | None = None, **settings: Any) -> None:
        if folder is not None:
            (folder / "jira.toml").write_bytes(payload("generic/jira.toml"))
            (folder / "hooks.toml").write_text(HOOKS)
            settings["hooks"] = folder / "hooks.toml"
        self.attn = Deciding(edges=2, **{"write_rate": 1e6, "write_burst": 10**6, **settings})
        self.topics = TopicWriter(self.attn)
        self.secret = ""

    async def key(self, **more: Any) -> str:
        async with self.attn.client("ann", "OWNER") as client:
            answer = await client.post("/org/me/keys", json={"name": "CI", "topics": list(SOURCE_TYPES)} | more)
            assert answer.status_code == 201, answer.text
            self.secret = answer.json()["secret"]
            return self.secret

    async def send(
        self, name: str, content: Any, headers: dict[str, str] | list[tuple[str, str]] | None = None, edge: int = 0,
        query: str = "",
    ) -> httpx.Response:
        raw = content if isinstance(content, bytes) else orjson.dumps(content)
        sent = headers if headers is not None else {"authorization": f"Bearer {self.secret}"}
        if isinstance(sent, dict):
            sent = {"content-type": "application/json"} | sent
        async with self.attn.client(edge=edge, headers={}) as client:
            return await client.post(f"/hooks/{name}{query}", content=raw, headers=sent)

    async def signed(self, name: str, content: bytes, event: str = "workflow_run", **more: str) -> httpx.Response:
        headers = {"x-hub-signature-256": signature(content), "x-github-event": event} | more
        return await self.send(name, content, headers)

    async def items(self) -> dict[str, Any]:
        async with self.attn.client("ann", "OWNER") as client:
            rows = (await client.get("/api/v1/inbox?limit=200")).json()["rows"]
            return {row["source_id"]: row for row in rows}

    async def listed(self) -> dict[str, Any]:
        async with self.attn.client("ann", "OWNER") as client:
            return {item["source_id"]: item for item in (await client.get("/org/me/inbox")).json()["items"]}


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()


async def world(folder: Path | None = None, key: dict[str, Any] | None = None, **settings: Any) -> World:
    new_world = World(folder, **settings)
    await new_world.key(**(key or {}))
    return new_world


def accepted(count: int, **more: Any) -> tuple[int, dict[str, Any]]:
    return 202, {"accepted": count, "rejected": []} | more


def answer_of(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    return answer.status_code, answer.json()


async def test_the_life_of_an_alert() -> None:
    attn = await world()
    assert answer_of(await attn.send("alertmanager", payload("alertmanager/firing.json"))) == accepted(2)
    rows = await attn.items()
    item = rows["b8a2067e7c1ec1f8"]
    assert (item["kind"], item["state"], item["priority"]) == ("escalation", "unread", "normal")
    assert (await attn.listed())["b8a2067e7c1ec1f8"]["cluster"] == "us-1"
    assert item["title"] == "HighLatency: p99 is above 1 s"
    [option] = item["ask"]["options"]
    assert (option["does"], list(option["form"]["properties"]), option["comment"]) == (
        "acknowledge", ["length"], "optional")
    assert answer_of(await attn.send("alertmanager", payload("alertmanager/truncated.json"))) == accepted(
        2, truncated=1)
    assert (await attn.items())["28227468239c9e28"]["priority"] == "urgent"
    assert answer_of(await attn.send("alertmanager", payload("alertmanager/one-resolved.json")))[0] == 202
    assert (await attn.items())["28227468239c9e28"]["resolved_action"] == "resolved"
    assert answer_of(await attn.send("alertmanager", payload("alertmanager/resolved.json"))) == accepted(2)
    assert {row["state"] for row in (await attn.items()).values()} == {"resolved"}


async def test_a_repeated_delivery_changes_nothing() -> None:
    attn = await world()
    for name in ("firing", "truncated", "one-resolved"):
        await attn.send("alertmanager", payload(f"alertmanager/{name}.json"))
    before, facts = await attn.items(), len(attn.attn.facts)
    for name in ("one-resolved", "firing", "truncated"):
        assert (await attn.send("alertmanager", payload(f"alertmanager/{name}.json"), edge=1)).status_code == 202
    assert await attn.items() == before
    assert len(attn.attn.facts) == facts


async def test_events_are_on_their_topic_with_the_workspace_of_the_key() -> None:
    attn = await world(key={"source": "/alertmanager/prod"})
    assert (await attn.send("alertmanager", delivery(alert()))).status_code == 202
    [record] = attn.topics.records
    event = json.loads(record.value)
    assert (record.topic, record.key) == ("escalations", b"ws")
    assert (event["workspaceid"], event["source"]) == ("ws", "/alertmanager/prod")


async def test_a_key_for_failed_runs_makes_failed_runs_that_form_an_incident() -> None:
    attn = await world(key={"topics": ["run-failures"]})
    other = alert("f2") | {"labels": {"alertname": "A", "severity": "warning", "cluster": "us"}}
    assert (await attn.send("alertmanager", delivery(alert(), other))).status_code == 202
    [incident] = (await attn.listed()).values()
    assert (incident["kind"], incident["clusters"]) == ("incident", ["eu", "us"])


@pytest.mark.parametrize("scheme", ["bearer", "basic", "basic-user"])
async def test_a_key_is_accepted_as_token_and_as_password(scheme: str) -> None:
    attn = await world()
    basic = {"basic": f":{attn.secret}", "basic-user": f"attn:{attn.secret}"}.get(scheme)
    header = f"Basic {base64.b64encode(basic.encode()).decode()}" if basic else f"Bearer {attn.secret}"
    assert (await attn.send("alertmanager", delivery(alert()), {"authorization": header})).status_code == 202


@pytest.mark.parametrize("header", [
    None, "Bearer attn_nonsense", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"user").decode(),
    "Basic " + base64.b64encode(b"user:attn_x").decode(), "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    "Digest x",
])
async def test_without_a_valid_key_it_is_401(header: str | None) -> None:
    attn = await world()
    answer = await attn.send("alertmanager", delivery(alert()), {"authorization": header} if header else {})
    assert answer.status_code == 401
    assert not attn.topics.records


async def test_a_key_in_the_query_is_not_accepted() -> None:
    attn = await world()
    for query in (f"?key={attn.secret}", f"?access_token={attn.secret}"):
        assert (await attn.send("alertmanager", delivery(alert()), {}, query=query)).status_code == 401


async def test_json_with_the_media_type_of_a_form_is_read() -> None:
    """`curl -d` sends this media type."""
    attn = await world()
    headers = {"authorization": f"Bearer {attn.secret}", "content-type": "application/x-www-form-urlencoded"}
    assert answer_of(await attn.send("alertmanager", delivery(alert()), headers)) == accepted(1)


async def test_two_authorization_headers_are_401() -> None:
    attn = await world()
    headers = [("authorization", f"Bearer {attn.secret}"), ("authorization", f"Bearer {attn.secret}")]
    assert (await attn.send("alertmanager", delivery(alert()), headers)).status_code == 401


async def test_a_revoked_key_is_401() -> None:
    attn = await world()
    async with attn.attn.client("ann", "OWNER") as client:
        await client.delete(f"/org/me/keys/{attn.secret[5:21]}")
    assert (await attn.send("alertmanager", delivery(alert()))).status_code == 401


async def test_the_session_cookie_needs_the_csrf_header() -> None:
    attn = await world()
    session = bearer("ann", "OWNER", ws="ws", seconds=10 * 365 * 86400)["authorization"].removeprefix("Bearer ")
    cookie = {"cookie": f"attn_session={session}; attn_csrf=c"}
    assert (await attn.send("alertmanager", delivery(alert()), cookie)).status_code == 403
    assert (await attn.send("alertmanager", delivery(alert()), cookie | {"x-csrf-token": "c"})).status_code == 202


@pytest.mark.parametrize(("role", "status"), [("OWNER", 202), ("ADMIN", 202), ("MEMBER", 403)])
async def test_a_user_may_send_as_at_events(role: str, status: int) -> None:
    attn = await world()
    async with attn.attn.client("ann", role) as client:
        assert (await client.post("/hooks/alertmanager", json=delivery(alert()))).status_code == status


async def test_outside_of_the_keys_scope_it_is_403_and_no_dead_letter() -> None:
    attn = await world(key={"topics": ["messages"]})
    status, body = answer_of(await attn.send("alertmanager", delivery(alert())))
    assert (status, body["error"]) == (403, "type: the key may not send to topic escalations")
    assert not attn.topics.letters


@pytest.mark.parametrize("name", ["nonsense", "elsewhere", "jira2", "%00"])
async def test_an_unknown_hook_and_one_of_another_workspace_are_404(name: str, tmp_path: Path) -> None:
    attn = await world(tmp_path)
    answer = await attn.send(name, delivery(alert()))
    assert answer.status_code == 404
    assert "no hook named" in answer.json()["error"]
    assert (await attn.send(name, delivery(alert()), {})).status_code == 401


async def test_an_alert_that_cannot_be_mapped_does_not_stop_the_others() -> None:
    attn = await world()
    body = delivery(alert("f1"), alert("f2") | {"startsAt": "yesterday"}, 7, alert("f3"))
    status, answer = answer_of(await attn.send("alertmanager", body))
    assert (status, answer["accepted"]) == (202, 2)
    assert [(row["index"], row["status"], row["error"].partition(":")[0]) for row in answer["rejected"]] == [
        (1, 400, "alerts.1.startsAt"), (2, 400, "alerts.2")]
    assert set(await attn.items()) == {"f1", "f3"}
    [letter] = attn.topics.letters
    assert (letter.topic, letter.cause, letter.value) == ("hooks/alertmanager", "fields", orjson.dumps(body))
    assert "alerts.1.startsAt" in letter.reason
    assert "alerts.2: must be an object" in letter.reason
    assert dict(letter.headers) == {"content-type": b"application/json"} | {
        name: raw for name, raw in letter.headers if name == "user-agent"}


@pytest.mark.parametrize(("content", "error", "cause"), [
    (b"", "not JSON", "json"), (b"{", "not JSON", "json"), (b"[" * 100_000, "nested deeper", "json"),
    (b"\xff", "not JSON", "json"), (b"[]", "payload: must be an object", "fields"),
    (b'{"version":"5","alerts":[]}', "version", "fields"), (b'{"version":"4"}', "alerts: must be an array", "fields"),
    (orjson.dumps(delivery(*[alert()] * 1001)), "alerts: 1001 alerts", "fields"),
], ids=["empty", "cut", "nested", "no-utf8", "array", "version", "no-alerts", "many"])
async def test_an_invalid_delivery_is_400_and_a_dead_letter(content: bytes, error: str, cause: str) -> None:
    attn = await world()
    status, body = answer_of(await attn.send("alertmanager", content))
    assert status == 400
    assert error in body["error"]
    assert body["rejected"] == [{"index": 0, "error": body["error"], "status": 400}]
    [letter] = attn.topics.letters
    assert (letter.value, letter.cause, letter.reason) == (content, cause, body["error"])


async def test_an_event_beyond_a_limit_is_rejected_with_its_field() -> None:
    attn = await world(max_title=10)
    body = delivery(7, alert("f3", annotations={"summary": "x" * 99}), alert())
    status, answer = answer_of(await attn.send("alertmanager", body))
    assert (status, answer["accepted"]) == (202, 1)
    assert answer["rejected"][1] == {
        "index": 1, "error": "data.title: 102 characters; at most 10 are accepted", "status": 400}
    assert "data.title: 102 characters" in attn.topics.letters[-1].reason


async def test_a_dead_letter_has_no_reply_token() -> None:
    attn = await world()
    await attn.send("alertmanager", b'{"data":{"ask":{"reply":{"token":"only-for-the-source"}}}}')
    [letter] = attn.topics.letters
    assert letter.blanked == 1
    assert b"only-for-the-source" not in (letter.value or b"")


async def test_grafana() -> None:
    attn = await world()
    assert answer_of(await attn.send("grafana", payload("grafana/firing.json"))) == accepted(1)
    item = (await attn.items())["c6eadffa33fcdf37"]
    assert (item["priority"], item["kind"], "ask" in item) == ("high", "escalation", False)
    assert "B = 97.2" in item["body_md"]
    assert answer_of(await attn.send("grafana", payload("grafana/resolved.json"))) == accepted(1)
    assert (await attn.items())["c6eadffa33fcdf37"]["state"] == "resolved"


async def test_a_group_is_one_item(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    for name in ("firing", "truncated", "one-resolved"):
        assert (await attn.send("groups", payload(f"alertmanager/{name}.json"))).status_code == 202
    [item] = (await attn.items()).values()
    assert (item["kind"], item["state"], item["title"]) == ("failed_run", "unread", "HighLatency")
    await attn.send("groups", payload("alertmanager/resolved.json"))
    [item] = (await attn.items()).values()
    assert (item["state"], item["resolved_action"]) == ("resolved", "recovered")


async def test_a_group_with_truncated_alerts_stays_open(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    await attn.send("groups", delivery(alert()))
    ended = alert(status="resolved", endsAt="2026-05-20T13:00:00Z")
    assert answer_of(await attn.send("groups", delivery(ended, truncatedAlerts=3))) == accepted(0, truncated=3)
    assert [row["state"] for row in (await attn.items()).values()] == ["unread"]


async def test_github_by_signature(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    assert answer_of(await attn.signed("ci", payload("github/workflow_run.failed.json"))) == accepted(1)
    run = "octo-org/octo-repo/runs/289782451"
    item = (await attn.items())[run]
    assert (item["kind"], item["title"]) == ("failed_run", "test.yml failed on master in octo-org/octo-repo")
    assert json.loads(attn.topics.records[0].value)["source"] == "/github/acme"
    assert answer_of(await attn.signed("ci", payload("github/workflow_run.second-success.json"))) == accepted(1)
    assert (await attn.items())[run]["resolved_action"] == "recovered"


async def test_a_deployment_waits_for_its_review(tmp_path: Path) -> None:
    attn = World(tmp_path)
    attn.attn.now = 1_688_463_000.0  # the time of the payloads: GitHub waits 30 days for a review
    subject = "terraform-test-github/sample-app/runs/5453085689/environments/TST"
    requested = payload("github/deployment_review.requested.json")
    assert answer_of(await attn.signed("ci", requested, "deployment_review")) == accepted(1)
    item = (await attn.items())[subject]
    assert (item["kind"], (await attn.listed())[subject]["cluster"]) == ("waitpoint", "TST")
    assert [option["does"] for option in item["ask"]["options"]] == ["approve", "reject"]
    await attn.signed("ci", payload("github/deployment_review.rejected.json"), "deployment_review")
    assert (await attn.items())[subject]["resolved_action"] == "rejected"
    rule = payload("github/deployment_protection_rule.requested.json")
    assert answer_of(await attn.signed("ci", rule, "deployment_protection_rule")) == accepted(1)


@pytest.mark.parametrize(("event", "ignored"), [
    ("ping", "event 'ping' is not mapped"), ("push", "event 'push' is not mapped"),
])
async def test_other_events_of_github_are_accepted_and_ignored(event: str, ignored: str, tmp_path: Path) -> None:
    attn = await world(tmp_path)
    assert answer_of(await attn.signed("ci", payload("github/ping.json"), event)) == accepted(0, ignored=ignored)
    assert not attn.topics.records


async def test_github_may_send_a_form_and_gzip(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    form = httpx.QueryParams({"payload": payload("github/workflow_run.failed.json").decode()})
    body = str(form).encode()
    answer = await attn.signed("ci", body, **{"content-type": "application/x-www-form-urlencoded"})
    assert answer_of(answer) == accepted(1)
    plain = payload("github/deployment_review.requested.json")
    answer = await attn.send("ci", gzip.compress(plain), {
        "x-hub-signature-256": signature(plain), "x-github-event": "deployment_review", "content-encoding": "gzip"})
    assert answer_of(answer) == accepted(1)


async def test_a_payload_of_github_that_cannot_be_mapped_names_the_field(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    body = orjson.dumps({"action": "completed", "repository": {"full_name": "a/b"}, "workflow_run": {}})
    status, answer = answer_of(await attn.signed("ci", body, **{"x-github-delivery": "d1"}))
    assert (status, answer["error"]) == (400, "workflow_run.id: is missing")
    [letter] = attn.topics.letters
    assert (letter.topic, letter.reason, letter.value) == ("hooks/ci", "workflow_run.id: is missing", body)
    assert dict(letter.headers)["x-github-delivery"] == b"d1"
    assert b"sha256" not in str(letter.headers).encode()
    assert answer_of(await attn.signed("ci", b"{}", ""))[1]["error"] == "header X-GitHub-Event: is missing"


def test_the_public_vector_of_githubs_documentation() -> None:
    vector = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = b"It's a Secret to Everybody"
    assert is_signed(b"Hello, World!", vector, [secret])
    assert is_signed(b"Hello, World!", vector.removeprefix("sha256=").upper(), [b"another", secret])
    assert not is_signed(b"Hello, World?", vector, [secret])
    assert not is_signed(b"Hello, World!", vector, [b"another"])
    assert not is_signed(b"Hello, World!", vector, [])


@pytest.mark.parametrize("sent", [
    [], ["sha256="], ["sha256=" + "0" * 64], ["sha1=" + "0" * 40], ["0" * 63], [signature(b"{}", "another secret")],
    [signature(b"{}"), signature(b"{}")], [signature(b"{} ")], ["sha256=" + "é" * 64],
], ids=["none", "empty", "zeros", "sha1", "short", "secret", "twice", "body", "letters"])
async def test_without_a_valid_signature_it_is_401(sent: list[str], tmp_path: Path) -> None:
    attn = await world(tmp_path)
    headers = [(b"x-github-event", b"ping"), *[(b"x-hub-signature-256", value.encode()) for value in sent]]
    answer = await attn.send("ci", b"{}", headers)  # type: ignore[arg-type]
    assert answer.status_code == 401, answer.text
    assert not attn.topics.records
    assert attn.attn.edges[0].event_sender._held == 0


async def test_without_a_caller_the_answer_is_the_same_for_each_name(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    for headers in ({}, {"x-hub-signature-256": "sha256=" + "0" * 64}):
        answers = [await attn.send(name, b"{}", headers) for name in ("ci", "gitea", "jira", "alertmanager", "none")]
        assert {(answer.status_code, answer.text, answer.headers["www-authenticate"]) for answer in answers} == {
            (401, answers[0].text, 'Bearer, Basic realm="attn"')}


async def test_the_earlier_secret_is_accepted_while_it_is_replaced(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    for secret in ("an earlier secret", SECRET):
        answer = await attn.send("ci", b"{}", {
            "x-hub-signature-256": signature(b"{}", secret), "x-github-event": "ping"})
        assert answer.status_code == 202


async def test_a_signed_hook_also_takes_a_key_of_its_workspace(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    headers = {"authorization": f"Bearer {attn.secret}", "x-github-event": "workflow_run"}
    assert answer_of(await attn.send("ci", payload("github/workflow_run.failed.json"), headers)) == accepted(1)
    assert answer_of(await attn.send("github", payload("github/workflow_run.failed.json"), headers)) == accepted(1)


async def test_generic(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    assert answer_of(await attn.send("jira", payload("generic/jira.blocked.json"))) == accepted(1)
    item = (await attn.items())["SHOP-42"]
    assert (item["title"], item["priority"], item["sender_name"]) == (
        "SHOP-42: Checkout fails", "urgent", "Mia Krystof")
    assert json.loads(attn.topics.records[0].value)["source"] == "/jira"
    await attn.send("jira", payload("generic/jira.resumed.json"))
    assert (await attn.items())["SHOP-42"]["state"] == "resolved"
    broken = b'{"issue": {"key": "SHOP-1", "fields": {"status": {"name": "Blocked"}}}}'
    status, body = answer_of(await attn.send("jira", broken))
    assert (status, body["accepted"]) == (202, 0)
    assert body["rejected"][0]["error"] == "event.0.time: is missing: {{ payload.timestamp }}"
    assert attn.topics.letters[-1].value == broken


async def test_generic_by_signature(tmp_path: Path) -> None:
    attn = await world(tmp_path)
    body = payload("generic/jira.blocked.json")
    plain = hmac.new(SECRET.encode(), body, sha256).hexdigest()
    assert answer_of(await attn.send("gitea", body, {"x-gitea-signature": plain})) == accepted(1)
    assert (await attn.send("gitea", body, {"x-hub-signature-256": plain})).status_code == 401


@pytest.mark.parametrize(("encoding", "content", "status"), [
    ("gzip", gzip.compress(orjson.dumps(delivery(alert()))), 202), ("gzip", b"no gzip", 400), ("br", b"{}", 415),
    ("gzip", gzip.compress(b" " * (5 << 20)), 413), ("identity", b" " * (5 << 20), 413),
], ids=["gzip", "no-gzip", "br", "bomb", "large"])
async def test_the_body_is_bounded(encoding: str, content: bytes, status: int) -> None:
    attn = await world()
    answer = await attn.send("alertmanager", content, {
        "authorization": f"Bearer {attn.secret}", "content-encoding": encoding})
    assert answer.status_code == status, answer.text
    assert attn.attn.edges[0].event_sender._held == 0


async def test_a_body_above_the_limit_of_other_writes_is_accepted() -> None:
    attn = await world()
    body = delivery(*[alert(f"f{number}", annotations={"summary": "S", "x": "y" * 3000}) for number in range(500)])
    assert len(orjson.dumps(body)) > 1 << 20
    assert answer_of(await attn.send("alertmanager", body)) == accepted(500)


@pytest.mark.parametrize(("name", "status"), [("alertmanager", 503), ("grafana", 429), ("jira", 429)])
async def test_above_the_rate_limit_the_status_is_one_that_the_sender_retries(
    name: str, status: int, tmp_path: Path,
) -> None:
    attn = await world(tmp_path, event_rate=0.001, event_burst=2)
    body = payload("generic/jira.blocked.json") if name == "jira" else delivery(alert(), alert("f2"), alert("f3"))
    answers = [await attn.send(name, body) for _ in range(4)]
    assert answers[0].status_code == 202
    assert answers[-1].status_code == status
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_while_kafka_does_not_answer_it_is_503() -> None:
    attn = await world(event_seconds=0.05)
    attn.topics.held = True
    answer = await attn.send("alertmanager", delivery(alert()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    attn.topics.acknowledge()
    attn.topics.failing = True
    assert (await attn.send("alertmanager", delivery(alert()))).status_code == 503


async def test_other_methods_are_not_allowed() -> None:
    attn = await world()
    async with attn.attn.client(headers={"authorization": f"Bearer {attn.secret}"}) as client:
        for method in ("GET", "PUT", "DELETE"):
            assert (await client.request(method, "/hooks/alertmanager")).status_code == 405


async def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attn = await world(tmp_path)
    hooks = attn.attn.edges[0].hooks
    monkeypatch.setattr(hooks, "_clock", lambda: hooks._checked_at + 3)
    path = tmp_path / "hooks.toml"
    path.write_text("[[hook]]\nname = 'new'\nmapping = 'alertmanager'\n")
    assert (await attn.send("new", delivery(alert()))).status_code == 202
    assert (await attn.send("jira", payload("generic/jira.blocked.json"))).status_code == 404
    path.write_text("[[hook]]\nname = 'new'\n")
    assert (await attn.send("new", delivery(alert()))).status_code == 202, (
        "an invalid file does not replace a valid one")
