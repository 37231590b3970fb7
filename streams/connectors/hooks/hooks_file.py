"""Webhooks of other systems, from the TOML file ATTN_HOOKS (CONTRACT §8).

    [[hook]]
    name = "ci"                        # POST /hooks/ci
    mapping = "github"                 # alertmanager, grafana, github or generic
    workspace = "ws_01"                # whose items it makes; needed with secrets
    secrets = ["..."]                  # of the signature; several while one is being replaced
    source = "/github/acme"            # optional: `source` of the events
    signature_header = "X-Hub-Signature-256"   # optional: HMAC-SHA256 of the body, in hexadecimal
    file = "jira.toml"                 # generic: the mapping file, relative to this file
    options = { branches = ["main"] }  # optional: of the mapping

`alertmanager`, `grafana` and `github` also work without an entry: the sender then needs a key. No error, `repr` or log
line contains a secret.
"""

from __future__ import annotations

import logging
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from streams.connectors.mappings.alertmanager import AlertOptions
from streams.connectors.mappings.github import GithubOptions
from streams.connectors.mappings.grafana import GrafanaOptions

if TYPE_CHECKING:
    from streams.connectors.mappings.mapping_file import GenericMapping

__all__ = ["BUILT_IN", "Hook", "Hooks", "HooksError", "HooksFile", "load_hooks", "load_mapping"]

log = logging.getLogger("attn.hooks")

MAX_FILE_BYTES = 1 << 20
_RELOAD_SECONDS = 2.0  # between two checks whether a file has changed
_OPTIONS: dict[str, type[AlertOptions] | type[GithubOptions]] = {
    "alertmanager": AlertOptions, "grafana": GrafanaOptions, "github": GithubOptions}


class HooksError(Exception):
    """The file of hooks, or a mapping file, cannot be used. The text is for the operator and names no secret."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook. `given`: the options that the file names. `secrets`: each of them is accepted."""

    name: str
    mapping: str
    options: AlertOptions | GithubOptions | GenericMapping
    workspace: str | None = None
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    signature_header: str = "x-hub-signature-256"
    given: frozenset[str] = frozenset()

    def adapted(self, source: str | None, topics: frozenset[str]) -> Hook:
        """Returns the hook for a key: with its source, and the kind of items that it may send, unless the file names
        them. `source`: the source of the key; `topics`: those of the key."""
        options, changes = self.options, dict[str, Any]()
        if source is not None and "source" not in self.given:
            changes["source"] = source
        alerts = isinstance(options, AlertOptions) and "kind" not in self.given
        if alerts and "escalations" not in topics and "run-failures" in topics:
            changes["kind"] = "failed_run"
        if not changes:
            return self
        if isinstance(options, AlertOptions | GithubOptions):
            return replace(self, options=options.model_copy(update=changes))
        return replace(self, options=replace(options, **changes))


BUILT_IN = {name: Hook(name, name, model()) for name, model in _OPTIONS.items()}


class Hooks(Mapping[str, Hook]):
    """All hooks of a file and the built-in ones, by name. `files`: the files that they were read from."""

    def __init__(self, hooks: Mapping[str, Hook], files: tuple[Path, ...] = ()) -> None:
        self._hooks = BUILT_IN | dict(hooks)
        self.files = files

    def __getitem__(self, name: str) -> Hook:
        return self._hooks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hooks)

    def __len__(self) -> int:
        return len(self._hooks)


