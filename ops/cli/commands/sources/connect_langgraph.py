"""`attn connect langgraph`: looks after any number of LangGraph deployments."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from ops.cli.commands.sources.connector_options import Listen, MetricsPort, Sweep, start_connector
from ops.cli.commands.sources.key_settings import AttnUrl, KeyFile, load_source_settings
from ops.cli.options import DataDir
from ops.errors import UserError
from streams.connectors.attn_client import AttnClient
from streams.connectors.langgraph.deployments import InvalidDeployment, read_deployments
from streams.connectors.langgraph.peer import LangGraphPeer
from streams.connectors.peer import Peer

__all__ = ["langgraph"]

DeploymentPair = Annotated[list[str] | None, typer.Option(
    "--deployment", metavar="NAME=URL", show_default=False,
    help="Name and URL of a LangGraph server; may be repeated. Ids of items contain the name: do not change it.")]
DeploymentFile = Annotated[Path | None, typer.Option(
    "--deployments", metavar="FILE", show_default=False,
    help="TOML file with tables `deployment`: name, url, headers (API keys), link (URL of a thread for people).")]


def langgraph(
    deployment: DeploymentPair = None, deployments: DeploymentFile = None, attn: AttnUrl = None,
    key_file: KeyFile = None, sweep: Sweep = 15.0, listen: Listen = 0, metrics_port: MetricsPort = None,
    data_dir: DataDir = None,
) -> None:
    """Ask in attn what LangGraph threads wait for, and answer them.

    The key (ATTN_KEY or --key-file) needs the topics `actions` and `sessions`. Each interrupt becomes an item: a tool
    call that waits for approval is a pending action, any other question a waiting session. Answers go to the thread by
    the id of the interrupt, one a thread at a time, and are read back.
    """
    settings = load_source_settings(attn, key_file, metrics_port=metrics_port, data_dir=data_dir)
    try:
        found = read_deployments(deployment or (), deployments)
    except InvalidDeployment as error:
        raise UserError(str(error), code=2) from None

    @contextlib.asynccontextmanager
    async def open_peer(client: AttnClient) -> AsyncIterator[Peer]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield LangGraphPeer(found, client, session)

    start_connector("langgraph", settings, open_peer, sweep=sweep, listen=listen)
