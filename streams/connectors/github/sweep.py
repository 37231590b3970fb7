"""Compares GitHub with the items of attn, and returns the events that attn lacks: GitHub never repeats a webhook.

    run of the last `lookback`            run.failed, run.recovered, run.retried: the events of the hook
    deployment waits, attn has no item    waitpoint.created
    item open, deployment does not wait   waitpoint.approved, .rejected or .cancelled
    item of a run open, run went on       run.retried, run.recovered; run.cancelled if GitHub has deleted it

Events of runs, and of rules of an app, have the ids and times of the hook's events. The event of a review has them if
the run waits with one job. Otherwise GitHub does not say which job waits for which environment. So the sweep leaves the
first seconds (`grace`) to the hook.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from schemas.scalars import SECOND, format_timestamp, parse_timestamp
from streams.connectors.github import reviews
from streams.connectors.github.client import GithubClient, GithubError, RateLimited
from streams.connectors.github.subjects import Target, repository_path, target_of
from streams.connectors.mappings.github import GithubOptions, review_requested, rule_requested, run_events
from streams.connectors.mappings.mapped import MappingError, at_path, cloud_event
from streams.connectors.peer import Event, PeerUnavailable

__all__ = ["Items", "Sweep", "SweepOptions"]

log = logging.getLogger("attn.connect")

Item = Mapping[str, Any]  # an item in Crewship's dialect

# Errors of one run that does not stop a sweep: GitHub refuses it, or an older server leaves fields out.
_UNREADABLE = (GithubError, MappingError, KeyError, TypeError, ValueError)
_MAX_READS = 100  # runs of open items that one sweep reads one by one; the next sweep goes on with the others


class Items(Protocol):
    """The part of AttnClient that a sweep needs."""

    async def items(
        self, *, state: str = "all", source: str | None = None, source_id: str | None = None,
    ) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """`repositories`: OWNER/NAME. `lookback`, `grace`: seconds. `app`: id or slug of the app whose rules are asked."""

    repositories: Sequence[str]
    mapping: GithubOptions
    lookback: float = 86_400.0
    grace: float = 60.0
    app: str = ""


class Sweep:
    """Sweeps all repositories. `now` returns seconds."""

    def __init__(
        self, github: GithubClient, items: Items, options: SweepOptions, now: Callable[[], float] = time.time,
    ) -> None:
        self._github, self._items, self._options, self._now = github, items, options, now
        self._returned: set[str] = set()  # ids of the last sweeps' events: attn has them, or rejected them
        self._next_read = 0

    async def events(self) -> list[Event]:
        """Returns the events that attn lacks.

        A repository that cannot be read does not delay the events of the others. Raises PeerUnavailable if there is
        such a repository and no new event.
        """
        # The items come first: what GitHub says about them afterwards is newer.
        opened = {str(item["source_id"]): item
                  for item in await self._items.items(state="active", source=self._options.mapping.source)}
        found: list[Event] = []
        waiting: set[str] = set()
        unread: list[Item] = []
        problems: list[str] = []
        for repository in self._options.repositories:
            mine = {subject: item for subject, item in opened.items()
                    if (target := target_of(subject)) is not None and target.repository == repository}
            try:
                found += await self._repository(repository, mine, waiting, unread)
            except RateLimited:
                raise
            except (GithubError, PeerUnavailable) as error:
                problems.append(f"{repository}: {error}")
        found += await self._went_on(unread)
        new = [event for event in found if event["id"] not in self._returned]
        self._returned = {str(event["id"]) for event in found}
        if problems and not new:
            raise PeerUnavailable("; ".join(problems))
        return new

    async def _repository(
        self, repository: str, opened: Mapping[str, Item], waiting: set[str], unread: list[Item],
    ) -> list[Event]:
        """Returns the events of one repository; adds the open items that its lists do not explain to `unread`."""
        path = f"{repository_path(repository)}/actions/runs"
        since = format_timestamp(int(self._now() - self._options.lookback) * SECOND)
        about = await self._github.get(repository, repository_path(repository))
        default_branch = str(at_path(about, "default_branch") or "")
        recent = await self._github.get_all(repository, path, "workflow_runs", {"created": f">={since[:10]}"})
        held = await self._github.get_all(repository, path, "workflow_runs", {"status": "waiting"})
        events: list[Event] = []
        for run in recent:
            events += _events_of_run(run, repository, self._options.mapping, default_branch)
        for run in held:
            try:
                events += await self._waiting_run(run, repository, opened, waiting)
            except _UNREADABLE as error:
                log.warning("github: run %s of %s is skipped: %r", at_path(run, "id"), repository, error)
        listed = {str(at_path(run, "id")) for run in recent}
        for subject, item in opened.items():
            target = target_of(subject)
            if target is not None and subject not in waiting and (target.waits or target.run not in listed):
                unread.append(item)
        return events

    async def _waiting_run(
        self, run: Mapping[str, Any], repository: str, opened: Mapping[str, Item], waiting: set[str],
    ) -> list[Event]:
        """Returns the events of the environments that a run waits for; adds their subjects to `waiting`."""
        number = str(run["id"])
        pending = await self._github.get(repository, Target(repository, number).path + "/pending_deployments")
        events: list[Event] = []
        for one in pending or ():
            name = str(at_path(one, "environment", "name") or "")
            review = Target(repository, number, "environments", name)
            rule = Target(repository, number, "rules", name)
            waiting |= {review.subject, rule.subject}
            event = None
            if one.get("reviewers") and review.subject not in opened:
                event = await self._review(run, review)
            if event is not None and await self._is_lost(event):
                events.append(event)
            if self._options.app and rule.subject not in opened:
                event = await self._rule(run, rule)
                if event is not None and await self._is_lost(event):
                    events.append(event)
        return events

    async def _review(self, run: Mapping[str, Any], target: Target) -> Event | None:
        # While a run waits, `updated_at` is the time at which it began to wait: `since` of the webhook.
        requested = parse_timestamp(str(run["updated_at"]))
        if not self._is_due(requested):
            return None
        jobs = await self._github.get_all(target.repository, f"{target.path}/jobs", "jobs", {"filter": "latest"})
        held = [job for job in jobs if at_path(job, "status") == "waiting"]
        name = str(held[0]["id"]) if len(held) == 1 else "swept"
        created = [parse_timestamp(str(job["created_at"])) for job in held if at_path(job, "created_at")]
        requestor = at_path(run, "triggering_actor", "login") or at_path(run, "actor", "login")
        return review_requested(run, target.repository, target.environment, max([requested, *created]),
                                self._options.mapping, name, requestor)

    async def _rule(self, run: Mapping[str, Any], target: Target) -> Event | None:
        """Returns the event of the app's rule; None if the environment has none, or it waits since a moment ago."""
        base = repository_path(target.repository)
        rules = await self._github.get(
            target.repository, f"{base}/environments/{quote(target.environment, safe='')}/deployment_protection_rules")
        apps = [one.get("app") or {} for one in at_path(rules, "custom_deployment_protection_rules") or ()
                if one.get("enabled", True)]
        if not any(self._options.app in (str(app.get("id")), app.get("slug")) for app in apps):
            return None
        deployments = await self._github.get(target.repository, f"{base}/deployments", {
            "environment": target.environment, "sha": str(run.get("head_sha") or ""), "per_page": "10"})
        started = parse_timestamp(str(run.get("run_started_at") or run["created_at"]))
        times = [(parse_timestamp(str(one["created_at"])), one) for one in deployments or ()]
        created, deployment = max(times, key=lambda each: each[0], default=(0, {}))
        if created < started or not self._is_due(created):
            return None
        return rule_requested(deployment, target.repository, target.run, target.environment, created,
                              self._options.mapping, at_path(deployment, "creator", "login"))

    def _is_due(self, requested: int) -> bool:
        return requested / SECOND + self._options.grace <= self._now()

    async def _is_lost(self, event: Event) -> bool:
        """Returns whether attn has no item of this request: it is not open, decided, or closed since the request."""
        if event["id"] in self._returned:
            return True
        requested = parse_timestamp(event["time"])
        for item in await self._items.items(source_id=str(event["subject"])):
            closed = item.get("resolved_at")
            if item.get("state") != "resolved" or (closed and parse_timestamp(str(closed)) >= requested):
                return False
        return True

    async def _went_on(self, unread: Sequence[Item]) -> list[Event]:
        """Returns the events of open items whose run is in no list, or whose deployment does not wait any more."""
        first = self._next_read % len(unread) if len(unread) > _MAX_READS else 0
        some = [*unread[first:], *unread[:first]][:_MAX_READS]
        self._next_read = first + len(some)
        events: list[Event] = []
        for item in some:
            target = target_of(str(item["source_id"]))
            assert target is not None
            try:
                events += await self._closing(item, target)
            except _UNREADABLE as error:
                log.warning("github: item %s is skipped: %r", target.subject, error)
        return events

    async def _closing(self, item: Item, target: Target) -> list[Event]:
        try:
            run = await self._github.get(target.repository, target.path)
            if not target.waits:
                return _events_of_run(run, target.repository, self._options.mapping, "")
            pending = await self._github.get(target.repository, f"{target.path}/pending_deployments")
            if reviews.environment_of(pending or (), target.environment) is not None:
                return []  # the list of waiting runs was older
            history = await self._github.get(target.repository, f"{target.path}/approvals")
        except GithubError as error:
            if error.status != 404:
                raise
            return [self._closed(item, target, "cancelled", 0, None)]  # deleted
        return [self._close(item, target, run, reviews.reviews_of(history or (), target.environment))]

    def _close(self, item: Item, target: Target, run: Mapping[str, Any], done: list[reviews.Review]) -> Event:
        states = {str(review.get("state")) for review in done}
        state, login = "cancelled", None
        if target.waits == "environments" and len(states) == 1 and states <= {"approved", "rejected"}:
            state, login = states.pop(), at_path(done[0], "user", "login")
        elif target.waits == "rules" and (not reviews.has_ended(run) or run.get("conclusion") == "success"):
            state = "approved"
        return self._closed(item, target, state, parse_timestamp(str(run["updated_at"])), login,
                            reviews.attempt_of(run))

    def _closed(
        self, item: Item, target: Target, state: str, at: int, login: str | None, attempt: int = 0,
    ) -> Event:
        """Returns the event that closes an item, not before the item was opened."""
        kind = "waitpoint" if target.waits else "run"
        at = max(at, parse_timestamp(str(item["created_at"])))
        return cloud_event(
            f"{kind}.{state}", target.subject, at, id=f"{target.subject}/{attempt}.{state}.swept",
            source=self._options.mapping.source, data={"by_user_id": login})


def _events_of_run(
    run: Any, repository: str, options: GithubOptions, default_branch: str,
) -> list[Event]:
    try:
        return run_events(run, repository, options, default_branch).events
    except MappingError as error:
        log.warning("github: run %s of %s is skipped: %s", at_path(run, "id"), repository, error)
        return []
