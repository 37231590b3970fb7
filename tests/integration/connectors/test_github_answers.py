"""Decisions at the stub of GitHub take effect once, although the connector is killed. Refusals have a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.peers.github_connector import APP_ID, PRIVATE, PUBLIC, connected, decided, decision_id
from support.peers.github_stub import REPO, TOKEN, Fault, GithubStub

from streams.connectors.peer import Applied, NotYet, Outcome, PeerUnavailable, Refused

RUN = f"{REPO}/runs/7"
PROD = f"{RUN}/environments/prod"
RULE = f"{RUN}/rules/prod"
REVIEW = "POST /repos/acme/shop/actions/runs/7/pending_deployments"
RERUN = "POST /repos/acme/shop/actions/runs/7/rerun-failed-jobs"


def waiting(stub: GithubStub) -> Any:
    return stub.waiting_run(7, "prod")


def failed(stub: GithubStub) -> Any:
    return stub.run(7)


def asked(stub: GithubStub) -> Any:
    stub.app = (APP_ID, "attn-app", PUBLIC)
    return stub.waiting_run(7, "prod", rule=True)


def retry(stub: GithubStub) -> dict[str, Any]:
    return decided(RUN, "retry", stub.now(), kind="failed_run", question={"id": f"{RUN}/1", "digest": ""})


KINDS: dict[str, tuple[Callable[[GithubStub], Any], Callable[[GithubStub], dict[str, Any]], Callable[[Any], Any]]] = {
    "approve": (waiting, lambda stub: decided(PROD, "approve", stub.now()),
                lambda run: [(one["state"], one["comment"]) for one in run.approvals]
                == [("approved", f"Approved by Ann: looks good (attn decision {decision_id(1)})")]),
    "reject": (waiting, lambda stub: decided(PROD, "reject", stub.now()),
               lambda run: [one["state"] for one in run.approvals] == ["rejected"]),
    "retry": (failed, retry, lambda run: run.attempt == 2),
    "rule": (asked, lambda stub: decided(RULE, "approve", stub.now()),
             lambda run: [(name, state) for name, state, _ in run.rules] == [("prod", "approved")]),
}


async def applied(stub: GithubStub, decision: dict[str, Any], **how: Any) -> Outcome:
    """Returns the outcome of one attempt by a new process. A retryable error is returned as NotYet."""
    how.setdefault("app_key", PRIVATE if stub.app is not None else "")
    async with connected(stub, **how) as peer:
        try:
            return await peer.apply(decision)
        except PeerUnavailable as error:
            return NotYet(str(error))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_decision_takes_effect_and_is_read_back(kind: str) -> None:
    stub = GithubStub()
    async with stub.serving():
        begin, decision, took_effect = KINDS[kind]
        run = begin(stub)
        assert isinstance(await applied(stub, decision(stub)), Applied)
        assert took_effect(run)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_at_each_request_changes_nothing(kind: str, when: str) -> None:
    """The connection closes at the n-th request, before or after it took effect. Then a new process starts."""
    begin, decision, took_effect = KINDS[kind]
    step = 0
    while True:
        stub = GithubStub()
        async with stub.serving():
            run = begin(stub)
            stub.faults = [*[None] * step, Fault(when), Fault(), Fault()]  # aiohttp repeats a GET twice
            first = await applied(stub, decision(stub))
            if len(stub.faults) == 3:
                break  # the attempt has fewer than n requests
            stub.faults.clear()
            assert isinstance(first, NotYet), (step, first)
            assert isinstance(await applied(stub, decision(stub)), Applied), step
            assert took_effect(run), step
            assert isinstance(await applied(stub, decision(stub)), Applied), step  # a third process
            assert took_effect(run), step
        step += 1
    assert step >= 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_error_and_a_lagging_answer_are_tried_again(kind: str) -> None:
    begin, decision, took_effect = KINDS[kind]
    stub = GithubStub()
    async with stub.serving():
        run = begin(stub)
        stub.faults = [Fault(answer=(502, {"message": "Server Error"}, {}))]
        assert isinstance(await applied(stub, decision(stub)), NotYet)
        assert isinstance(await applied(stub, decision(stub)), Applied)
        assert took_effect(run)


async def test_a_user_at_github_decided_before_the_connector() -> None:
    stub = GithubStub()
    async with stub.serving():
        run = waiting(stub)
        stub.review(run, "prod", "approved", "go", "bob")
        assert isinstance(await applied(stub, decided(PROD, "approve", stub.now())), Applied)
        refused = await applied(stub, decided(PROD, "reject", stub.now()))
        assert refused == Refused("GitHub no longer waits for a review of prod: the run is in_progress; "
                                  "at GitHub it was approved by bob")
        assert len(run.approvals) == 1
        run.status, run.conclusion = "completed", "cancelled"
        cancelled = await applied(stub, decided(PROD, "approve", stub.now()))
        assert isinstance(cancelled, Refused)
        assert "the run has ended: cancelled" in cancelled.reason


async def test_a_user_at_github_decides_between_read_and_write_of_the_connector() -> None:
    stub = GithubStub()
    async with stub.serving():
        run = waiting(stub)

        def race(request: str) -> Fault | None:
            if request == REVIEW and not run.approvals:
                stub.review(run, "prod", "rejected", "no", "bob")
            return None

        stub.failing = race
        refused = await applied(stub, decided(PROD, "approve", stub.now()))
        assert isinstance(refused, Refused)
        assert "rejected by bob" in refused.reason
        assert [one["state"] for one in run.approvals] == ["rejected"]


async def test_a_decision_never_reaches_a_later_attempt() -> None:
    """The run was started again after the decision, so its deployment has another id."""
    for subject, rule in ((PROD, False), (RULE, True)):
        stub = GithubStub()
        async with stub.serving():
            run = asked(stub) if rule else waiting(stub)
            at = stub.now() - 60
            run.attempt, run.started = 2, stub.now() - 30
            refused = await applied(stub, decided(subject, "approve", at))
            assert isinstance(refused, Refused)
            assert "attempt 2" in refused.reason
            assert (run.approvals, run.rules) == ([], [])


async def test_a_sent_review_is_recognised_after_the_run_started_again() -> None:
    """The connector was killed after its review. Now a later attempt of the run waits; the decision is not for it."""
    stub = GithubStub()
    async with stub.serving():
        run = waiting(stub)
        decision = decided(PROD, "approve", stub.now() - 60)
        assert isinstance(await applied(stub, decision), Applied)
        run.attempt, run.started, run.status = 2, stub.now() - 30, "waiting"
        run.waits["prod"] = {"reviewers": ["deploy-bot"], "apps": []}
        assert isinstance(await applied(stub, decision), Applied)
        assert len(run.approvals) == 1
        del run.waits["prod"]
        other = await applied(stub, decided(PROD, "approve", stub.now(), 2))
        assert isinstance(other, Refused)  # the review of the first decision is not that of the second


async def test_a_run_that_runs_again_is_not_started_twice() -> None:
    stub = GithubStub()
    async with stub.serving():
        run = failed(stub)
        stub.restart(run)
        assert isinstance(await applied(stub, retry(stub)), Applied)
        assert RERUN not in stub.requests
        run.status, run.conclusion, run.attempt = "completed", "success", 1
        refused = await applied(stub, retry(stub))
        assert refused == Refused("the run has succeeded in the meantime")
        run.status, run.conclusion = "in_progress", None
        assert isinstance(await applied(stub, retry(stub)), NotYet)
        ignored = await applied(stub, decided(RUN, "ignore", stub.now()))
        assert isinstance(ignored, Applied)
        assert RERUN not in stub.requests


@pytest.mark.parametrize(("change", "reason"), [
    ({"reviewers": ["bob", "eve"]}, "none of the reviewers (bob, eve)"),
    ({"reviewers": []}, "GitHub asks no reviewer for this deployment"),
    ({"self": True}, "self-review is prevented"),
])
async def test_a_token_that_may_not_review_is_a_refusal(change: dict[str, Any], reason: str) -> None:
    stub = GithubStub()
    async with stub.serving():
        run = waiting(stub)
        if "self" in change:
            stub.prevent_self_review, run.actor = True, stub.user
        else:
            run.waits["prod"] |= change
        refused = await applied(stub, decided(PROD, "approve", stub.now()))
        assert isinstance(refused, Refused)
        assert reason in refused.reason
        assert REVIEW not in stub.requests


@pytest.mark.parametrize(("status", "message"), [
    (403, "Must have admin rights to Repository."), (404, "Not Found"),
    (422, "Validation Failed"), (410, "Gone"), (301, "Moved Permanently"),
])
@pytest.mark.parametrize("kind", ["approve", "retry", "rule"])
async def test_a_refusal_of_github_is_reported_with_its_reason(kind: str, status: int, message: str) -> None:
    begin, decision, took_effect = KINDS[kind]
    stub = GithubStub()
    async with stub.serving():
        run = begin(stub)
        stub.failing = lambda request: Fault(answer=(
            status, {"message": message, "errors": [{"message": "why"}]}, {"location": "http://127.0.0.1:1/"}),
        ) if request.startswith("POST /repos/") else None
        refused = await applied(stub, decision(stub))
        assert isinstance(refused, Refused)
        assert str(status) in refused.reason
        assert ("renamed" if status == 301 else f"{message}; why") in refused.reason
        assert not took_effect(run)


@pytest.mark.parametrize(("headers", "body", "low", "high"), [
    ({"retry-after": "7"}, {"message": "slow down"}, 6, 7),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "RESET"}, {"message": "API rate limit exceeded"}, 85, 90),
    ({}, {"message": "You have exceeded a secondary rate limit."}, 59, 60),
])
@pytest.mark.parametrize("status", [403, 429])
async def test_rate_limits_are_kept(
    status: int, headers: dict[str, str], body: dict[str, str], low: int, high: int,
) -> None:
    """The connector sends no request until the time that GitHub gives."""
    stub = GithubStub()
    async with stub.serving():
        run = waiting(stub)
        named = {name: str(int(stub.now()) + 90) if value == "RESET" else value for name, value in headers.items()}
        stub.faults = [None, None, None, Fault(answer=(status, body, named))]  # at the review
        async with connected(stub) as peer:
            outcome = await peer.apply(decided(PROD, "approve", stub.now()))
            assert isinstance(outcome, NotYet)
            assert outcome.after is not None
            assert low <= outcome.after <= high
            sent = len(stub.requests)
            again = await peer.apply(decided(PROD, "approve", stub.now()))
            assert isinstance(again, NotYet)
            with pytest.raises(PeerUnavailable):
                await peer.sweep()
            assert len(stub.requests) == sent
        assert run.approvals == []


async def test_wrong_credentials_wait_for_their_operator() -> None:
    stub = GithubStub()
    async with stub.serving():
        waiting(stub)
        outcome = await applied(stub, decided(PROD, "approve", stub.now()), token="ghp_wrong")
        assert isinstance(outcome, NotYet)
        assert "refuses the credentials: Bad credentials" in outcome.reason
        assert TOKEN not in outcome.reason
        assert "ghp_wrong" not in outcome.reason


async def test_an_app_renews_its_token() -> None:
    now = [1_800_000_000.0]
    stub = GithubStub(lambda: now[0])
    async with stub.serving():
        stub.app = (APP_ID, "attn-app", PUBLIC)
        import streams.connectors.github.auth as auth
        real, auth.time = auth.time, type("Clock", (), {"time": staticmethod(lambda: now[0])})  # type: ignore[assignment]
        try:
            async with connected(stub, app_key=PRIVATE) as peer:
                for round_ in range(3):
                    run = stub.waiting_run(7, "prod", rule=True)
                    assert isinstance(await peer.apply(decided(RULE, "approve", now[0], round_)), Applied)
                    assert len(run.rules) == 1
                    now[0] += 2000
                stub.tokens.clear()  # as if GitHub had revoked them: the app creates one new token
                stub.waiting_run(7, "prod", rule=True)
                assert isinstance(await peer.apply(decided(RULE, "approve", now[0], 9)), Applied)
        finally:
            auth.time = real
        made = [request for request in stub.requests if request.startswith("POST /app/")]
        assert len(made) == 3  # 0 s, 4000 s, and after the revocation


async def test_a_decision_of_another_connector_is_refused_without_a_request() -> None:
    stub = GithubStub()
    async with stub.serving():
        waiting(stub)
        for subject in ("acme/other/runs/7/environments/prod", "acme/shop/runs/../../x", "wp_1",
                        "../shop/runs/7", "acme/shop/runs/7/environments/"):
            assert isinstance(await applied(stub, decided(subject, "approve", stub.now())), Refused)
        assert stub.requests == []
        assert isinstance(await applied(stub, decided(RULE, "approve", stub.now())), Refused)  # no app
        assert stub.requests == []


async def test_an_environment_may_have_any_name() -> None:
    for name in ("pre/prod", "a b", "ü ?#%2F&..", "..", "'\"<x>"):
        stub = GithubStub()
        async with stub.serving():
            stub.app = (APP_ID, "attn-app", PUBLIC)
            run = stub.waiting_run(7, name)
            run.waits[name]["apps"] = ["attn-app", "another"]
            rule = decided(f"{RUN}/rules/{name}", "approve", stub.now(), 2)
            assert isinstance(await applied(stub, rule), Applied)
            assert [one[:2] for one in run.rules] == [(name, "approved")]
            run.waits[name]["apps"] = []
            review = decided(f"{RUN}/environments/{name}", "approve", stub.now())
            assert isinstance(await applied(stub, review), Applied)
