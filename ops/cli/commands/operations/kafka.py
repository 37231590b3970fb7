"""`attn kafka`: runs Apache Kafka on this machine without Docker."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ops import config
from ops.errors import UserError
from ops.kafka import Cluster, jars
from ops.process.file_lock import exclusive_lock
from schemas.settings import Settings
from streams.runtime import private_files

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Run Apache Kafka on this machine without Docker, for development, tests and benchmarks.")

PORT = 9092
_WATCH = 0.5  # seconds

DataDir = Annotated[Path | None, typer.Option(
    "--data-dir", show_default=False, help="Directory of the cluster. [`kafka` in ATTN_DATA_DIR, else ./data/kafka]")]
Brokers = Annotated[int | None, typer.Option(
    "--brokers", show_default=False,
    help="Number of brokers, 1 or 3; each is also a controller. Default: as in the directory, else 1.")]
Port = Annotated[int | None, typer.Option(
    "--port", min=0, max=65000, show_default=False,
    help=f"First port on 127.0.0.1; each broker uses two ports; 0: any free ports. [{PORT}]")]
Foreground = Annotated[bool, typer.Option(
    "--foreground", help="Stay in the foreground; stop the brokers at Ctrl-C or SIGTERM; end if a broker ends.")]


@app.command()
def start(
    brokers: Brokers = None, data_dir: DataDir = None, port: Port = None, foreground: Foreground = False,
) -> None:
    """Start the brokers that do not run, wait until they answer, and print their addresses.

    The brokers run in the background. The first time, Maven downloads Kafka (45 MB) into the user's cache directory.
    Restarts keep data and ports.
    """
    directory = _directory(data_dir)
    exists = (directory / "cluster.json").exists()
    with _lock(directory):
        cluster = Cluster(directory, brokers, port=(0 if exists else PORT) if port is None else port, tied=foreground)
        asyncio.run(_stay(cluster) if foreground else _start(cluster))


@app.command()
def fetch() -> None:
    """Download Kafka with Maven if it is not in the cache yet, and print the directory of its jars."""
    typer.echo(jars.resolve())


@app.command()
def stop(data_dir: DataDir = None) -> None:
    """Stop the brokers cleanly and keep their data. It is no error if none runs."""
    directory = _directory(data_dir)
    if not (directory / "cluster.json").exists():
        raise UserError(f"no Kafka in {directory}")
    with _lock(directory):
        cluster = Cluster(directory, None)
        running = [node for node in cluster.nodes if node.alive]
        clean = asyncio.run(cluster.stop())
    typer.echo("stopped" if clean and running else "killed after 30 s" if running else "no broker runs", err=True)


@app.command()
def status(data_dir: DataDir = None) -> None:
    """Show the brokers and their addresses. Exit code 0: all of them answer."""
    directory = _directory(data_dir)
    if not (directory / "cluster.json").exists():
        raise UserError(f"no Kafka in {directory}")
    cluster = Cluster(directory, None)
    ready = asyncio.run(_ready(cluster))
    table = Table("broker", "address", "pid", "state")
    for node, answers in zip(cluster.nodes, ready, strict=True):
        state = "ready" if answers else "does not answer" if node.alive else "stopped"
        table.add_row(str(node.number), node.address, str(node.pid or ""), state)
    Console().print(table)
    if not all(ready):
        raise typer.Exit(1)


def _directory(path: Path | None) -> Path:
    """Returns the directory of the cluster: `path`, or `kafka` in the data directory."""
    settings: Settings = config.load_settings()
    return path or settings.data_dir / "kafka"


def _lock(directory: Path) -> AbstractContextManager[None]:
    """Locks the directory: two commands at the same time would start the same nodes twice."""
    private_files.make_private_dir(directory)
    return exclusive_lock(directory / "lock", f"another `attn kafka` uses {directory}; try again when it has ended")


async def _start(cluster: Cluster) -> None:
    try:
        await cluster.start()
    except UserError:
        await cluster.stop()
        raise
    typer.echo(cluster.bootstrap)
    logs = f"{cluster.directory}/node-*/kafka.log"
    typer.echo(f"Kafka is running with its logs in {logs}; `attn kafka stop` stops it", err=True)


async def _stay(cluster: Cluster) -> None:
    over = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, over.set)
    async with cluster:
        typer.echo(cluster.bootstrap)
        while not over.is_set():
            for node in cluster.nodes:
                if not node.alive:
                    raise UserError(f"Kafka node {node.number} has ended: {node.reason()}")
            try:
                async with asyncio.timeout(_WATCH):
                    await over.wait()
            except TimeoutError:
                pass


async def _ready(cluster: Cluster) -> list[bool]:
    return list(await asyncio.gather(*(node.is_ready() for node in cluster.nodes)))
