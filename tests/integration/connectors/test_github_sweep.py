"""Sweeps of GitHub's stub send each event that attn lacks, once and with the id of its webhook, and no other event."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.peers.github_connector import APP_ID, PRIVATE, PUBLIC, KnownItems, connected, decided
from support.peers.github_stub import REPO, Fault, GithubStub, stamp

from streams.connectors.github.client import GithubClient, checked_base_url
from streams.connectors.github.subjects import target_of
from streams.connectors.mappings.github import GithubOptions, events_of
from streams.connectors.peer import PeerUnavailable
from streams.core.normalise import normalise

OPTIONS = GithubOptions(ask_runs=True)
PROD = f"{REPO}/runs/7/environments/prod"


def item(subject: str, state: str = "unread", opened: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"source_id": subject, "state": state, "created_at": stamp(opened), **more}


async def swept(stub: GithubStub, *items: dict[str, Any], **how: Any) -> list[tuple[str, str]]:
    """Returns type and subject of the events of one sweep by a new process. Checks that attn accepts each event."""
    async with connected(stub, KnownItems(*items), **how) as peer:
        events = list(await peer.sweep())
    for event in events:
        topic = "run-failures" if event["type"].startswith("run.") else "waitpoints"
        normalise(topic, json.dumps({**event, "workspaceid": "ws"}).encode())
    return sorted((event["type"], event["subject"].removeprefix(f"{REPO}/runs/")) for event in events)


async def test_waiting_and_failed_runs_are_sent_once() -> None:
    stub = GithubStub()
    async with stub.serving():
        stub.run(1)
        stub.run(2, conclusion="success")
        stub.run(3, conclusion="success", attempt=2)
        stub.run(4, status="in_progress", conclusion=None, attempt=3)
        stub.run(5, conclusion="cancelled")
        stub.waiting_run(7, "prod", "eu")
        stub.waiting_run(8, "prod", rule=True)  # waits for the app of another owner
        async with connected(stub) as peer:
            events = await peer.sweep()
            assert sorted((event["type"], event["subject"].removeprefix(f"{REPO}/runs/")) for event in events) == [
                ("run.failed", "1"), ("run.recovered", "3"), ("run.retried", "4"),
                ("waitpoint.created", "7/environments/eu"), ("waitpoint.created", "7/environments/prod")]
            assert await peer.sweep() == []
        assert stub.problems == []


def hook_of(stub: GithubStub, number: int, name: str) -> dict[str, Any]:
    """Returns the webhook `deployment_review` of a waiting run, as in GitHub's documentation."""
    run = stub.runs[number]
    return {
        "action": "requested", "environment": name, "since": stamp(run.updated), "workflow_run": stub._run(run),
        "workflow_job_run": {"id": stub.job_of(run, name), "name": name, "status": "waiting", "conclusion": None,
                             "created_at": stamp(run.updated - 4), "updated_at": stamp(run.updated),
                             "environment": name},
        "requestor": stub._user(run.actor), "repository": {"full_name": REPO, "default_branch": "main"}}


async def test_a_sweep_and_the_webhook_make_the_same_events() -> None:
    stub = GithubStub()
    async with stub.serving():
        stub.waiting_run(7, "prod")
        stub.run(1)
        async with connected(stub) as peer:
            events = {event["id"]: event for event in await peer.sweep()}
        hooks = [*events_of("deployment_review", hook_of(stub, 7, "prod"), OPTIONS).events,
                 *events_of("workflow_run", {"action": "completed", "workflow_run": stub._run(stub.runs[1]),
                                             "repository": {"full_name": REPO, "default_branch": "main"}},
                            OPTIONS).events]
        assert {event["id"]: event for event in hooks} == events


async def test_the_rule_of_the_own_app_is_recognised() -> None:
    stub = GithubStub()
    async with stub.serving():
        stub.app = (APP_ID, "attn-app", PUBLIC)
        run = stub.waiting_run(7, "prod", rule=True)
        async with connected(stub, app_key=PRIVATE) as peer:
            [event] = await peer.sweep()
        number = stub.job_of(run, "prod") + 5
        [hook] = events_of("deployment_protection_rule", {
            "action": "requested", "environment": "prod", "event": "push", "repository": {"full_name": REPO},
            "deployment_callback_url": "https://evil.example/repos/x/y/actions/runs/7/deployment_protection_rule",
            "deployment": stub._deployments({"environment": "prod", "sha": stub._run(run)["head_sha"]})[0],
        }, OPTIONS).events
        assert event == hook
        assert str(number) in event["id"]


