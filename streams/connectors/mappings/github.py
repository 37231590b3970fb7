"""Maps GitHub's webhooks `workflow_run`, `deployment_review` and `deployment_protection_rule` to events. Pure.

`events_of(event, payload, options)` maps a delivery; `event` is the header `X-GitHub-Event`. A connector that reads
runs and pending deployments from GitHub's API uses `run_events`, `review_requested` and `rule_requested`, so its events
equal those of the hook.

    workflow_run completed, failed               run.failed             item failed_run, one per run
    ... of a later attempt, with success         run.recovered
    workflow_run requested, of a later attempt   run.retried
    deployment_review requested                  waitpoint.created      item waitpoint, one per run and environment
    deployment_review approved, rejected         waitpoint.approved, .rejected
    deployment_protection_rule requested         waitpoint.created      one per run and environment, beside the review

GitHub's times are whole seconds. The n-th attempt of a run adds a few microseconds to them, in the order of its steps,
because attn takes an item as closed if it was opened and closed at the same time.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.scalars import DAY, format_timestamp
from streams.connectors.mappings.mapped import (
    MAX_BODY,
    MAX_TITLE,
    CloudEventDict,
    Mapped,
    MappingError,
    at_path,
    clip,
    cloud_event,
    code_span,
    get_time,
    link_of,
    need_list,
    need_object,
    need_text,
    need_time,
    shown,
    text_of,
)

__all__ = [
    "EVENTS", "GithubOptions", "environment_subject", "events_of", "review_requested", "rule_requested", "run_events",
    "run_subject",
]

EVENTS = ("workflow_run", "deployment_review", "deployment_protection_rule")

WAIT = 30 * DAY  # after which GitHub fails a job that nobody approved
_FAILED = frozenset({"failure", "timed_out", "startup_failure"})
_MAX_ATTEMPTS = 100_000
_STARTED, _ENDED = 1, 2  # steps of an attempt, in microseconds
_MAX_ENVIRONMENTS = 100
_RUN = re.compile(r"/actions/runs/([0-9]{1,18})/deployment_protection_rule/?$")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")

Priority = Literal["low", "normal", "high", "urgent"]


class GithubOptions(BaseModel):
    """Options of a hook. A connector must use those of the hook, or both make different events."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        "/github", description="`source` of the events")
    branches: list[str] = Field([], description="branches whose failed runs open items; default: every branch")
    repositories: list[str] = Field([], description="repositories (owner/name) that are mapped; default: every one")
    ask_runs: bool = Field(False, description="whether a failed run asks: retry or ignore")
    run_priority: Priority = Field("normal", description="priority of failed runs")
    default_branch_priority: Priority = Field("high", description="... of the default branch")
    deployment_priority: Priority = Field("high", description="priority of deployments that wait for a review")
    cluster_is_environment: bool = Field(True, description="whether the environment is the `cluster` of its waitpoints")
    target_role: Literal["OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER"] | None = Field(
        None, description="role that sees the items; default: the workspace")


def events_of(event: str, payload: Any, options: GithubOptions = GithubOptions()) -> Mapped:  # noqa: B008 - frozen
    """Returns the events of a delivery; none, with the reason, if attn does not map it.

    Raises MappingError with the field that is missing or wrong.
    """
    if event not in EVENTS:
        return Mapped(ignored=f"event {clip(event, 80)!r} is not mapped")
    body = need_object(payload, "")
    repository = _repository(body.get("repository"))
    if options.repositories and repository not in options.repositories:
        return Mapped(ignored=f"repository {repository} is not among those of the hook")
    action = need_text(body.get("action"), "action", 80)
    if event == "workflow_run":
        return run_events(body.get("workflow_run"), repository, options,
                          text_of(at_path(body, "repository", "default_branch")), action)
    if event == "deployment_protection_rule":
        if action != "requested":
            return Mapped(ignored=f"action {action!r} of {event} is not mapped")
        return Mapped([_rule_of(body, repository, options)])
    if action == "requested":
        return Mapped([_review_of(body, repository, options)])
    if action in ("approved", "rejected"):
        return Mapped(_reviewed(body, repository, action, options))
    return Mapped(ignored=f"action {action!r} of {event} is not mapped")


