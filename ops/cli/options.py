"""Options that several commands share. None: the option was not given; the variable, `.env` or the default applies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ClickHouse", "DataDir", "Host", "Instance", "Kafka", "Port"]

DataDir = Annotated[Path | None, typer.Option(
    "--data-dir", help="Data directory of `attn up`: state, secret, addresses. [ATTN_DATA_DIR, else ./data]",
    show_default=False)]
Kafka = Annotated[str | None, typer.Option(
    "--kafka", metavar="HOST:PORT", help="Bootstrap servers of Kafka. [ATTN_KAFKA, else those of a running `attn up`]",
    show_default=False)]
ClickHouse = Annotated[str | None, typer.Option(
    "--clickhouse", metavar="URL", show_default=False,
    help="http(s)://user:password@host:port/database. Set ATTN_CLICKHOUSE instead if the URL has a password: other "
         "users of this machine can read arguments while the process starts. [ATTN_CLICKHOUSE, else embedded]")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on. [ATTN_HOST, else 127.0.0.1]",
                                          show_default=False)]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, show_default=False,
                                          help="Port to listen on; 0: any free port. [ATTN_PORT, else 8080]")]
Instance = Annotated[str | None, typer.Option(
    "--instance", help="Name of this process among those of its role; keep it over restarts. [ATTN_INSTANCE, else 1]",
    show_default=False)]
