"""A stub of GitHub's REST API on a real socket, because tests cannot run GitHub.

Response bodies are the examples of GitHub's published OpenAPI description with the values of the test. The stub checks
request and response bodies by the schemas there. It follows GitHub's published rules: permission to review, repeated
reviews, rate limits, ETags, pages, and installation tokens of an app. `faults` make single requests fail, before or
after they took effect.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import jwt
from aiohttp import web

from schemas.scalars import SECOND, format_timestamp

__all__ = ["Fault", "GithubStub", "Run"]

API: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "connect" / "github_api.json").read_text())
OPERATIONS: dict[str, Any] = API["operations"]
TOKEN = "ghp_a-token-of-the-stub"
REPO = "acme/shop"
_ROUTES = [(name, re.compile(name.split(" ")[0] + " " + re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(
    name.split(" ")[1])))) for name in OPERATIONS]
_VALIDATORS: dict[tuple[str, str], Any] = {}


def _check(operation: str, part: str, value: Any) -> None:
    """Fails the test if a body does not fit GitHub's schema."""
    schema = OPERATIONS[operation].get(part)
    if schema is None:
        assert value is None, (operation, part)
        return
    if (operation, part) not in _VALIDATORS:
        _VALIDATORS[operation, part] = jsonschema.Draft202012Validator(schema | {"$defs": API["$defs"]})
    _VALIDATORS[operation, part].validate(value)


def stamp(seconds: float) -> str:
    """Returns a time as GitHub writes it: whole seconds."""
    return format_timestamp(int(seconds) * SECOND)


@dataclass
class Fault:
    """The fault of one request. `when`: before or after it takes effect. `answer` None: the connection is closed."""

    when: str = "before"
    answer: tuple[int, dict[str, Any], dict[str, str]] | None = None


@dataclass
class Run:
    """A workflow run. `waits`: environment -> the reviewers and the slugs of apps that must approve it."""

    id: int
    attempt: int = 1
    status: str = "completed"
    conclusion: str | None = "failure"
    started: float = 0.0
    updated: float = 0.0
    actor: str = "jonas"
    waits: dict[str, dict[str, Any]] = field(default_factory=dict)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    rules: list[tuple[str, str, str]] = field(default_factory=list)  # environment, state, comment


