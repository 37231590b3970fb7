"""LangGraph deployments that the connector looks after: `NAME=URL`, or a TOML file with headers for several.

    [[deployment]]
    name = "support"
    url = "https://support.example.com"
    headers = { X-Api-Key = "lsv2_..." }
    link = "https://agents.example.com/threads/{thread_id}"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.runtime import private_files

__all__ = ["Deployment", "InvalidDeployment", "read_deployments"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_FIELDS = {"name", "url", "headers", "link"}


class InvalidDeployment(ValueError):
    """A deployment of the command line or of the file is not usable."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """`name` is part of the items' source and ids. `link`: URL of a thread for people, with `{thread_id}`."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # has API keys
    link: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidDeployment(
                f"deployment {self.name!r}: a name has 1 to 40 letters, digits, dots, dashes or underscores")
        for what, url in (("url", self.url), ("link", self.link)):
            parts = urlsplit(url)
            if (parts.scheme not in ("http", "https") or not parts.netloc) and (what == "url" or url):
                raise InvalidDeployment(f"deployment {self.name}: {what} {url!r} is not an http or https URL")
            if parts.username is not None or parts.password is not None:
                raise InvalidDeployment(f"deployment {self.name}: {what} must not contain a password; use headers")

    @property
    def source(self) -> str:
        """CloudEvents source of its events."""
        return f"/langgraph/{self.name}"

    def link_of(self, thread_id: str) -> str:
        """Returns the URL of a thread for people; default: that of the thread in the server's API."""
        return (self.link or f"{self.url.rstrip('/')}/threads/{{thread_id}}").replace("{thread_id}", thread_id)


def read_deployments(pairs: Sequence[str], file: Path | None) -> list[Deployment]:
    """Returns the deployments of `NAME=URL` pairs and of a TOML file.

    Raises InvalidDeployment if one is not usable, a name is used twice, or there is none.
    """
    found = [_of_pair(pair) for pair in pairs] + (_of_file(file) if file is not None else [])
    names = [deployment.name for deployment in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidDeployment(f"deployment {repeated[0]} is named twice")
    if not found:
        raise InvalidDeployment("no deployment is named; use --deployment NAME=URL or --deployments FILE")
    return found


def _of_pair(pair: str) -> Deployment:
    name, equals, url = pair.partition("=")
    if not equals:
        raise InvalidDeployment(f"{pair!r} is not NAME=URL")
    return Deployment(name, url)


def _of_file(file: Path) -> list[Deployment]:
    try:
        document = tomllib.loads(private_files.read_secret(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidDeployment(f"{file}: {error}") from None
    if unknown := sorted(document.keys() - {"deployment"}):
        raise InvalidDeployment(f"{file}: unknown key {unknown[0]}; deployments are [[deployment]] tables")
    entries = document.get("deployment", [])
    if not isinstance(entries, list):
        raise InvalidDeployment(f"{file}: deployments are [[deployment]] tables")
    return [_of_entry(file, entry) for entry in entries]


def _of_entry(file: Path, entry: Mapping[str, Any]) -> Deployment:
    if unknown := sorted(entry.keys() - _FIELDS):
        raise InvalidDeployment(
            f"{file}: unknown key {unknown[0]} of a deployment; known are {', '.join(sorted(_FIELDS))}")
    headers = entry.get("headers", {})
    texts = [entry.get("name", ""), entry.get("url", ""), entry.get("link", ""), *headers, *(
        headers.values() if isinstance(headers, dict) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidDeployment(f"{file}: name, url, link and headers of a deployment are texts")
    return Deployment(entry.get("name", ""), entry.get("url", ""), headers, entry.get("link", ""))
