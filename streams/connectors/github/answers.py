"""Brings decisions to GitHub: reviews of deployments, answers of an app's protection rule, runs of failed jobs again.

Each answer first reads whether an earlier attempt took effect, and whether the run still is the one that was asked
about. Then it acts, and reads the effect back. So a connector that was killed at any step starts over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from streams.connectors.github import reviews
from streams.connectors.github.client import GithubClient, GithubError
from streams.connectors.github.reviews import Review
from streams.connectors.github.subjects import Target, repository_path
from streams.connectors.mappings.mapped import at_path
from streams.connectors.peer import Applied, Decision, NotYet, Outcome, Refused

__all__ = ["answer_review", "answer_rule", "answer_run"]

_READ_AGAIN = 2.0  # seconds until a write that GitHub accepted is read again
_RUNNING_AGAIN = 10.0  # seconds until a run that has not ended is looked at again


async def answer_review(github: GithubClient, target: Target, decision: Decision) -> Outcome:
    """Approves or rejects a deployment that waits for its reviewers."""
    state = reviews.STATES.get(str(decision.get("does")))
    if state is None:
        return Refused(f"GitHub has no answer {decision.get('does')!r} to a deployment: approve or reject it")
    history = await _history(github, target)
    if (own := reviews.review_of_decision(history, decision["id"])) is not None:
        return _confirmed(own, state)
    run = await _run(github, target)
    if reviews.is_later_attempt(run, decision):
        return Refused(_again(run))
    waiting = await _waiting(github, target)
    if waiting is None:
        return _reviewed_elsewhere(run, history, target, state)
    if waiting.get("current_user_can_approve") is False:
        return Refused(_may_not(waiting))
    try:
        await github.post(target.repository, f"{target.path}/pending_deployments", {
            "environment_ids": [waiting["environment"]["id"]], "state": state,
            "comment": reviews.comment_of(decision, state)})
    except GithubError as error:
        return await _after_refusal(github, target, decision, state, error)
    own = reviews.review_of_decision(await _history(github, target), decision["id"])
    return NotYet("GitHub does not list the review yet", _READ_AGAIN) if own is None else _confirmed(own, state)


async def answer_rule(github: GithubClient, target: Target, decision: Decision) -> Outcome:
    """Answers for the protection rule of the app. `github` must act as that app.

    GitHub's path for it is the one that `deployment_callback_url` of the webhook has; the URL itself is not used.
    """
    state = reviews.STATES.get(str(decision.get("does")))
    if state is None:
        return Refused(f"GitHub has no answer {decision.get('does')!r} to a deployment: approve or reject it")
    run = await _run(github, target)
    if reviews.is_later_attempt(run, decision):
        return Refused(_again(run))
    if await _waiting(github, target) is None:
        return _passed(run, target, state)
    await github.post(target.repository, f"{target.path}/deployment_protection_rule", {
        "environment_name": target.environment, "state": state, "comment": reviews.comment_of(decision, state)})
    waiting = await _waiting(github, target)
    if waiting is None or waiting.get("reviewers") or waiting.get("wait_timer"):
        return Applied()
    rules = await github.get(target.repository, f"{repository_path(target.repository)}/environments/"
                             f"{quote(target.environment, safe='')}/deployment_protection_rules")
    if int(at_path(rules, "total_count") or 0) > 1:
        return Applied()  # GitHub accepted the answer; the rule of another app holds the deployment
    return NotYet("GitHub accepted the answer, and the deployment still waits", _READ_AGAIN)


async def answer_run(github: GithubClient, target: Target, decision: Decision) -> Outcome:
    """Runs the failed jobs of a run again. `ignore` changes nothing at GitHub."""
    does = decision.get("does")
    if does in ("ignore", "acknowledge"):
        return Applied()
    if does != "retry":
        return Refused(f"GitHub has no answer {does!r} to a failed run: retry or ignore it")
    run = await _run(github, target)
    asked = reviews.attempt_asked(decision)
    if asked is None and not reviews.is_later_attempt(run, decision):
        asked = reviews.attempt_of(run)
    if asked is None or reviews.attempt_of(run) > asked:
        return Applied()  # an earlier attempt to apply this decision, or somebody at GitHub
    if not reviews.has_ended(run):
        return NotYet(f"run {target.run} has not ended", _RUNNING_AGAIN)
    if run.get("conclusion") == "success":
        return Refused("the run has succeeded in the meantime")
    try:
        await github.post(target.repository, f"{target.path}/rerun-failed-jobs")
    except GithubError as error:
        run = await _run(github, target)
        if reviews.attempt_of(run) > asked:
            return Applied()
        if not reviews.has_ended(run) or "already running" in error.message.lower():
            return NotYet(str(error), _RUNNING_AGAIN)
        return Refused(str(error))
    if reviews.attempt_of(await _run(github, target)) > asked:
        return Applied()
    return NotYet("GitHub does not show the new attempt yet", _READ_AGAIN)


async def _run(github: GithubClient, target: Target) -> Mapping[str, Any]:
    run = await github.get(target.repository, target.path)
    return run if isinstance(run, dict) else {}


async def _history(github: GithubClient, target: Target) -> list[Review]:
    found = await github.get(target.repository, f"{target.path}/approvals")
    return [review for review in found or () if isinstance(review, dict)]


async def _waiting(github: GithubClient, target: Target) -> Mapping[str, Any] | None:
    found = await github.get(target.repository, f"{target.path}/pending_deployments")
    return reviews.environment_of(found or (), target.environment)


def _confirmed(own: Review, state: str) -> Outcome:
    if own.get("state") == state:
        return Applied()
    return Refused(f"GitHub lists the review as {own.get('state')}, not as {state}")


def _again(run: Mapping[str, Any]) -> str:
    attempt = reviews.attempt_of(run)
    return f"the run was started again after the decision (attempt {attempt}): decide about that attempt"


def _may_not(waiting: Mapping[str, Any]) -> str:
    """Returns why the token's user cannot review: GitHub says only that it is that way."""
    names = [str(at_path(one, "reviewer", "login") or at_path(one, "reviewer", "slug") or "")
             for one in waiting.get("reviewers") or ()]
    if not any(names):
        return "GitHub asks no reviewer for this deployment: it waits for a timer or for the rule of an app"
    return ("the user of the connector's token may not review this deployment: it is none of the reviewers "
            f"({', '.join(filter(None, names))[:300]}), or it started the run and self-review is prevented")


