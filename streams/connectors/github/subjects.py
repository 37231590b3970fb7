"""Reads the subjects of GitHub's items: repository, run, and the environment that waits. Pure.

The mappings write them: `OWNER/NAME/runs/ID`, `.../environments/NAME` and `.../rules/NAME`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import quote

from streams.connectors.mappings.github import environment_subject, run_subject

__all__ = ["Target", "repository_path", "target_of"]

Waits = Literal["environments", "rules"]

_SUBJECT = re.compile(
    r"([A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100})/runs/([0-9]{1,18})(?:/(environments|rules)/(.+))?", re.DOTALL)


class Target(NamedTuple):
    """A run, or an environment that it waits for. `waits`: for reviewers, or for the rule of an app; "": a run."""

    repository: str
    run: str
    waits: str = ""
    environment: str = ""

    @property
    def path(self) -> str:
        """The path of the run in GitHub's API. It has these parts only, so no payload chooses another host or route."""
        return f"{repository_path(self.repository)}/actions/runs/{self.run}"

    @property
    def subject(self) -> str:
        if not self.waits:
            return run_subject(self.repository, self.run)
        return environment_subject(self.repository, self.run, self.environment, rule=self.waits == "rules")


def target_of(subject: str) -> Target | None:
    """Returns the target of a subject; None if no mapping of GitHub writes such a subject."""
    found = _SUBJECT.fullmatch(subject)
    if found is None or {".", ".."} & set(found[1].split("/")):
        return None
    return Target(found[1], found[2], found[3] or "", found[4] or "")


def repository_path(repository: str) -> str:
    """Returns the path of a repository in GitHub's API."""
    return f"/repos/{quote(repository, safe='/')}"
