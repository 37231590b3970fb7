"""`attn connect alertmanager`: looks after one Alertmanager, or the members of a cluster."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ops.cli.commands.sources.connector_options import (
    Listen,
    MetricsPort,
    Sweep,
    check_url,
    read_authorization,
    start_connector,
)
from ops.cli.commands.sources.key_settings import AttnUrl, KeyFile, load_source_settings
from ops.cli.durations import parse_duration
from ops.cli.options import DataDir
from ops.errors import UserError
from streams.connectors.alertmanager.client import AlertmanagerClient
from streams.connectors.alertmanager.peer import AlertmanagerPeer
from streams.connectors.attn_client import AttnClient
from streams.connectors.mappings.alertmanager import AlertOptions
from streams.connectors.peer import Peer

__all__ = ["alertmanager"]

Url = Annotated[list[str], typer.Option(
    "--url", metavar="URL", help="URL of Alertmanager; once for each member of a cluster. [required]")]
Authorization = Annotated[Path | None, typer.Option(
    "--authorization-file", show_default=False,
    help="File with the value of the header Authorization for Alertmanager, such as `Bearer ...`.")]
Receiver = Annotated[list[str] | None, typer.Option(
    "--receiver", show_default=False,
    help="Name of a receiver whose alerts open items; may be repeated. Default: the alerts of all receivers.")]
Options = Annotated[Path | None, typer.Option(
    "--options", show_default=False,
    help="TOML file with options of the mapping, the same as those of the hook: per, kind, source, prefix, ...")]
Longest = Annotated[str | None, typer.Option(
    "--longest-silence", metavar="8h", show_default=False,
    help="Longest silence; an answer with a longer one is refused. Default: no limit.")]
Grace = Annotated[str, typer.Option(
    "--grace", metavar="5m",
    help="Time after a start of Alertmanager in which a missing alert does not count as ended: it keeps no alerts over "
         "a restart, and Prometheus sends them again.")]


def alertmanager(
    url: Url, attn: AttnUrl = None, key_file: KeyFile = None, sweep: Sweep = 30.0,
    authorization_file: Authorization = None, receiver: Receiver = None, options: Options = None,
    longest_silence: Longest = None, grace: Grace = "5m", listen: Listen = 0, metrics_port: MetricsPort = None,
    data_dir: DataDir = None,
) -> None:
    """Read alerts from Alertmanager, and make silences of acknowledgements.

    The key (ATTN_KEY or --key-file) needs the topic `escalations`. Acknowledged in attn: a silence with the name of the
    decider, for the time that the decider chose. Alerts that no webhook reported become items, and items are closed
    whose alerts ended while they were silenced.
    """
    settings = load_source_settings(attn, key_file, metrics_port=metrics_port, data_dir=data_dir)
    urls = [check_url(one, "--url") for one in url]
    authorization = read_authorization(authorization_file)
    mapping = _load_options(options)
    limit, seconds = _duration(longest_silence, "--longest-silence"), _duration(grace, "--grace")

    @contextlib.asynccontextmanager
    async def open_peer(client: AttnClient) -> AsyncIterator[Peer]:
        source = AlertmanagerClient(urls, authorization)
        try:
            yield AlertmanagerPeer(
                source, client, mapping, grace=seconds or 0.0, longest=None if limit is None else int(limit),
                receivers=frozenset(receiver) if receiver else None)
        finally:
            await source.close()

    start_connector("alertmanager", settings, open_peer, sweep=sweep, listen=listen)


def _load_options(path: Path | None) -> AlertOptions:
    """Returns the options of the mapping. Raises UserError if the file is invalid, or makes one item of a group."""
    try:
        values = tomllib.loads(path.read_text()) if path is not None else {}
        options = AlertOptions.model_validate(values)
    except (OSError, ValueError) as error:
        problem = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem is not None else str(error)
        raise UserError(f"--options {path}: {text}", code=2) from None
    if options.per != "alert" or not options.ask:
        raise UserError(f"--options {path}: the connector needs per = \"alert\" and ask = true: it silences single "
                        "alerts, and attn shows a key only items that ask", code=2)
    return options


def _duration(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    if (seconds := parse_duration(text)) is None:
        raise UserError(f"{option}: {text!r} is not a duration such as 30s, 5m or 8h", code=2)
    return seconds