class GithubStub:
    """The server. `user`: owner of the token. `app`: slug and public key of an app, or None. `now` returns seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.user = "deploy-bot"
        self.app: tuple[str, str, str] | None = None  # client id, slug, public key
        self.tokens: dict[str, float] = {}  # installation token -> expiry
        self.runs: dict[int, Run] = {}
        self.environments: dict[str, int] = {}
        self.prevent_self_review = False
        self.requests: list[str] = []
        self.faults: list[Fault | None] = []  # of the next requests, in order
        self.failing: Callable[[str], Fault | None] = lambda request: None
        self.problems: list[str] = []
        self.broken = 0  # requests that a fault hit
        self.url = ""

    # --- actions at GitHub ---

    def run(self, number: int, **fields: Any) -> Run:
        began = self.now() - 120
        run = Run(number, **({"started": began, "updated": began + 5} | fields))
        self.runs[number] = run
        return run

    def waiting_run(self, number: int, *environments: str, rule: bool = False, reviewers: tuple[str, ...] = (
            "deploy-bot",), **fields: Any) -> Run:
        run = self.run(number, **({"status": "waiting", "conclusion": None} | fields))
        for name in environments:
            self.environments.setdefault(name, 161_000_000 + len(self.environments))
            run.waits[name] = {"reviewers": [] if rule else list(reviewers), "apps": ["attn-app"] if rule else []}
        return run

    def restart(self, run: Run, at: float | None = None) -> None:
        """Starts the next attempt of a run."""
        run.attempt += 1
        run.status, run.conclusion = "queued", None
        run.started = run.updated = self.now() if at is None else at

    def _pass(self, run: Run, name: str, state: str) -> None:
        del run.waits[name]
        run.updated = self.now()
        if state == "rejected":
            run.waits.clear()
            run.status, run.conclusion = "completed", "failure"
        elif not run.waits:
            run.status = "in_progress"

    def review(self, run: Run, name: str, state: str, comment: str, user: str) -> None:
        """Adds the review of a deployment by a user, or by the user of the token."""
        review = self._example("GET /repos/{owner}/{repo}/actions/runs/{run_id}/approvals")[0]
        review |= {"state": state, "comment": comment, "user": self._user(user)}
        review["environments"] = [review["environments"][0] | {"id": self.environments[name], "name": name}]
        run.approvals.append(review)
        self._pass(run, name, state)

    # --- the API ---

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self.url
        finally:
            await runner.cleanup()
            assert self.problems == [], self.problems

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        name = f"{request.method} {request.rel_url.raw_path}"
        fault = self.faults.pop(0) if self.faults else self.failing(name)
        if fault is not None and fault.when == "before":
            return self._broken(request, fault)
        self.requests.append(name)
        status, body = await self._answer(name, request)
        if fault is not None:
            return self._broken(request, fault)
        headers = {"date": formatdate(self.now(), usegmt=True), "x-ratelimit-remaining": "4999"}
        content = b"" if status == 204 else json.dumps(body).encode()
        if request.method == "GET" and status == 200:
            headers["etag"] = f'W/"{hashlib.sha256(content).hexdigest()}"'
            if request.headers.get("if-none-match") == headers["etag"]:
                return web.Response(status=304, headers=headers)
        return web.Response(status=status, body=content, headers=headers, content_type="application/json")

    def _broken(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        self.broken += 1
        if fault.answer is None:
            assert request.transport is not None
            request.transport.close()
            raise asyncio.CancelledError
        status, body, headers = fault.answer
        return web.json_response(body, status=status, headers={"date": formatdate(self.now(), usegmt=True)} | headers)

    async def _answer(self, name: str, request: web.Request) -> tuple[int, Any]:
        for operation, pattern in _ROUTES:
            if match := pattern.fullmatch(name):
                text = await request.read()
                try:
                    body = json.loads(text) if text else None
                    if body is not None or "request" not in OPERATIONS[operation]:
                        _check(operation, "request", body)
                    params = {key: unquote(value) for key, value in match.groupdict().items()}
                    answer = self._do(operation, params, dict(request.query), body, request)
                    if answer[0] == OPERATIONS[operation]["status"]:
                        _check(operation, "response", answer[1])
                    return answer
                except (jsonschema.ValidationError, AssertionError) as error:
                    self.problems.append(f"{name}: {str(error)[:600]}")
                    return 500, {"message": "the stub found a fault of the test"}
        return 404, {"message": "Not Found"}

    def _do(self, operation: str, at: dict[str, str], query: dict[str, str], body: Any,
            request: web.Request) -> tuple[int, Any]:
        status: int = OPERATIONS[operation]["status"]
        authorization = request.headers.get("authorization", "").removeprefix("Bearer ")
        if operation.startswith("POST /app/") or operation.endswith("/installation"):
            return self._as_app(operation, authorization)
        if authorization != TOKEN and self.tokens.get(authorization, 0) <= self.now():
            return 401, {"message": "Bad credentials"}
        if f"{at['owner']}/{at['repo']}" != REPO:
            return 404, {"message": "Not Found"}
        route = operation.split("/repos/{owner}/{repo}", 1)[1]
        if route == "":
            about = self._example(operation) | {"full_name": REPO, "default_branch": "main"}
            # GitHub's example lacks a member that its schema requires, here and in `source`.
            return status, {name: value for name, value in about.items() if name != "source"} | {"language": None}
        if route == "/actions/runs":
            return status, self._list(query)
        if route == "/deployments":
            return status, self._deployments(query)
        if route.startswith("/environments"):
            return status, self._rules(at["environment_name"])
        run = self.runs.get(int(at["run_id"]))
        if run is None:
            return 404, {"message": "Not Found"}
        match route.removeprefix("/actions/runs/{run_id}"), request.method:
            case "", _:
                return status, self._run(run)
            case "/jobs", _:
                return status, self._jobs(operation, run)
            case "/approvals", _:
                return status, copy.deepcopy(run.approvals)
            case "/pending_deployments", "GET":
                return status, [self._pending(run, name) for name in run.waits]
            case "/pending_deployments", _:
                return self._post_review(run, body)
            case "/deployment_protection_rule", _:
                return self._post_rule(run, body, authorization)
            case _:
                return self._rerun(run)

    def _post_review(self, run: Run, body: dict[str, Any]) -> tuple[int, Any]:
        names = [name for name in run.waits if self.environments[name] in body["environment_ids"]]
        if not names or len(names) != len(set(body["environment_ids"])):
            return 422, {"message": "Validation Failed",
                         "errors": ["No pending deployment requests to approve or reject"]}
        if not all(self._may_review(run, name) for name in names):
            return 422, {"message": "Validation Failed", "errors": ["User is not a required reviewer"]}
        for name in names:
            self.review(run, name, body["state"], body["comment"], self.user)
        return 200, self._example(
            "POST /repos/{owner}/{repo}/actions/runs/{run_id}/pending_deployments")

    def _post_rule(self, run: Run, body: dict[str, Any], token: str) -> tuple[int, Any]:
        if token == TOKEN or self.app is None:
            return 403, {"message": "Resource not accessible by personal access token"}
        name, slug = body["environment_name"], self.app[1]
        if name not in run.waits or slug not in run.waits[name]["apps"]:
            return 422, {"message": "Validation Failed", "errors": ["No pending custom deployment protection rule"]}
        run.rules.append((name, body["state"], body.get("comment", "")))
        run.waits[name]["apps"].remove(slug)
        if body["state"] == "rejected" or not (run.waits[name]["apps"] or run.waits[name]["reviewers"]):
            self._pass(run, name, body["state"])
        return 204, None

    def _rerun(self, run: Run) -> tuple[int, Any]:
        if run.status != "completed":
            return 403, {"message": "The workflow run containing this job is already running"}
        if run.conclusion == "success":
            return 403, {"message": "This workflow run cannot be retried, it has no failed jobs"}
        self.restart(run)
        return 201, {}

    def _as_app(self, operation: str, token: str) -> tuple[int, Any]:
        if self.app is None:
            return 401, {"message": "A JSON web token could not be decoded"}
        try:
            claims = jwt.decode(token, self.app[2], ["RS256"], options={"verify_exp": False, "verify_iat": False})
        except jwt.PyJWTError:
            return 401, {"message": "A JSON web token could not be decoded"}
        if claims["iss"] != self.app[0] or not claims["iat"] < self.now() < claims["exp"] <= self.now() + 600:
            return 401, {"message": "'Expiration time' claim ('exp') is too far in the future"}
        if operation.startswith("GET"):
            return 200, self._example(operation)
        secret = f"ghs_{len(self.tokens)}"
        self.tokens[secret] = self.now() + 3600
        return 201, {"token": secret, "expires_at": stamp(self.now() + 3600), "permissions": {"deployments": "write"}}

    def _may_review(self, run: Run, name: str) -> bool:
        own = self.prevent_self_review and run.actor == self.user
        return self.user in run.waits[name]["reviewers"] and not own

    # --- response bodies ---

    def _example(self, operation: str) -> Any:
        return copy.deepcopy(OPERATIONS[operation]["example"])

    def _user(self, login: str) -> dict[str, Any]:
        review = self._example("GET /repos/{owner}/{repo}/actions/runs/{run_id}/approvals")[0]
        user: dict[str, Any] = review["user"]
        return user | {"login": login}

    def _run(self, run: Run) -> dict[str, Any]:
        body: dict[str, Any] = self._example("GET /repos/{owner}/{repo}/actions/runs/{run_id}")
        return body | {
            "id": run.id, "run_attempt": run.attempt, "status": run.status, "conclusion": run.conclusion,
            "created_at": stamp(min(run.started, run.updated)), "updated_at": stamp(run.updated),
            "run_started_at": stamp(run.started), "actor": self._user(run.actor),
            "triggering_actor": self._user(run.actor), "head_branch": "main",
            "html_url": f"https://github.com/{REPO}/actions/runs/{run.id}"}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        runs = [run for run in self.runs.values() if query.get("status") in (None, run.status)]
        if "created" in query:
            since = query["created"].removeprefix(">=")
            runs = [run for run in runs if stamp(min(run.started, run.updated)) >= since]
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        some = sorted(runs, key=lambda run: -run.id)[(page - 1) * size:page * size]
        return {"total_count": len(runs), "workflow_runs": [self._run(run) for run in some]}

    def _jobs(self, operation: str, run: Run) -> dict[str, Any]:
        job = self._example(operation)["jobs"][0] | {
            "run_id": run.id, "status": "waiting", "conclusion": None, "completed_at": None,
            "created_at": stamp(run.updated - 4)}
        jobs = [job | {"id": self.job_of(run, name), "name": name} for name in run.waits]
        return {"total_count": len(jobs), "jobs": jobs}

    def job_of(self, run: Run, name: str) -> int:
        return run.id * 1000 + run.attempt * 10 + list(self.environments).index(name)

    def _pending(self, run: Run, name: str) -> dict[str, Any]:
        [entry] = self._example("GET /repos/{owner}/{repo}/actions/runs/{run_id}/pending_deployments")
        reviewers = run.waits[name]["reviewers"]
        made: dict[str, Any] = entry | {
            "environment": entry["environment"] | {"id": self.environments[name], "name": name}, "wait_timer": 0,
            "wait_timer_started_at": None, "current_user_can_approve": self._may_review(run, name),
            "reviewers": [{"type": "User", "reviewer": self._user(login)} for login in reviewers]}
        return made

    def _rules(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = self._example(
            "GET /repos/{owner}/{repo}/environments/{environment_name}/deployment_protection_rules")
        [rule, *_] = body["custom_deployment_protection_rules"]
        slugs = {slug for run in self.runs.values() for slug in run.waits.get(name, {}).get("apps", [])}
        return {"total_count": len(slugs), "custom_deployment_protection_rules": [
            rule | {"app": rule["app"] | {"slug": slug}} for slug in sorted(slugs)]}

    def _deployments(self, query: dict[str, str]) -> list[dict[str, Any]]:
        [entry] = self._example("GET /repos/{owner}/{repo}/deployments")
        name = query["environment"]
        return [entry | {"id": self.job_of(run, name) + 5, "environment": name, "created_at": stamp(run.updated),
                         "updated_at": stamp(run.updated), "sha": query["sha"], "creator": self._user(run.actor)}
                for run in self.runs.values() if name in run.waits]