def _reviewed_elsewhere(run: Mapping[str, Any], history: list[Review], target: Target, state: str) -> Outcome:
    """Returns the outcome for a deployment that no longer waits, and that this decision did not review."""
    # A review that has the id of another decision was about another request of the same environment.
    found = [one for one in reviews.reviews_of(history, target.environment) if reviews.decision_of(one) is None]
    cancelled = reviews.has_ended(run) and run.get("conclusion") in ("cancelled", "skipped", "stale")
    if found and not cancelled and {review.get("state") for review in found} == {state}:
        return Applied()  # somebody at GitHub gave the same answer
    said = f"; at GitHub it was {reviews.by_whom(found)}" if found else ""
    return Refused(f"GitHub no longer waits for a review of {target.environment}: {reviews.ended(run)}{said}")


def _passed(run: Mapping[str, Any], target: Target, state: str) -> Outcome:
    """Returns the outcome for a deployment that no longer waits for any rule. GitHub does not say what the app
    answered, so the run shows it."""
    running = not reviews.has_ended(run) or run.get("conclusion") == "success"
    if running if state == "approved" else run.get("conclusion") == "failure":
        return Applied()
    return Refused(f"GitHub no longer waits for the rule of {target.environment}: {reviews.ended(run)}")


async def _after_refusal(
    github: GithubClient, target: Target, decision: Decision, state: str, error: GithubError,
) -> Outcome:
    """Returns the outcome after GitHub refused a review: another one may have been a moment earlier."""
    history = await _history(github, target)
    if (own := reviews.review_of_decision(history, decision["id"])) is not None:
        return _confirmed(own, state)
    if error.status == 422 and await _waiting(github, target) is None:
        return _reviewed_elsewhere(await _run(github, target), history, target, state)
    return Refused(str(error))