class _Entry(BaseModel):
    """One table `[[hook]]`."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    mapping: Literal["alertmanager", "grafana", "github", "generic"]
    workspace: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    secrets: Annotated[list[SecretStr], Field(max_length=10)] = []
    source: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    signature_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] = "X-Hub-Signature-256"
    file: str | None = None
    options: dict[str, Any] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    hook: Annotated[list[_Entry], Field(max_length=1000)] = []


def load_hooks(path: Path) -> Hooks:
    """Reads a file of hooks and the mapping files that it names. Raises HooksError with the hook and the field."""
    try:
        table = tomllib.loads(_read(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the error may show a line with a secret
        where = re.search(r"\(at (?:line \d+, column \d+|end of document)\)", str(error))
        raise HooksError(f"{path}: is no valid TOML {where[0] if where else ''}".rstrip()) from None
    try:
        entries = _File.model_validate(table).hook
    except ValidationError as error:
        raise HooksError(f"{path}: {_explain(error, table)}") from None
    hooks: dict[str, Hook] = {}
    files = [path]
    for entry in entries:
        if entry.name in hooks:
            raise HooksError(f"{path}: hook {entry.name}: another hook has this name")
        try:
            hooks[entry.name] = _hook(entry, path.parent)
        except HooksError as error:
            raise HooksError(f"{path}: hook {entry.name}: {error}") from None
        if entry.file is not None:
            files.append(path.parent / entry.file)
    return Hooks(hooks, tuple(files))


def load_mapping(path: Path, source: str = "/hooks") -> GenericMapping:
    """Reads a mapping file. Raises HooksError with the place in the file."""
    from streams.connectors.mappings.mapping_file import (  # imports JMESPath, which other hooks do not need
        MappingFileError,
        parse_mapping,
    )

    try:
        return parse_mapping(_read(path), source)
    except MappingFileError as error:
        raise HooksError(f"{path}: {error}") from None


def _hook(entry: _Entry, folder: Path) -> Hook:
    if entry.secrets and entry.workspace is None:
        raise HooksError("workspace: is needed with secrets, because no key names it")
    secrets = [secret.get_secret_value() for secret in entry.secrets]
    if any(len(secret) < 8 for secret in secrets):
        raise HooksError("secrets: each must have at least 8 characters")
    given = entry.options | ({"source": entry.source} if entry.source is not None else {})
    return Hook(
        entry.name, entry.mapping, _options(entry, given, folder), entry.workspace,
        tuple(secret.encode() for secret in secrets), entry.signature_header.lower(), frozenset(given))


def _options(entry: _Entry, given: dict[str, Any], folder: Path) -> AlertOptions | GithubOptions | GenericMapping:
    if entry.mapping == "generic":
        if entry.file is None:
            raise HooksError("file: is needed with mapping = \"generic\"")
        if entry.options:
            raise HooksError("options: a generic hook has none; its mapping file says everything")
        return load_mapping(folder / entry.file, entry.source or f"/hooks/{entry.name}")
    if entry.file is not None:
        raise HooksError(f"file: is for mapping = \"generic\", not {entry.mapping}")
    try:
        return _OPTIONS[entry.mapping].model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise HooksError(f"options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise HooksError(f"cannot read {path}: {reason}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise HooksError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise HooksError(f"{path} is not UTF-8") from None


def _explain(error: ValidationError, table: Mapping[str, Any]) -> str:
    """Returns the hook, the field and the problem of the first error. Names of unknown keys may be pasted secrets."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    location, message = first["loc"], first["msg"]
    if len(location) >= 2 and location[0] == "hook" and isinstance(location[1], int):
        entry = table["hook"][location[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        hook = f"hook {name if isinstance(name, str) else location[1] + 1}"
        fields = ".".join(str(part)[:40] for part in location[2:])
        return f"{hook[:80]}: {fields + ': ' if fields else ''}{message}"
    return f"{'.'.join(str(part)[:40] for part in location)}: {message}"


class HooksFile:
    """The current hooks of a file that may change while the process runs.

    The files are checked at most every 2 s. A changed file that is invalid is reported once, and the hooks before it
    stay in use.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises HooksError if the file is invalid. Without a path there are the built-in hooks only."""
        self._path, self._clock = path, clock
        self._hooks = load_hooks(path) if path is not None else Hooks({})
        self._state = self._stat()
        self._checked_at = clock()

    def current(self) -> Hooks:
        """Returns the hooks; reads the files again if one has changed."""
        if self._path is None or self._clock() - self._checked_at < _RELOAD_SECONDS:
            return self._hooks
        self._checked_at = self._clock()
        state = self._stat()
        if state != self._state:
            self._state = state
            try:
                self._hooks = load_hooks(self._path)
            except HooksError as error:
                log.error("hooks not reloaded, the earlier ones stay in use: %s", error)
            else:
                self._state = self._stat()  # of the mapping files that the new file names
                log.info("hooks reloaded: %s", ", ".join(self._hooks))
        return self._hooks

    def _stat(self) -> tuple[object, ...]:
        """Returns what changes with the files: inode, size, time. Secrets of Kubernetes change by a link."""
        states: list[object] = []
        for path in self._hooks.files:
            try:
                stat = path.stat()
                states.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                states.append(None)
        return tuple(states)
