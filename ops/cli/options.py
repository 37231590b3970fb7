"""Flags that several commands share. Not given (None): the variable, `.env` or the default decides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ClickHouse", "DataDir", "Host", "Instance", "Kafka", "Port"]

DataDir = Annotated[Path | None, typer.Option(
    "--data-dir", help="State of this machine, and where `attn up` is found. [ATTN_DATA_DIR, else ./data]",
    show_default=False)]
Kafka = Annotated[str | None, typer.Option(
    "--kafka", metavar="HOST:PORT", help="Bootstrap servers of Kafka. [ATTN_KAFKA, else that of `attn up`]",
    show_default=False)]
ClickHouse = Annotated[str | None, typer.Option(
    "--clickhouse", metavar="URL", show_default=False,
    help="http(s)://user:password@host:port/database. Put a password into ATTN_CLICKHOUSE: others on this machine "
         "can read arguments until the process has started. [ATTN_CLICKHOUSE, else embedded]")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on. [ATTN_HOST, else 127.0.0.1]",
                                          show_default=False)]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, show_default=False,
                                          help="Port to listen on, 0: any free one. [ATTN_PORT, else 8080]")]
Instance = Annotated[str | None, typer.Option(
    "--instance", help="Name of this process among its like, the same after a restart. [ATTN_INSTANCE, else 1]",
    show_default=False)]
