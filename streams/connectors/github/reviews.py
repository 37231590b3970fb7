"""Reads GitHub's answers about a run: attempts, pending deployments, reviews; and writes the comment of a review. Pure.

The comment of a review has the id of the decision, so a review that an earlier attempt sent is found again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.scalars import SECOND, parse_timestamp
from streams.connectors.mappings.mapped import at_path
from streams.connectors.peer import Decision

__all__ = [
    "STATES", "Review", "attempt_asked", "attempt_of", "by_whom", "comment_of", "decision_of", "ended",
    "environment_of", "has_ended", "is_later_attempt", "review_of_decision", "reviews_of",
]

Review = Mapping[str, Any]  # an entry of GET .../approvals
STATES = {"approve": "approved", "reject": "rejected"}  # what an option does -> GitHub's state

_MAX_COMMENT, _MAX_NAMES = 800, 200  # characters
_DECISION = re.compile(r"\(attn decision (dec_[0-9a-f]{32})\)\s*$")
_ATTEMPT = re.compile(r"/([0-9]{1,6})$")


def comment_of(decision: Decision, state: str) -> str:
    """Returns the comment of a review: who decided, what they wrote, and the decision's id at the end."""
    actors = decision.get("actors") or ()
    names = ", ".join(str(actor.get("name") or actor.get("user")) for actor in actors)[:_MAX_NAMES] or "attn"
    said = " ".join(str(decision.get("comment") or "").split())[:_MAX_COMMENT]
    return f"{state.capitalize()} by {names}{': ' + said if said else ''} (attn decision {decision['id']})"


def review_of_decision(reviews: Iterable[Review], decision: str) -> Review | None:
    """Returns the review that was sent for a decision; None if there is none."""
    return next((review for review in reviews if decision_of(review) == decision), None)


def decision_of(review: Review) -> str | None:
    """Returns the id of the decision that a review was sent for; None if attn did not send it."""
    found = _DECISION.search(str(review.get("comment") or ""))
    return found[1] if found is not None else None


def reviews_of(reviews: Iterable[Review], environment: str) -> list[Review]:
    """Returns the reviews of an environment, those of earlier attempts included: GitHub does not separate them."""
    return [review for review in reviews
            if any(at_path(one, "name") == environment for one in review.get("environments") or ())]


def by_whom(reviews: Iterable[Review]) -> str:
    """Returns who reviewed, as text: `approved by ann, rejected by bob`."""
    parts = [f"{review.get('state')} by {at_path(review, 'user', 'login') or 'somebody'}" for review in reviews]
    return ", ".join(dict.fromkeys(parts))


def environment_of(pending: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Returns the pending deployment of an environment; None if GitHub does not wait for it."""
    return next((one for one in pending if at_path(one, "environment", "name") == name), None)


def attempt_of(run: Mapping[str, Any]) -> int:
    return int(run.get("run_attempt") or 1)


def attempt_asked(decision: Decision) -> int | None:
    """Returns the attempt of a run that a question was about; None if its handle does not name one."""
    handle, subject = str(at_path(decision, "question", "id") or ""), str(decision["source_id"])
    found = _ATTEMPT.fullmatch(handle.removeprefix(subject)) if handle.startswith(subject) else None
    return int(found[1]) if found is not None else None


def is_later_attempt(run: Mapping[str, Any], decision: Decision) -> bool:
    """Returns whether the run was started again after the decision: it is then about another deployment.

    GitHub's times are whole seconds, so an attempt of the same second counts as an earlier one.
    """
    try:
        started = parse_timestamp(str(run["run_started_at"]))
        decided = parse_timestamp(str(decision["at"]))
    except (KeyError, ValueError):
        return False
    return attempt_of(run) > 1 and started > decided - decided % SECOND


def has_ended(run: Mapping[str, Any]) -> bool:
    return run.get("status") == "completed"


def ended(run: Mapping[str, Any]) -> str:
    """Returns what became of a run, as the end of a sentence."""
    conclusion = run.get("conclusion")
    return f"the run has ended: {conclusion}" if has_ended(run) else f"the run is {run.get('status')}"