async def test_the_webhook_comes_first() -> None:
    """A sweep ignores a deployment that has just started to wait: its webhook is still on the way."""
    stub = GithubStub()
    async with stub.serving():
        stub.waiting_run(7, "prod", updated=stub.now() - 50)
        assert await swept(stub, grace=60) == []
        assert await swept(stub, grace=40) == [("waitpoint.created", "7/environments/prod")]


async def test_an_item_that_attn_knows_is_not_opened_again() -> None:
    stub = GithubStub()
    async with stub.serving():
        run = stub.waiting_run(7, "prod")
        for state in ("unread", "read", "decided"):
            assert await swept(stub, item(PROD, state)) == []
        assert await swept(stub, item(PROD, "resolved", resolved_at=stamp(run.updated + 1))) == []
        run.attempt, run.started, run.updated = 2, run.updated + 60, run.updated + 65  # its second attempt waits
        assert await swept(stub, item(PROD, "resolved", resolved_at=stamp(run.updated - 30))) == [
            ("run.retried", "7"), ("waitpoint.created", "7/environments/prod")]


@pytest.mark.parametrize(("reviews", "change", "expected"), [
    ([("approved", "bob")], {}, "waitpoint.approved"),
    ([("rejected", "bob")], {}, "waitpoint.rejected"),
    ([], {"status": "completed", "conclusion": "cancelled"}, "waitpoint.cancelled"),
    ([], {"status": "completed", "conclusion": "failure"}, "waitpoint.cancelled"),
])
async def test_an_item_that_nobody_waits_for_is_closed(
    reviews: list[tuple[str, str]], change: dict[str, Any], expected: str,
) -> None:
    """The webhook about the end of the deployment was lost."""
    stub = GithubStub()
    async with stub.serving():
        run = stub.waiting_run(7, "prod")
        for state, login in reviews:
            stub.review(run, "prod", state, "", login)
        run.waits.clear()
        for name, value in change.items():
            setattr(run, name, value)
        opened = run.started + 5
        async with connected(stub, KnownItems(item(PROD, opened=opened))) as peer:
            events = [event for event in await peer.sweep() if event["type"].startswith("waitpoint.")]
            assert [(event["type"], event.get("data", {}).get("by_user_id")) for event in events] == [
                (expected, reviews[0][1] if reviews else None)]
            assert events[0]["time"] >= stamp(opened)
            assert [event for event in await peer.sweep() if event["type"].startswith("waitpoint.")] == []


async def test_items_of_runs_that_are_gone_are_closed() -> None:
    stub = GithubStub()
    async with stub.serving():
        stub.run(1, attempt=2, conclusion="success", started=stub.now() - 10 * 86400, updated=stub.now() - 9 * 86400)
        assert await swept(stub, item(f"{REPO}/runs/1"), item(f"{REPO}/runs/2"), item(PROD),
                           item("other/repo/runs/3"), item("wp_1")) == [
            ("run.cancelled", "2"), ("run.recovered", "1"), ("waitpoint.cancelled", "7/environments/prod")]


async def test_all_pages_are_read() -> None:
    stub = GithubStub()
    async with stub.serving():
        for number in range(1, 251):
            stub.run(number)
        assert len(await swept(stub)) == 250
        assert sum(request.endswith("/actions/runs") for request in stub.requests) == 4  # failed runs: 3


async def test_unchanged_answers_do_not_count_for_the_limit() -> None:
    """GitHub answers all requests of the second sweep with 304."""
    stub = GithubStub()
    async with stub.serving():
        stub.waiting_run(7, "prod")
        statuses: list[int] = []
        real = GithubClient.send

        async def send(self: GithubClient, *args: Any) -> Any:
            answer = await real(self, *args)
            statuses.append(answer.status)
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GithubClient, "send", send)
            async with connected(stub) as peer:
                await peer.sweep()
                first = len(statuses)
                await peer.sweep()
        assert set(statuses[:first]) == {200}
        assert set(statuses[first:]) == {304}