def run_subject(repository: str, run: str) -> str:
    """Returns the subject of a run: `OWNER/NAME/runs/ID`."""
    return f"{repository}/runs/{run}"


def environment_subject(repository: str, run: str, environment: str, rule: bool = False) -> str:
    """Returns the subject of a deployment that waits: for reviewers, or for a protection rule of an app."""
    return f"{run_subject(repository, run)}/{'rules' if rule else 'environments'}/{environment}"


def run_events(
    run: Any, repository: str, options: GithubOptions = GithubOptions(), default_branch: str = "",  # noqa: B008
    action: str | None = None,
) -> Mapped:
    """Returns the events of a workflow run, as a webhook or `GET /repos/OWNER/NAME/actions/runs` has it.

    `action`: of the webhook; default: `completed` if that is the status of the run, else `in_progress`.
    """
    run = need_object(run, "workflow_run")
    number, attempt = _run_of(run)
    action = action or ("completed" if run.get("status") == "completed" else "in_progress")
    conclusion = run.get("conclusion") if action == "completed" else None
    subject = run_subject(repository, number)
    event_id = f"{subject}/{attempt}"
    if action in ("requested", "in_progress") and attempt > 1:
        started = need_time(run.get("run_started_at"), "workflow_run.run_started_at")
        return Mapped([cloud_event("run.retried", subject, _step(started, attempt, _STARTED), source=options.source,
                                   id=f"{event_id}.retried", data={"by_user_id": _login(run, "triggering_actor")})])
    if action not in ("completed", "requested", "in_progress"):
        return Mapped(ignored=f"action {action!r} of workflow_run is not mapped")
    if conclusion == "success" and attempt > 1:
        return Mapped([cloud_event("run.recovered", subject, _completed(run, attempt), source=options.source,
                                   id=f"{event_id}.recovered")])
    if not isinstance(conclusion, str) or conclusion not in _FAILED:
        return Mapped(ignored=f"a workflow run with the conclusion {shown(conclusion)} opens and closes nothing")
    branch = text_of(run.get("head_branch"), 250)
    if options.branches and branch not in options.branches:
        return Mapped(ignored=f"branch {branch!r} is not among those of the hook")
    priority = options.default_branch_priority if branch and branch == default_branch else options.run_priority
    return Mapped([cloud_event(
        "run.failed", subject, _completed(run, attempt), id=f"{event_id}.failed", source=options.source,
        data=_failed_data(run, repository, branch, conclusion, event_id, options) | {"priority": priority})])


def review_requested(
    run: Any, repository: str, environment: str, requested: int, options: GithubOptions = GithubOptions(),  # noqa: B008
    name: str = "1", requestor: str | None = None,
) -> CloudEventDict:
    """Returns the event of a deployment that waits for its reviewers.

    `run`: the workflow run. `requested`: microseconds. `name`: what tells the requests of one environment and attempt
    apart: the id of the waiting job in a webhook. `requestor`: who started the deployment.
    """
    run = need_object(run, "workflow_run")
    number, attempt = _run_of(run)
    subject = environment_subject(repository, number, environment)
    return _waitpoint(subject, f"{subject}/{attempt}/{name}.requested", requested, run, repository, environment,
                      options, f"Deploy {_workflow(run)} to {environment}", requestor)


def rule_requested(
    deployment: Any, repository: str, run: str, environment: str, requested: int,
    options: GithubOptions = GithubOptions(), requestor: str | None = None,  # noqa: B008
    website: str = "https://github.com",
) -> CloudEventDict:
    """Returns the event of a deployment that waits for the protection rule of a GitHub app.

    `deployment`: the object of the webhook, with `id`, `ref` and `sha`. `run`: id of the workflow run. `website`: of
    GitHub, for the link.
    """
    deployment = need_object(deployment, "deployment")
    number = need_text(deployment.get("id"), "deployment.id", 20)
    subject = environment_subject(repository, run, environment, rule=True)
    shown_run = {"id": run, "head_branch": deployment.get("ref"), "head_sha": deployment.get("sha"),
                 "html_url": f"{website}/{repository}/actions/runs/{run}",
                 "display_title": deployment.get("description")}
    return _waitpoint(subject, f"{subject}/{number}.requested", requested, shown_run, repository, environment,
                      options, f"Deploy {repository} to {environment}", requestor)


