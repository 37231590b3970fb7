"""`attn worker`, `attn edge`, `attn history`: run one role until a signal."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
import typer

from ops import config, logs
from ops.commands.options import ClickHouse, DataDir, Host, Instance, Kafka, Port
from ops.errors import UserError
from schemas.settings import Settings

__all__ = ["edge", "history", "worker"]

Run = Callable[[Settings, asyncio.Event], Awaitable[None]]

Partitions = Annotated[str | None, typer.Option(
    "--partitions", metavar="0-31", help="Partitions this edge serves. [ATTN_PARTITIONS, else all]",
    show_default=False)]


def worker(data_dir: DataDir = None, kafka: Kafka = None, instance: Instance = None) -> None:
    """Take source events in and fold them into the view."""
    _run("worker", "streams.worker", config.load(data_dir=data_dir, kafka=kafka, instance=instance))


def edge(
    data_dir: DataDir = None, kafka: Kafka = None, clickhouse: ClickHouse = None, host: Host = None, port: Port = None,
    instance: Instance = None, partitions: Partitions = None,
) -> None:
    """Serve inboxes and live feeds over HTTP."""
    settings = config.load(
        data_dir=data_dir, kafka=kafka, clickhouse=clickhouse, host=host, port=port, instance=instance,
        partitions=partitions,
    )
    if settings.jwt_secret is None and settings.jwks_url is None:
        raise UserError("nobody could call: set ATTN_JWT_SECRET or ATTN_JWKS_URL, or --data-dir to that of `attn up`")
    _run("edge", "api.server", settings)


def history(
    data_dir: DataDir = None, kafka: Kafka = None, clickhouse: ClickHouse = None, instance: Instance = None
) -> None:
    """Write what happened to ClickHouse."""
    _run("history", "streams.history",
         config.load(data_dir=data_dir, kafka=kafka, clickhouse=clickhouse, instance=instance))


def _run(role: str, module: str, settings: Settings) -> None:
    logs.configure(role, settings)
    log = structlog.get_logger(f"attn.{role}")
    try:
        run: Run = importlib.import_module(module).run
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_until_signal(run, settings))
    except UserError:
        raise
    except Exception:
        log.exception("failed")
        raise SystemExit(1) from None
    log.info("stopped")


async def _until_signal(run: Run, settings: Settings) -> None:
    """The first SIGTERM or SIGINT asks it to stop; a second one does not wait for it."""
    stop = asyncio.Event()

    def on_signal(signum: int) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, on_signal, signum)
    await run(settings, stop)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # uvicorn brings it where it exists
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
