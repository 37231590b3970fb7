"""Options that all commands of `attn connect` have, and the start of a connector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ops.cli.commands.roles import run_role
from ops.errors import UserError
from schemas.settings import Settings
from streams.connectors import process
from streams.runtime import private_files

__all__ = ["Listen", "MetricsPort", "Sweep", "check_url", "read_authorization", "start_connector"]

Sweep = Annotated[float, typer.Option(
    "--sweep", min=0.1, max=86400, help="Seconds between two sweeps, which read everything from the system.")]
Listen = Annotated[int, typer.Option(
    "--listen", min=0, max=65535,
    help="Port at which a webhook of the system wakes the connector: each POST starts a sweep. 0: none.")]
MetricsPort = Annotated[int | None, typer.Option(
    "--metrics-port", min=0, max=65535, show_default=False,
    help="Port for /metrics, /healthz and /readyz. [ATTN_METRICS_PORT, else none]")]


def start_connector(
    name: str, settings: Settings, open_peer: process.OpenPeer, *, sweep: float, listen: int
) -> None:
    """Runs a connector until a signal. `settings`: of `load_source_settings`."""
    run = partial(process.run, open_peer=open_peer, sweep_seconds=sweep, wake_port=listen)
    run_role(f"connect-{name}", run, settings)


def check_url(url: str, option: str) -> str:
    """Returns the URL of a system without a slash at its end.

    Raises UserError if it is no http(s) URL, or contains a user or password: every user of a machine can read the
    arguments of its processes.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"{option}: must be a URL such as http://127.0.0.1:9093", code=2)
    if parts.username is not None or parts.password is not None:
        raise UserError(f"{option}: must not contain a user or password; pass --authorization-file", code=2)
    return url.rstrip("/")


def read_authorization(path: Path | None) -> str | None:
    """Returns the value of the header `Authorization` that a file has, None without a file.

    Raises UserError if the file cannot be read, is empty, or has more than one line.
    """
    if path is None:
        return None
    try:
        text = private_files.read_secret(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --authorization-file {path}: {error}") from None
    if not text or not text.isprintable():
        raise UserError(f"--authorization-file {path}: must have one line, such as `Bearer ...` or `Basic ...`", code=2)
    return text
