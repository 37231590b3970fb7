"""GitHub as a peer of the connector frame: one API, any number of repositories."""

from __future__ import annotations

from collections.abc import Sequence

from streams.connectors.github.answers import answer_review, answer_rule, answer_run
from streams.connectors.github.client import GithubClient, GithubError, RateLimited
from streams.connectors.github.subjects import target_of
from streams.connectors.github.sweep import Items, Sweep, SweepOptions
from streams.connectors.peer import Decision, Event, NotYet, Outcome, Refused

__all__ = ["GithubPeer"]


class GithubPeer:
    """Sweeps repositories and answers their deployments and failed runs.

    `github`: with the credentials that read and review. `app`: with those of the app whose protection rules are
    answered, if there is one.
    """

    name, topic = "github", "waitpoints"

    def __init__(
        self, github: GithubClient, items: Items, options: SweepOptions, app: GithubClient | None = None,
    ) -> None:
        self._github, self._app, self._options = github, app, options
        self._sweep = Sweep(github, items, options)

    @property
    def source(self) -> str:
        return self._options.mapping.source

    async def sweep(self) -> Sequence[Event]:
        return await self._sweep.events()

    def lane(self, decision: Decision) -> str:
        """Decisions about one run are applied one after another: each changes what the run waits for."""
        target = target_of(str(decision["source_id"]))
        return target.path if target is not None else str(decision["source_id"])

    async def apply(self, decision: Decision) -> Outcome:
        target = target_of(str(decision["source_id"]))
        if target is None:
            return Refused("the connector knows no run of GitHub with this source id")
        if target.repository not in self._options.repositories:
            return Refused(f"repository {target.repository} is none of those of the connector")
        try:
            if target.waits == "environments":
                return await answer_review(self._github, target, decision)
            if target.waits == "rules":
                if self._app is None:
                    return Refused("the connector has no credentials of the app whose rule waits")
                return await answer_rule(self._app, target, decision)
            return await answer_run(self._github, target, decision)
        except RateLimited as limited:
            return NotYet(str(limited), limited.seconds)
        except GithubError as error:
            return Refused(str(error))
