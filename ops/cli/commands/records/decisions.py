"""`attn decisions`: list, show, send-again, endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from ops import config
from ops.cli.data.decisions import (
    AGAIN_STATES,
    DecisionFilter,
    events_of,
    read_decisions,
    row_of,
    send_again,
    state_of,
)
from ops.cli.dead_letter_output import printable, short_time, time_column
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.asking.question import DecisionRow, DecisionState
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from streams.delivery.endpoints import EndpointsError, load_endpoints
from streams.delivery.signing import public_keys

__all__ = ["app"]

_LISTED = 50
_STATES = (*get_args(DecisionState), "unconfirmed")

app = typer.Typer(help="Inspect what people decided and what became of it, and send decisions again.")

Workspace = Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.", show_default=False)]
State = Annotated[str | None, typer.Option(
    "--state", metavar="STATE", help=f"Only in this state: {', '.join(_STATES)}.", show_default=False)]
EndpointName = Annotated[str | None, typer.Option(
    "--endpoint", help="Only for this HTTP endpoint.", show_default=False)]
Newest = Annotated[int | None, typer.Option(
    "--limit", min=1, help=f"The newest N; default: {_LISTED}.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a decision: dec_...", show_default=False)]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of decisions.", show_default=False)]


@app.command("list")
def list_(
    workspace: Workspace = None, state: State = None, endpoint: EndpointName = None, limit: Newest = None,
    as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """List decisions with their state, the newest last.

    `unconfirmed` lists decisions whose source has not confirmed them in time. A decision stays listed for the retention
    of resolved items, 30 days.
    """
    settings, chosen = _load(kafka, data_dir, DecisionFilter(workspace, state, endpoint))
    rows = asyncio.run(read_decisions(settings, chosen))[-(limit or _LISTED):]
    if as_json:
        _print_json([row_of(row) for row in rows])
    else:
        _print_table(rows)


@app.command()
def show(decision: Id, as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """Show one decision, and the records about it on the topic `decisions`. Reply tokens are never shown."""
    settings, chosen = _load(kafka, data_dir, DecisionFilter(id=decision))
    row, events = asyncio.run(_find(settings, chosen, decision))
    document = (row_of(row) if row is not None else {"id": decision}) | {"records": events}
    if row is None and not events:
        raise UserError(f"no decision {decision}; `attn decisions list` lists them")
    typer.echo(json.dumps(document, ensure_ascii=False, indent=None if as_json else 2))


@app.command("send-again")
def send_again_(
    ids: Ids = None, workspace: Workspace = None, state: State = None, endpoint: EndpointName = None,
    as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Publish decisions once more, with the same id: these by id, or those that the options choose.

    A receiver that honours `webhook-id`, or a source that knows the decision's id, ignores one that it has applied.
    Only decisions that are under way, unconfirmed or undeliverable can be sent again.
    """
    if not ids and state is None and endpoint is None:
        raise UserError("name decisions, or choose them by --state or --endpoint", code=2)
    settings, chosen = _load(kafka, data_dir, DecisionFilter(workspace, state, endpoint))
    rows = asyncio.run(read_decisions(settings, chosen))
    if ids:
        rows = [row for row in rows if row.id in set(ids)]
        if missing := sorted(set(ids) - {row.id for row in rows}):
            raise UserError(f"no decision {', '.join(missing)}; nothing was sent")
    over = [row for row in rows if row.state not in AGAIN_STATES or not row.published]
    if ids and over:
        raise UserError(f"decision {over[0].id} is {state_of(over[0])} and cannot be sent again; nothing was sent")
    rows = [row for row in rows if row not in over]
    asyncio.run(send_again(settings, rows))
    if as_json:
        _print_json([{"decision": row.id, "workspace": row.ws} for row in rows])
    else:
        typer.echo(f"{len(rows)} decisions are sent again" + (f", {len(over)} are over" if over else ""))


@app.command()
def endpoints(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Check the file ATTN_ENDPOINTS and list its endpoints with their public keys. Secrets are never shown."""
    settings = config.load_settings(data_dir=data_dir)
    if settings.endpoints is None:
        raise UserError("no endpoints: set ATTN_ENDPOINTS to the TOML file that lists them")
    try:
        found = load_endpoints(settings.endpoints)
    except EndpointsError as error:
        raise UserError(f"ATTN_ENDPOINTS: {error}", code=2) from None
    _print_json([{
        "name": each.name, "host": each.host, "hmac_secrets": len(each.hmac_keys), "public_keys": public_keys(each),
        "headers": [name for name, _ in each.headers], "timeout": each.timeout, "allow_private": each.allow_private,
        "workspaces": sorted(each.workspaces) if each.workspaces is not None else None,
    } for each in found.values()], indent=None if as_json else 2)


def _load(kafka: Any, data_dir: Any, chosen: DecisionFilter) -> tuple[Settings, DecisionFilter]:
    if chosen.state is not None and chosen.state not in _STATES:
        raise UserError(f"--state must be one of {', '.join(_STATES)}", code=2)
    return config.load_settings(kafka=kafka, data_dir=data_dir), chosen


async def _find(
    settings: Settings, chosen: DecisionFilter, decision: str
) -> tuple[DecisionRow | None, list[dict[str, Any]]]:
    rows = await read_decisions(settings, chosen)
    return (rows[-1] if rows else None), [event async for event in events_of(settings, decision)]


def _print_json(documents: list[dict[str, Any]], indent: int | None = None) -> None:
    for document in documents:
        typer.echo(json.dumps(document, ensure_ascii=False, indent=indent))


def _print_table(rows: list[DecisionRow]) -> None:
    if not rows:
        typer.echo("no decisions")
        return
    table = Table(time_column("decided"), "decision", "workspace", "item", "option", "state", "endpoint", "reason",
                  box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            short_time(format_timestamp(row.decided_at)), row.id, printable(row.ws),
            printable(f"{row.kind} {row.title or row.subject}"), printable(row.option or "-"), state_of(row),
            printable(row.reply_to or "-"), printable(row.reason or ""))
    Console().print(table)


