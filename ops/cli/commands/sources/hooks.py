"""`attn hooks`: try a mapping on a payload, list the webhooks that edges accept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import config
from ops.errors import UserError
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import TOPIC_OF_TYPE
from streams.connectors.hooks.hooks_file import BUILT_IN, Hook, Hooks, HooksError, load_hooks, load_mapping
from streams.connectors.hooks.payloads import GITHUB_EVENT, map_payload
from streams.connectors.mappings.github import EVENTS
from streams.connectors.mappings.mapped import CloudEventDict, Mapped, MappingError, encode_event
from streams.core.normalise import EventLimits, Rejected, normalise
from streams.core.sealing import KEY_BYTES, Sealer

__all__ = ["app"]

_MAX_PAYLOAD = 64 << 20  # bytes

app = typer.Typer(no_args_is_help=True, help="Webhooks of other systems: try a mapping, list what edges accept.")

HooksPath = Annotated[Path | None, typer.Option(
    "--hooks", metavar="FILE", show_default=False, help="File with the webhooks. [ATTN_HOOKS]")]


@app.command("try")
def try_(
    mapping: Annotated[str, typer.Argument(
        metavar="FILE|NAME", help=f"A mapping file (TOML), or a webhook: {', '.join(BUILT_IN)}, or a name of the file "
                                  "ATTN_HOOKS.")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD", help="File with the body of a delivery; - is stdin.")],
    event: Annotated[str | None, typer.Option(
        "--event", show_default=False, help=f"GitHub: the header X-GitHub-Event, such as {EVENTS[0]}.")] = None,
    header: Annotated[list[str] | None, typer.Option(
        "--header", metavar="NAME: VALUE", show_default=False,
        help="A header of the delivery; may be repeated.")] = None,
    hooks: HooksPath = None,
) -> None:
    """Print the events that a delivery becomes, without sending them.

    Exits with 1 if a part of the payload cannot be mapped, or if attn would not accept an event: stderr then names the
    field.
    """
    settings = config.load_settings(hooks=hooks)
    hook = _hook(mapping, settings)
    headers = _headers(header or ()) | ({GITHUB_EVENT: event} if event is not None else {})
    if hook.mapping == "github" and GITHUB_EVENT not in headers:
        raise UserError(f"--event: is needed for GitHub; one of {', '.join(EVENTS)}", code=2)
    try:
        mapped = map_payload(hook, _read(payload), headers, int(time.time() * SECOND))
    except MappingError as error:
        raise UserError(str(error)) from None
    typer.echo(json.dumps(mapped.events, indent=1, ensure_ascii=False))
    problems = [*map(str, mapped.problems), *_refused(mapped.events, settings)]
    for line in (*_notes(mapped), *problems):
        typer.echo(f"attn: {line}", err=True)
    if problems:
        raise typer.Exit(1)


@app.command("list")
def list_(hooks: HooksPath = None) -> None:
    """List the webhooks that edges with this file accept: name, mapping, workspace, source, how the sender is known."""
    for name, hook in sorted(_all(config.load_settings(hooks=hooks)).items()):
        workspace = hook.workspace or "the workspace of the key"
        sender = f"signature in {hook.signature_header}, or a key" if hook.secrets else "a key"
        typer.echo("  ".join((f"/hooks/{name}", hook.mapping, workspace, hook.options.source, sender)))


def _hook(mapping: str, settings: Settings) -> Hook:
    """Returns the webhook of a name, or one for a mapping file."""
    known = _all(settings)
    if mapping in known:
        return known[mapping]
    path = Path(mapping)
    if not path.exists():
        raise UserError(f"{mapping!r} is neither a file nor a webhook; webhooks are {', '.join(sorted(known))}", code=2)
    try:
        return Hook(path.stem, "generic", load_mapping(path, f"/hooks/{path.stem}"))
    except HooksError as error:
        raise UserError(str(error)) from None


def _all(settings: Settings) -> Hooks:
    try:
        return load_hooks(settings.hooks) if settings.hooks is not None else Hooks({})
    except HooksError as error:
        raise UserError(str(error)) from None


def _headers(lines: list[str] | tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UserError(f"--header: {line[:100]!r} is not NAME: VALUE", code=2)
        headers[name.strip().lower()] = value.strip()
    return headers


def _read(payload: str) -> bytes:
    try:
        if payload == "-":
            body = sys.stdin.buffer.read(_MAX_PAYLOAD + 1)
        else:
            with open(payload, "rb") as file:
                body = file.read(_MAX_PAYLOAD + 1)
    except OSError as error:
        raise UserError(f"cannot read {payload}: {error.strerror or error}") from None
    if len(body) > _MAX_PAYLOAD:
        raise UserError(f"{payload} has more than {_MAX_PAYLOAD} bytes")
    return body


def _notes(mapped: Mapped) -> list[str]:
    notes = [f"no event: {mapped.ignored}"] if mapped.ignored else []
    if mapped.truncated:
        notes.append(f"the sender left out {mapped.truncated} alerts (truncatedAlerts)")
    return notes


def _refused(events: list[CloudEventDict], settings: Settings) -> list[str]:
    """Returns why attn would not accept an event, one line per such event."""
    limits = EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
    sealer = Sealer([bytes(KEY_BYTES)])
    lines = []
    for index, event in enumerate(events):
        record: dict[str, Any] = {"workspaceid": "ws", **event}
        try:
            normalise(TOPIC_OF_TYPE.get(event["type"], "messages"), encode_event(record), limits=limits, sealer=sealer)
        except Rejected as rejected:
            lines.append(f"event {index}: {rejected}")
    return lines
