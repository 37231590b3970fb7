"""`attn worker`, `edge`, `deliver`, `demo`: run one role until a signal. `attn history` has its own module."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
import typer

from ops import config
from ops.cli import logging_setup
from ops.cli.imports import import_module
from ops.cli.options import ClickHouse, DataDir, Host, Instance, Kafka, Port
from ops.errors import UserError
from schemas.settings import Settings
from schemas.versions import UnsupportedVersion
from streams.kafka.topics import BrokerUnavailable
from streams.tracing.errors import TracesUnavailable

__all__ = ["Run", "deliver", "demo", "edge", "run_role", "worker"]

_NO_ADDRESS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})

Run = Callable[[Settings, asyncio.Event], Awaitable[None]]

Partitions = Annotated[str | None, typer.Option(
    "--partitions", metavar="0-31", help="Partitions of the log that this edge serves. [ATTN_PARTITIONS, else all]",
    show_default=False)]


EdgeHost = Annotated[str | None, typer.Option(
    "--host", help="Address of the edge, and address to listen on. [ATTN_HOST, else 127.0.0.1]",
    show_default=False)]
EdgePort = Annotated[int | None, typer.Option(
    "--port", min=1, max=65535, help="Port of the edge. [ATTN_PORT, else 8080]", show_default=False)]


def worker(data_dir: DataDir = None, kafka: Kafka = None, instance: Instance = None) -> None:
    """Run a worker: it reads source events and folds them into the view."""
    settings = config.load_settings(data_dir=data_dir, kafka=kafka, instance=instance)
    config.check_endpoints(settings)
    run_role("worker", "streams.worker.main", settings)


def edge(
    data_dir: DataDir = None, kafka: Kafka = None, clickhouse: ClickHouse = None, host: Host = None, port: Port = None,
    instance: Instance = None, partitions: Partitions = None,
) -> None:
    """Run an edge: it serves inboxes and live feeds over HTTP."""
    settings = config.load_settings(
        data_dir=data_dir, kafka=kafka, clickhouse=clickhouse, host=host, port=port, instance=instance,
        partitions=partitions, reads_as="edge",
    )
    if settings.jwt_secret is None and settings.jwks_url is None:
        raise UserError(
            "no token verification is configured: set ATTN_JWT_SECRET or ATTN_JWKS_URL, or pass the --data-dir of a "
            "running `attn up`")
    config.check_hooks(settings)
    from api.edge.services import parse_partitions

    try:
        parse_partitions(settings.partitions, settings.log_partitions)
    except ValueError as error:
        raise UserError(str(error), code=2) from None
    run_role("edge", "api.main", settings)


def deliver(data_dir: DataDir = None, kafka: Kafka = None, instance: Instance = None) -> None:
    """Post decisions to the HTTP endpoints of ATTN_ENDPOINTS, and report what became of them."""
    settings = config.load_settings(data_dir=data_dir, kafka=kafka, instance=instance)
    if settings.endpoints is None:
        raise UserError("no endpoints: set ATTN_ENDPOINTS to the TOML file that lists them")
    config.check_endpoints(settings)
    run_role("deliver", "streams.delivery.main", settings)


def demo(data_dir: DataDir = None, kafka: Kafka = None, host: EdgeHost = None, port: EdgePort = None) -> None:
    """Send events of an invented team to the workspace `demo` until a signal. `attn up --demo` runs this."""
    settings = config.load_settings(data_dir=data_dir, kafka=kafka, host=host, port=port)
    if settings.jwt_secret is None:
        raise UserError("demo users cannot sign in: set ATTN_JWT_SECRET, or pass the --data-dir of a running `attn up`")
    run_role("demo", "ops.demo", settings)


def run_role(role: str, module: str | Run, settings: Settings) -> None:
    """Runs a role until a signal. `module`: the module whose `run` is called, or a function to call in its place.

    Raises UserError for errors that the user can correct. Raises SystemExit with 75 (EX_TEMPFAIL) if Kafka is
    unreachable, so a restart may help, and with 1 after any other failure.
    """
    logging_setup.configure(role, settings)
    log = structlog.get_logger(f"attn.{role}")
    try:
        run: Run = import_module(module).run if isinstance(module, str) else module
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_until_signal(run, settings))
    except UserError:
        raise
    except TracesUnavailable as error:
        raise UserError(str(error), code=2) from None
    except Exception as error:
        code = 1
        from streams.history.clickhouse.migrate import MigrationError

        if (newer := _cause(error, UnsupportedVersion) or _cause(error, MigrationError)) is not None:
            log.critical("incompatible version", reason=str(newer))
        elif (away := _cause(error, BrokerUnavailable)) is not None:
            log.critical("Kafka is unreachable", reason=str(away))
            code = os.EX_TEMPFAIL  # the supervisor of `attn up` restarts it without limit
        elif isinstance(error, OSError) and (error.errno in _NO_ADDRESS or isinstance(error, socket.gaierror)):
            raise UserError(f"cannot listen: {error.strerror}") from None
        else:
            log.exception("failed")
        raise SystemExit(code) from None
    log.info("stopped")


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """Returns the first exception of type `kind` in the chain of causes; None if there is none."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


async def _until_signal(run: Run, settings: Settings) -> None:
    """Stops the role at the first SIGTERM or SIGINT; exits immediately at the second."""
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
    except ImportError:  # not available on every platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