def _rule_of(body: dict[str, Any], repository: str, options: GithubOptions) -> CloudEventDict:
    environment = need_text(body.get("environment"), "environment", 255)
    callback = need_text(body.get("deployment_callback_url"), "deployment_callback_url", 2000)
    if (match := _RUN.search(callback)) is None:
        raise MappingError("deployment_callback_url", f"names no run of a workflow ({shown(callback)})")
    deployment = need_object(body.get("deployment"), "deployment")
    requested = need_time(deployment.get("created_at"), "deployment.created_at")
    requestor = text_of(at_path(deployment, "creator", "login"), 100) or text_of(at_path(body, "sender", "login"), 100)
    page = text_of(at_path(body, "repository", "html_url"), 500)
    website = page.removesuffix(f"/{repository}") if page.endswith(f"/{repository}") else "https://github.com"
    return rule_requested(deployment, repository, match[1], environment, requested, options, requestor or None, website)


def _review_of(body: dict[str, Any], repository: str, options: GithubOptions) -> CloudEventDict:
    environment = need_text(body.get("environment"), "environment", 255)
    requested = _newest(body, "since", ("workflow_job_run", "created_at"))
    job = at_path(body, "workflow_job_run", "id")
    return review_requested(
        body.get("workflow_run"), repository, environment, requested, options,
        "1" if job is None else need_text(job, "workflow_job_run.id", 20),
        text_of(at_path(body, "requestor", "login"), 100) or None)


def _reviewed(body: dict[str, Any], repository: str, action: str, options: GithubOptions) -> list[CloudEventDict]:
    """Returns the events that close the waitpoints of a review: one per environment that it names."""
    run = need_object(body.get("workflow_run"), "workflow_run")
    number, attempt = _run_of(run)
    jobs = [*need_list(body.get("workflow_job_runs") or [], "workflow_job_runs"), body.get("workflow_job_run")]
    named = dict.fromkeys(text for job in jobs if (text := text_of(at_path(job, "environment"), 255)).strip())
    if not named and body.get("environment") is not None:
        named = {need_text(body["environment"], "environment", 255): None}
    if not named:
        raise MappingError("workflow_job_runs", "names no environment")
    if len(named) > _MAX_ENVIRONMENTS:
        raise MappingError("workflow_job_runs", f"{len(named)} environments; at most {_MAX_ENVIRONMENTS} are accepted")
    times = [get_time(at_path(job, "updated_at"), "workflow_job_runs.updated_at") or 0 for job in jobs]
    reviewed = max(_newest(body, "since", ("workflow_run", "updated_at")), *times)
    by = text_of(at_path(body, "approver", "login"), 100) or text_of(at_path(body, "sender", "login"), 100)
    comment = text_of(body.get("comment"), 2000)
    return [cloud_event(
        f"waitpoint.{action}", (subject := environment_subject(repository, number, environment)), reviewed,
        id=f"{subject}/{attempt}.{action}.{format_timestamp(reviewed)}", source=options.source,
        data={"by_user_id": by or None, "payload": {"comment": comment} if comment else None}) for environment in named]


def _waitpoint(
    subject: str, event_id: str, requested: int, run: dict[str, Any], repository: str, environment: str,
    options: GithubOptions, title: str, requestor: str | None,
) -> CloudEventDict:
    branch, sha = text_of(run.get("head_branch"), 250), text_of(run.get("head_sha"), 64)
    lines = [_shown_title(run), f"Repository {code_span(repository)}",
             f"Branch {code_span(branch)}" if branch else "", f"Commit {code_span(sha)}" if sha else ""]
    return cloud_event("waitpoint.created", subject, requested, id=event_id, source=options.source, data={
        "title": clip(title, MAX_TITLE), "body_md": clip("\n\n".join(filter(None, lines)), MAX_BODY),
        "priority": options.deployment_priority, "target_role": options.target_role,
        "cluster": environment if options.cluster_is_environment else None, "stack": repository,
        "sender": {"type": "user", "id": requestor, "name": requestor} if requestor else None,
        "action_url": link_of(run.get("html_url")),
        "ask": {
            "options": [
                {"id": "approve", "does": "approve", "title": "Approve", "style": "primary", "comment": "optional"},
                {"id": "reject", "does": "reject", "title": "Reject", "style": "danger", "comment": "optional"}],
            "expires_at": format_timestamp(requested + WAIT),
        },
        "payload": {"repository": repository, "run_id": text_of(run.get("id"), 20), "environment": environment,
                    "branch": branch, "sha": sha},
    })