async def test_a_repository_that_cannot_be_read_does_not_delay_the_others() -> None:
    stub = GithubStub()
    async with stub.serving():
        stub.run(1)
        stub.failing = lambda request: Fault(answer=(500, {"message": "Server Error"}, {}))
        with pytest.raises(PeerUnavailable):
            await swept(stub)
        stub.failing = lambda request: None
        async with connected(stub, repositories=("acme/gone", REPO)) as peer:
            assert [event["type"] for event in await peer.sweep()] == ["run.failed"]
            with pytest.raises(PeerUnavailable, match="acme/gone: GitHub answers 404: Not Found"):
                await peer.sweep()


async def test_a_run_that_cannot_be_read_is_skipped() -> None:
    """An older server omits fields, or refuses the request for one run."""
    stub = GithubStub()
    async with stub.serving():
        stub.waiting_run(7, "prod")
        stub.waiting_run(8, "prod")
        stub.waiting_run(9, "prod")
        real = stub._list

        def without(query: dict[str, str]) -> dict[str, Any]:
            body = real(query)
            for run in body["workflow_runs"]:
                if run["id"] == 8:
                    run["updated_at"] = "soon"
            return body

        stub._list = without  # type: ignore[method-assign]
        stub.failing = lambda request: Fault(
            answer=(403, {"message": "no"}, {})) if "/runs/9/" in request else None
        assert await swept(stub) == [("waitpoint.created", "7/environments/prod")]


async def test_the_path_of_a_base_url_is_kept() -> None:
    """A GitHub Enterprise Server has the API below `/api/v3`."""
    stub = GithubStub()
    async with stub.serving():
        stub.url += "/api/v3/"
        targets: list[str] = []
        stub.failing = lambda request: targets.append(request) or Fault(answer=(500, {}, {}))
        with pytest.raises(PeerUnavailable):
            await swept(stub)
        assert targets == [f"GET /api/v3/repos/{REPO}"]


async def test_a_redirect_is_not_followed_and_no_other_host_is_called() -> None:
    """The client never sends the token to another server, neither after a redirect nor for a URL in a response."""
    foreign, calls = GithubStub(), []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    elsewhere = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, foreign.serving():
        run = foreign.waiting_run(7, "prod")
        real = foreign._run
        foreign._run = lambda one: real(one) | {  # type: ignore[method-assign]
            name: f"{elsewhere}/{name}" for name in real(one) if name.endswith("_url")}
        async with connected(foreign) as peer:
            await peer.sweep()
            await peer.apply(decided(PROD, "approve", foreign.now()))
        assert len(run.approvals) == 1
        foreign.failing = lambda request: Fault(answer=(307, {"message": "moved"}, {"location": elsewhere}))
        with pytest.raises(PeerUnavailable, match="renamed"):
            await swept(foreign)
    assert calls == []


@pytest.mark.parametrize(("url", "fits"), [
    ("https://api.github.com/", True), ("https://github.example.com/api/v3", True), ("http://127.0.0.1:3000", True),
    ("http://[::1]:3000", True), ("http://github.example.com/api/v3", False), ("https://user:pw@github.com", False),
    ("https://github.com?x=1", False), ("ftp://github.com", False), ("github.com", False), ("", False),
    ("http://localhost.example.com", False),
])
def test_the_base_url_is_https_or_of_this_machine(url: str, fits: bool) -> None:
    if fits:
        assert not checked_base_url(url).endswith("/")
    else:
        with pytest.raises(ValueError, match=r"URL|https"):
            checked_base_url(url)


@pytest.mark.parametrize("subject", [
    "a/b/runs/1/environments/", "a/b/runs/1/x/y", "a/b/runs/x", "a/b/runs/1/", "../b/runs/1", "a/../runs/1", "a/b",
    "a/b/c/runs/1", "a b/c/runs/1", "",
])
def test_other_subjects_are_not_parsed(subject: str) -> None:
    assert target_of(subject) is None


def test_a_subject_is_parsed_and_formatted_again() -> None:
    for subject in ("a/b/runs/1", "a/b/runs/1/environments/x/y", "a.b/c-d/runs/12/rules/ü ?"):
        target = target_of(subject)
        assert target is not None
        assert target.subject == subject
