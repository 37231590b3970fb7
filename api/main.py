"""Process `attn edge`: HTTP server, topic follower, heartbeats and graceful shutdown.

The HTTP server starts first and reports "not ready" until the view is loaded.
"""

from __future__ import annotations

import asyncio

import structlog

from api.commands.command_log import open_log_writer
from api.edge.follower import TopicFollower
from api.edge.index_eviction import IndexEviction
from api.edge.services import Edge
from api.http.app import create_app
from api.http.auth.oidc.renewal import Renewal
from api.http.auth.oidc.sign_in import SignIn
from api.http.protocol.server import listen, make_server
from api.intake.sender import open_event_producer
from api.open_files import raise_file_limit
from schemas.settings import Settings
from streams.kafka import doorbell, idle_fetch, topics
from streams.runtime.lag import READY
from streams.tracing import hooks

__all__ = ["run"]

_STOP_SECONDS = 4.0
_MIN_SECRET = 32  # characters: RFC 7518 requires keys of 32 bytes for HS256, because shorter ones can be guessed

_log = structlog.get_logger("attn.edge")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. Raises if the topics cannot be followed any more or the address is in use."""
    hooks.start(settings, "edge")
    idle_fetch.install_throttle(doorbell.directory(settings))
    if settings.jwt_secret is not None and len(settings.jwt_secret) < _MIN_SECRET:
        _log.warning("ATTN_JWT_SECRET is short: an attacker could guess it and sign tokens; use more characters",
                     min_characters=_MIN_SECRET)
    files = raise_file_limit()
    edge = Edge(settings)
    READY.set_function(lambda: not edge.not_ready_reason())
    sock = listen(settings.host, settings.port)
    _log.info("the limit of open files limits the number of streams", files=files, streams=edge.connections.capacity)
    app = create_app(edge)
    http = make_server(app)
    _log.info("listening", host=settings.host, port=sock.getsockname()[1])
    tasks = {
        name: asyncio.create_task(work, name=name) for name, work in (
            ("http", http.serve(sockets=[sock])), ("view", _follow(edge, settings)),
            ("heartbeats", edge.connections.send_heartbeats()), ("access", edge.access_watch.run()),
            ("renewal", _renew(edge, app.state.sign_in)), ("indexes", IndexEviction(edge).run()),
            ("stop", stop.wait()),
        )
    }
    try:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Streams and long polls end first, because the server waits for open ones.
        edge.long_polls.close()
        if stop.is_set():
            await edge.connections.drain(settings.drain_seconds)
        edge.connections.close()
        http.should_exit = True
        await asyncio.wait({tasks["http"]}, timeout=_STOP_SECONDS)
        for task in tasks.values():
            task.cancel()
        ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
        await edge.args_checker.stop()
        sock.close()
        await edge.history.close()
        hooks.stop()
    for name, result in zip(tasks, ended, strict=True):
        if isinstance(result, Exception):
            _log.error("the edge stops because a task failed", task=name, error=_reason(result))
            raise result
    if not stop.is_set():
        raise RuntimeError("the HTTP server ended unexpectedly")


async def _follow(edge: Edge, settings: Settings) -> None:
    await _topics(edge, settings)
    async with open_log_writer(settings) as append, open_event_producer(settings) as producer:
        edge.command_log.append = append
        edge.event_sender.producer = producer
        await TopicFollower(edge, settings).run()


async def _renew(edge: Edge, sign_in: SignIn | None) -> None:
    """Renews the sessions of ATTN_OIDC_ISSUER; waits forever without one."""
    if sign_in is not None:
        await Renewal(edge, sign_in).run()
    await asyncio.Event().wait()


async def _topics(edge: Edge, settings: Settings) -> None:
    """Creates the topics. Waits for a broker without a time limit, because a restart of the edge would not help."""
    while True:
        try:
            await topics.ensure_topics(settings)
        except topics.BrokerUnavailable as error:
            edge.broker_health.record_failure(error)
        else:
            edge.broker_health.record_success()
            return


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reason(part) for part in error.exceptions)
    return repr(error)