def _failed_data(
    run: dict[str, Any], repository: str, branch: str, conclusion: str, question: str, options: GithubOptions,
) -> dict[str, Any]:
    workflow, attempt = _workflow(run), _run_of(run)[1]
    actor = _login(run, "triggering_actor") or _login(run, "actor")
    sha = text_of(run.get("head_sha"), 64)
    ending = {"failure": "failed", "timed_out": "timed out", "startup_failure": "could not start"}[conclusion]
    lines = [_shown_title(run), f"Commit {code_span(sha)}" if sha else "",
             f"Attempt {attempt}" if attempt > 1 else ""]
    data: dict[str, Any] = {
        "title": clip(f"{workflow} {ending}" + (f" on {branch}" if branch else "") + f" in {repository}", MAX_TITLE),
        "body_md": clip("\n\n".join(filter(None, lines)), MAX_BODY), "pipeline": f"{repository}: {workflow}",
        "error": conclusion, "stack": repository, "action_url": link_of(run.get("html_url")),
        "target_role": options.target_role,
        "sender": {"type": "user", "id": actor, "name": actor} if actor else None,
        "payload": {"repository": repository, "run_id": text_of(run.get("id"), 20), "run_attempt": attempt,
                    "workflow_id": text_of(run.get("workflow_id"), 20), "branch": branch, "sha": sha,
                    "event": text_of(run.get("event"), 80)},
    }
    if options.ask_runs:
        data["ask"] = {"id": question, "options": [
            {"id": "retry", "does": "retry", "title": "Run the failed jobs again", "style": "primary"},
            {"id": "ignore", "does": "ignore", "title": "Ignore"}]}
    return data


def _repository(value: Any) -> str:
    name = need_text(at_path(need_object(value, "repository"), "full_name"), "repository.full_name", 201)
    if not _REPOSITORY.fullmatch(name):
        raise MappingError("repository.full_name", f"must be OWNER/NAME, not {shown(name)}")
    return name


def _run_of(run: dict[str, Any]) -> tuple[str, int]:
    """Returns id and attempt of a run."""
    number = need_text(run.get("id"), "workflow_run.id", 20)
    if not number.isdecimal():
        raise MappingError("workflow_run.id", f"must be a number, not {shown(number)}")
    attempt = run.get("run_attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not 1 <= attempt <= _MAX_ATTEMPTS:
        raise MappingError("workflow_run.run_attempt", f"must be 1 to {_MAX_ATTEMPTS}")
    return number, attempt


def _completed(run: dict[str, Any], attempt: int) -> int:
    """Returns when an attempt ended. `updated_at` may lie before its start: GitHub fills it from another clock."""
    ended = need_time(run.get("updated_at"), "workflow_run.updated_at")
    started = get_time(run.get("run_started_at"), "workflow_run.run_started_at")
    return _step(max(ended, started or 0), attempt, _ENDED)


def _step(time: int, attempt: int, step: int) -> int:
    """Returns a time of whole seconds with the order of the attempts and their steps in its microseconds."""
    return time + attempt * 2 + step - 2


def _newest(body: dict[str, Any], *members: str | tuple[str, ...]) -> int:
    """Returns the newest of several times, of which one is enough. Raises MappingError if none is given."""
    paths = [(member,) if isinstance(member, str) else member for member in members]
    times = [time for path in paths if (time := get_time(at_path(body, *path), ".".join(path))) is not None]
    if not times:
        raise MappingError(".".join(paths[0]), "is missing")
    return max(times)


def _workflow(run: dict[str, Any]) -> str:
    """Returns the name of a workflow, else the name of its file."""
    name = text_of(run.get("name"), 200).strip()
    return name or text_of(run.get("path"), 200).rpartition("/")[2].strip() or "Workflow"


def _shown_title(run: dict[str, Any]) -> str:
    """Returns the title of a run without an effect of Markdown: that of a pull request is written by anybody."""
    title = text_of(run.get("display_title"), 500)
    return code_span(title) if title.strip() else ""


def _login(run: dict[str, Any], name: str) -> str | None:
    return text_of(at_path(run, name, "login"), 100) or None
